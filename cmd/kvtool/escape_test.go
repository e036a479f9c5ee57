package main

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// Goal: what is escaped prints, and can be read back. Method: Go's own readers of
// string literals and of JSON.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "plain", `"quoted"`, "\x00\x1b[2J", "\xff\xfe", "\u202e\u00ad", "\U000e0001😀", "\x7f\u0085", "a\tb\r\n", `\`, "\ufffd"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var w strings.Builder
		writeText(&w, b)
		text := w.String()
		for _, r := range text {
			if !strconv.IsPrint(r) {
				t.Fatalf("%q is written with %U", b, r)
			}
		}
		back := text
		if strings.HasPrefix(text, `"`) {
			var err error
			if back, err = strconv.Unquote(text); err != nil {
				t.Fatalf("%q is written %s: %v", b, text, err)
			}
		}
		if back != string(b) {
			t.Errorf("%q is written %s", b, text)
		}
		if !utf8.Valid(b) {
			return
		}
		var s string
		if err := json.Unmarshal(appendJSON(nil, b), &s); err != nil || s != string(b) {
			t.Errorf("%q is written %s (%v)", b, appendJSON(nil, b), err)
		}
	})
}

// Goal: text that a person can read stays as it is, and nothing else does.
func TestWriteText(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"text", "user/1", `user/1`},
		{"spaces", "a b", `a b`},
		{"other scripts", "Ключ 鍵", `Ключ 鍵`},
		{"inner quotes and backslashes", `a"b\c`, `a"b\c`},
		{"a leading quote", `"a`, `"\"a"`},
		{"nothing", "", `""`},
		{"a tab", "a\tb", `"a\tb"`},
		{"a bell", "\a", `"\x07"`},
		{"bytes", "\xc3(", `"\xc3("`},
		{"a turn of direction", "a\u202eb", `"a\u202eb"`},
		{"an invisible tag", "\U000e0041", `"\U000e0041"`},
		{"no-break space", "a\u00a0b", `"a\u00a0b"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var w strings.Builder
			writeText(&w, []byte(test.in))
			if w.String() != test.want {
				t.Errorf("%q is written %s, want %s", test.in, w.String(), test.want)
			}
		})
	}
}

// Goal: a path of anybody's making does nothing to the terminal that --json prints to.
func TestPrintable(t *testing.T) {
	b, err := json.Marshal(map[string]printable{"path": "a\x1b\u202e\xff\x7f<"})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"path":"a\u001b\u202e` + "\ufffd" + `\u007f\u003c"}`; string(b) != want {
		t.Errorf("written %s, want %s", b, want)
	}
}
