package codec_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/mmapkv/mmapkv/codec"
)

// Goal: what a person writes becomes the bytes that the codec of that name writes, and they are
// read as what was written. Method: a table.
func TestByName(t *testing.T) {
	for _, test := range []struct{ name, text, hex, shown string }{
		{"bytes", "a\x00", "6100", "[97 0]"},
		{"string", "a", "61", "a"},
		{"text", "::1", "3a3a31", "::1"},
		{"bool", "true", "01", "true"},
		{"int8", "-128", "00", "-128"},
		{"int16", "0", "8000", "0"},
		{"int32", "2147483647", "ffffffff", "2147483647"},
		{"int64", "-1", "7fffffffffffffff", "-1"},
		{"uint8", "9", "09", "9"},
		{"uint16", "258", "0102", "258"},
		{"uint32", "258", "00000102", "258"},
		{"uint64", "18446744073709551615", "ffffffffffffffff", "18446744073709551615"},
		{"float32", "1", "bf800000", "1"},
		{"float64", "-Inf", "000fffffffffffff", "-Inf"},
		{"time", "1969-12-31T23:59:59.000000005Z", "7fffffffffffffff00000005", "1969-12-31 23:59:59.000000005 +0000 UTC"},
		{"json", `{"a": 1}`, "7b2261223a317d", `[123 34 97 34 58 49 125]`},
	} {
		n, ok := codec.ByName(test.name)
		if !ok || n.Name() != test.name {
			t.Errorf("%s: %v, the name is %s", test.name, ok, n.Name())
			continue
		}
		v, err := n.Parse(test.text)
		if err != nil {
			t.Error(err)
			continue
		}
		b, err := n.Append(nil, v)
		if err != nil || fmt.Sprintf("%x", b) != test.hex {
			t.Errorf("%s: %s is %x, %v; want %s", test.name, test.text, b, err, test.hex)
		}
		back, err := n.Decode(b)
		if err != nil || fmt.Sprint(back) != test.shown {
			t.Errorf("%s: %x is read as %v, %v; want %s", test.name, b, back, err, test.shown)
		}
	}
}

// Goal: what no codec of that name writes is refused, and names that need a type are not found.
// Method: a table.
func TestByNameRefused(t *testing.T) {
	for name, text := range map[string]string{"bool": "maybe", "int8": "128", "uint64": "-1", "float64": "one", "time": "yesterday", "json": "{"} {
		n, _ := codec.ByName(name)
		if v, err := n.Parse(text); !errors.Is(err, codec.ErrValue) {
			t.Errorf("%s: %s is %v, %v", name, text, v, err)
		}
		if v, err := n.Decode([]byte("{no")); !errors.Is(err, codec.ErrValue) {
			t.Errorf("%s: bytes of none are %v, %v", name, v, err)
		}
		if b, err := n.Append(nil, struct{}{}); !errors.Is(err, codec.ErrValue) {
			t.Errorf("%s: a struct is %x, %v", name, b, err)
		}
	}
	for _, name := range []string{"", "binary", "proto:mmapkv.Entry", "mine"} {
		if n, ok := codec.ByName(name); ok {
			t.Errorf("%q: found as %s", name, n.Name())
		}
	}
}
