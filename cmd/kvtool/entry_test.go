package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// Goal: a line that is not exactly an entry is refused, with a reason that names
// the field. Method: a table of damage.
func TestParseEntryRefuses(t *testing.T) {
	for _, test := range []struct{ name, line, why string }{
		{"no JSON", `key=value`, "not a JSON object"},
		{"cut short", `{"key":"a","value":"b"`, "cut short: a comma or the end"},
		{"cut short in a string", `{"key":"a","value":"b`, "value: is not a string that ends"},
		{"cut short in an escape", `{"key":"a","value":"b\`, "value: is not a string that ends"},
		{"cut short behind a name", `{"key"`, "cut short: a colon"},
		{"no comma", `{"key":"a" "value":"b"}`, "a comma or the end of the object should stand before"},
		{"a comma too many", `{"key":"a","value":"b",}`, "the name of a field"},
		{"a comma too early", `{,"key":"a","value":"b"}`, "the name of a field"},
		{"a wrong escape", `{"key":"\x61","value":"b"}`, "key: is not a JSON string"},
		{"a raw control byte", "{\"key\":\"a\x01\",\"value\":\"b\"}", "key: is not a string"},
		{"a line break in base64", `{"key":"a","value_base64":"YW\nE="}`, "value_base64: illegal base64"},
		{"a name in another case", `{"Key":"a","value":"b"}`, "no such field"},
		{"an escaped name", `{"\u006bey":"a","value":"b"}`, "no such field"},
		{"an array", `["a","b"]`, "not a JSON object"},
		{"null", `null`, "not a JSON object"},
		{"nothing in it", `{}`, "neither key nor key_base64"},
		{"no key", `{"value":"b"}`, "neither key nor key_base64 is there"},
		{"no value", `{"key":"a"}`, "neither value nor value_base64 is there"},
		{"two forms of the key", `{"key":"a","key_base64":"YQ==","value":"b"}`, "both key and key_base64"},
		{"two forms of the value", `{"key":"a","value":"b","value_base64":""}`, "both value and value_base64"},
		{"a key twice", `{"key":"a","value":"b","key":"c"}`, "key: is there twice"},
		{"a base64 key twice", `{"key_base64":"","value":"b","key_base64":""}`, "key_base64: is there twice"},
		{"another field", `{"key":"a","value":"b","ttl":5}`, `"ttl": an entry has no such field`},
		{"a number", `{"key":1,"value":"b"}`, "key: is not a string"},
		{"a null", `{"key":"a","value":null}`, "value: is not a string"},
		{"an object", `{"key":"a","value":{"x":1}}`, "value: is not a string"},
		{"no base64", `{"key":"a","value_base64":"!"}`, "value_base64: illegal base64"},
		{"base64 without padding", `{"key":"a","value_base64":"YQ"}`, "value_base64: illegal base64"},
		{"base64 with stray bits", `{"key":"a","value_base64":"YR=="}`, "value_base64: illegal base64"},
		{"no UTF-8", "{\"key\":\"\xff\",\"value\":\"b\"}", "not valid UTF-8"},
		{"half of a pair", `{"key":"\ud800","value":"b"}`, "key: holds half of a surrogate pair"},
		{"the other half", `{"key":"a","value":"\udc00"}`, "value: holds half of a surrogate pair"},
		{"halves apart", `{"key":"\ud800x\udc00","value":"b"}`, "surrogate"},
		{"half before another escape", `{"key":"\ud800\n","value":"b"}`, "surrogate"},
		{"two first halves", `{"key":"\ud800\ud800","value":"b"}`, "surrogate"},
		{"no time", `{"key":"a","value":"b","expires":"tomorrow"}`, `expires: "tomorrow" is no time`},
		{"seconds for a time", `{"key":"a","value":"b","expires":99}`, "expires: is not a string"},
		{"a second object", `{"key":"a","value":"b"} {}`, "more follows"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, err := parseEntry([]byte(test.line), new(mapping))
			if err == nil {
				t.Fatalf("taken as %+v", e)
			}
			if !strings.Contains(err.Error(), test.why) {
				t.Errorf("error %q does not say %q", err, test.why)
			}
		})
	}
}

// Goal: what may stand on a line is read as what it means.
func TestParseEntry(t *testing.T) {
	for _, test := range []struct {
		name, line string
		key, value string
	}{
		{"text", `{"key":"a","value":"b"}`, "a", "b"},
		{"white space around", " {\"key\" : \"a\" ,\"value\":\"b\"}\r\n", "a", "b"},
		{"any order", `{"value":"b","key":"a"}`, "a", "b"},
		{"both empty", `{"key":"","value_base64":""}`, "", ""},
		{"escapes", `{"key":"\u00e9\ud83d\ude00\n\\ud800","value":"\"\/"}`, "é😀\n\\ud800", `"/`},
		{"base64", `{"key_base64":"/wA=","value_base64":"AP8="}`, "\xff\x00", "\x00\xff"},
		{"base64 with escapes", `{"key_base64":"\/wA\u003d","value":""}`, "\xff\x00", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, err := parseEntry([]byte(test.line), new(mapping))
			if err != nil {
				t.Fatal(err)
			}
			if string(e.key) != test.key || string(e.value) != test.value || !e.expires.IsZero() {
				t.Errorf("read as %q, %q, %v", e.key, e.value, e.expires)
			}
		})
	}
}

// Goal: import reads exactly what export wrote, in one line of printable text.
func FuzzEntryRoundTrip(f *testing.F) {
	f.Add([]byte("key"), []byte("value"), int64(0))
	f.Add([]byte{}, []byte{0xff, 0}, int64(1_700_000_000_123))
	f.Add([]byte("\u202e\x1b\x7f\"\\"), []byte("\U000e0001\n\ufffd"), int64(1))
	f.Add([]byte("\xed\xa0\x80"), []byte("é\xc3"), int64(253402300799999))
	f.Fuzz(func(t *testing.T, key, value []byte, expires int64) {
		if expires < 0 || expires > 253402300799999 { // the year 9999, where RFC 3339 ends
			expires = 0
		}
		want := time.Time{}
		if expires != 0 {
			want = time.UnixMilli(expires)
		}
		var line bytes.Buffer
		new(mapping).writeEntry(&line, key, value, want)
		text, ok := strings.CutSuffix(line.String(), "\n")
		if !ok || !isPlain([]byte(text)) {
			t.Fatalf("not a line of plain text: %q", line.String())
		}
		e, err := parseEntry(line.Bytes(), new(mapping))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if !bytes.Equal(e.key, key) || !bytes.Equal(e.value, value) || !e.expires.Equal(want) {
			t.Errorf("%s: read as %q, %q, %v", text, e.key, e.value, e.expires)
		}
	})
}

// Goal: no line makes the parser panic, and what it takes is JSON that says the
// same to others. Method: encoding/json reads it too.
func FuzzParseEntry(f *testing.F) {
	f.Add([]byte(`{"key":"a","value_base64":"AP8=","expires":"2999-01-02T03:04:05.678Z"}`))
	f.Add([]byte(`{"key":"\ud83d\ude00\\","value":"\"\u0000"}`))
	f.Add([]byte(` { "key_base64" : "\/w==" , "value" : "" } `))
	f.Add([]byte(`{"key":"\ud800`))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := parseEntry(line, new(mapping))
		if err != nil {
			return
		}
		var other struct {
			Key, Value  string
			KeyBase64   []byte `json:"key_base64"`
			ValueBase64 []byte `json:"value_base64"`
			Expires     time.Time
		}
		if err := json.Unmarshal(line, &other); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if string(e.key) != other.Key+string(other.KeyBase64) || string(e.value) != other.Value+string(other.ValueBase64) || !e.expires.Equal(other.Expires) {
			t.Errorf("%q: read as %q, %q, %v; others read %+v", line, e.key, e.value, e.expires, other)
		}
	})
}
