package codec_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/codec/entrypb"
	"google.golang.org/protobuf/proto"
)

// upper is a codec of a program's own: strings, written in capitals.
type upper struct{}

func (upper) Append(dst []byte, v string) ([]byte, error) {
	return append(dst, strings.ToUpper(v)...), nil
}

func (upper) Decode(src []byte) (string, error) {
	if s := string(src); s == strings.ToUpper(s) {
		return s, nil
	}
	return "", fmt.Errorf("%w: %.20q has small letters", codec.ErrValue, src)
}

func (upper) Name() string { return "upper" } // kept with the data: not to be changed later

// A codec of one's own is a type with three methods.
func ExampleCodec() {
	var c codec.Codec[string] = upper{}
	b, err := c.Append(nil, "loud")
	fmt.Println(string(b), err)
	_, err = c.Decode([]byte("quiet"))
	fmt.Println(errors.Is(err, codec.ErrValue), err)
	// Output:
	// LOUD <nil>
	// true bytes are not those of a value: "quiet" has small letters
}

func ExampleOf() {
	c, err := codec.Of[time.Duration]() // by its kind
	fmt.Println(c.Name(), err)
	_, err = codec.Of[map[string]int]()
	fmt.Println(err != nil) // the error names codec.JSON
	// Output:
	// int64 <nil>
	// true
}

func ExampleBytes() {
	src := []byte("abc")
	v, err := codec.Bytes{}.Decode(src)
	src[0] = 'x' // v is a copy
	fmt.Println(string(v), err)
	// Output: abc <nil>
}

func ExampleStringOf() {
	type city string
	b, _ := codec.StringOf[city]{}.Append(nil, "Reykjavík")
	v, err := codec.StringOf[city]{}.Decode(b)
	fmt.Println(v, err)
	// Output: Reykjavík <nil>
}

func ExampleBool() {
	b, _ := codec.Bool{}.Append(nil, true)
	_, err := codec.Bool{}.Decode([]byte{2})
	fmt.Println(b, errors.Is(err, codec.ErrValue))
	// Output: [1] true
}

// Bytes compare as the numbers do.
func ExampleInteger() {
	minus, _ := codec.Int32{}.Append(nil, -1)
	plus, _ := codec.Int32{}.Append(nil, 1)
	fmt.Printf("%x %x %d\n", minus, plus, bytes.Compare(minus, plus))
	// Output: 7fffffff 80000001 -1
}

func ExampleFloat() {
	minus, _ := codec.Float64{}.Append(nil, -0.5)
	plus, _ := codec.Float64{}.Append(nil, 0.5)
	fmt.Println(bytes.Compare(minus, plus))
	// Output: -1
}

// The moment is kept, and its location is not.
func ExampleTime() {
	at := time.Date(2024, 2, 29, 12, 0, 0, 1, time.FixedZone("", 3600))
	b, _ := codec.Time{}.Append(nil, at)
	v, err := codec.Time{}.Decode(b)
	fmt.Println(v, v.Equal(at), err)
	// Output: 2024-02-29 11:00:00.000000001 +0000 UTC true <nil>
}

func ExampleJSON() {
	type user struct {
		Name string `json:"name"`
	}
	b, _ := codec.JSON[user]{}.Append(nil, user{"Ada"})
	v, err := codec.JSON[user]{}.Decode(b)
	fmt.Println(string(b), v, err)
	// Output: {"name":"Ada"} {Ada} <nil>
}

func ExampleText() {
	b, _ := codec.Text[netip.Addr]{}.Append(nil, netip.MustParseAddr("192.0.2.1"))
	v, err := codec.Text[netip.Addr]{}.Decode(b)
	fmt.Println(string(b), v, err)
	// Output: 192.0.2.1 192.0.2.1 <nil>
}

func ExampleBinary() {
	u, _ := url.Parse("https://example.com/a?b=c")
	b, _ := codec.Binary[*url.URL]{}.Append(nil, u)
	v, err := codec.Binary[*url.URL]{}.Decode(b)
	fmt.Println(v, err)
	// Output: https://example.com/a?b=c <nil>
}

// T is the pointer type that protoc-gen-go makes; any message will do.
func ExampleProto() {
	c := codec.Proto[*entrypb.Entry]{}
	b, _ := c.Append(nil, &entrypb.Entry{Key: []byte("apple"), Revision: 7})
	v, err := c.Decode(b)
	fmt.Println(strings.HasPrefix(c.Name(), "proto:"), proto.Size(v) == len(b), v.GetRevision(), err)
	// Output: true true 7 <nil>
}

func ExamplePair() {
	b := codec.Pair{Keys: codec.String{}.Name(), Values: codec.Int{}.Name()}.Append(nil)
	p, err := codec.DecodePair(b)
	fmt.Println(p.Keys, p.Values, err)
	// Output: string int64 <nil>
}

func ExampleKind() {
	p := codec.Append(nil, &codec.Entry{Key: []byte("apple"), Revision: 2, Kind: codec.Delete})
	e, err := codec.Decode(p)
	fmt.Println(e.Kind == codec.Delete, e.Value == nil, err)
	// Output: true true <nil>
}
