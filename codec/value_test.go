package codec_test

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/codec/entrypb"
	"google.golang.org/protobuf/proto"
)

type (
	defined string
	count   int
	point   struct{ X, Y int }
)

// wantForm fails the test unless c writes v as the bytes that hex says, behind what was there,
// and reads them back as v.
func wantForm[T any](t *testing.T, c codec.Codec[T], name string, v T, hex string) {
	t.Helper()
	dst, err := c.Append([]byte("xx"), v)
	if err != nil || fmt.Sprintf("%x", dst) != "7878"+hex {
		t.Errorf("%s: %v is %x, %v; want 7878%s", name, v, dst, err, hex)
		return
	}
	got, err := c.Decode(dst[2:])
	if m, ok := any(v).(proto.Message); ok && err == nil && proto.Equal(m, any(got).(proto.Message)) {
		return
	}
	if err != nil || !reflect.DeepEqual(got, v) {
		t.Errorf("%s: %s is read as %v, %v; want %v", name, hex, got, err, v)
	}
	if c.Name() != name {
		t.Errorf("the codec is called %s, want %s", c.Name(), name)
	}
}

// Goal: the bytes of values are what they were, on every machine and in every release. Method: a table.
func TestValueForms(t *testing.T) {
	wantForm(t, codec.Codec[[]byte](codec.Bytes{}), "bytes", []byte{}, "")
	wantForm(t, codec.Codec[[]byte](codec.Bytes{}), "bytes", []byte{0, 255}, "00ff")
	wantForm(t, codec.Codec[string](codec.String{}), "string", "a\x00", "6100")
	wantForm(t, codec.Codec[defined](codec.StringOf[defined]{}), "string", "d", "64")
	wantForm(t, codec.Codec[bool](codec.Bool{}), "bool", true, "01")
	wantForm(t, codec.Codec[bool](codec.Bool{}), "bool", false, "00")
	wantForm(t, codec.Codec[int](codec.Int{}), "int64", -1, "7fffffffffffffff")
	wantForm(t, codec.Codec[count](codec.Integer[count]{}), "int64", 1, "8000000000000001")
	wantForm(t, codec.Codec[int8](codec.Int8{}), "int8", math.MinInt8, "00")
	wantForm(t, codec.Codec[int16](codec.Int16{}), "int16", 0, "8000")
	wantForm(t, codec.Codec[int32](codec.Int32{}), "int32", math.MaxInt32, "ffffffff")
	wantForm(t, codec.Codec[int64](codec.Int64{}), "int64", math.MinInt64, "0000000000000000")
	wantForm(t, codec.Codec[uint](codec.Uint{}), "uint64", 258, "0000000000000102")
	wantForm(t, codec.Codec[uint8](codec.Uint8{}), "uint8", 9, "09")
	wantForm(t, codec.Codec[uint16](codec.Uint16{}), "uint16", 258, "0102")
	wantForm(t, codec.Codec[uint32](codec.Uint32{}), "uint32", 258, "00000102")
	wantForm(t, codec.Codec[uint64](codec.Uint64{}), "uint64", math.MaxUint64, "ffffffffffffffff")
	wantForm(t, codec.Codec[float32](codec.Float32{}), "float32", 1, "bf800000")
	wantForm(t, codec.Codec[float64](codec.Float64{}), "float64", -1, "400fffffffffffff")
	wantForm(t, codec.Codec[float64](codec.Float64{}), "float64", math.Inf(1), "fff0000000000000")
	wantForm(t, codec.Codec[time.Time](codec.Time{}), "time", time.Unix(-1, 5).UTC(), "7fffffffffffffff00000005")
	wantForm(t, codec.Codec[time.Time](codec.Time{}), "time", time.Time{}.UTC(), "7ffffff1886e090000000000")
	wantForm(t, codec.Codec[point](codec.JSON[point]{}), "json", point{1, 2}, "7b2258223a312c2259223a327d")
	wantForm(t, codec.Codec[netip.Addr](codec.Text[netip.Addr]{}), "text", netip.MustParseAddr("::1"), "3a3a31")
	wantForm(t, codec.Codec[netip.Addr](codec.Binary[netip.Addr]{}), "binary", netip.MustParseAddr("1.2.3.4"), "01020304")
	wantForm(t, codec.Codec[*url.URL](codec.Binary[*url.URL]{}), "binary", &url.URL{Path: "p"}, "70")
	wantForm(t, codec.Codec[*entrypb.Entry](codec.Proto[*entrypb.Entry]{}), "proto:mmapkv.Entry", &entrypb.Entry{Key: []byte("k"), Revision: 2}, "0a016b1002")
}

// Goal: bytes of numbers and of moments compare as they do. Method: pairs drawn at random, many
// of them close.
func TestValueOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	inOrder(t, codec.Codec[int64](codec.Int64{}), func() int64 { return int64(rng.Uint64()) >> rng.IntN(64) }, func(a, b int64) bool { return a < b })
	inOrder(t, codec.Codec[int16](codec.Int16{}), func() int16 { return int16(rng.Uint32()) }, func(a, b int16) bool { return a < b })
	inOrder(t, codec.Codec[uint32](codec.Uint32{}), func() uint32 { return rng.Uint32() >> rng.IntN(32) }, func(a, b uint32) bool { return a < b })
	inOrder(t, codec.Codec[float64](codec.Float64{}), func() float64 { return rng.NormFloat64() * math.Pow(2, float64(rng.IntN(40)-20)) }, func(a, b float64) bool { return a < b })
	inOrder(t, codec.Codec[float32](codec.Float32{}), func() float32 { return float32(rng.NormFloat64()) }, func(a, b float32) bool { return a < b })
	inOrder(t, codec.Codec[time.Time](codec.Time{}), func() time.Time { return time.Unix(int64(rng.IntN(4))-2, int64(rng.IntN(1e9))) }, time.Time.Before)
}

func inOrder[T any](t *testing.T, c codec.Codec[T], draw func() T, less func(a, b T) bool) {
	t.Helper()
	for range 10_000 {
		a, b := draw(), draw()
		x, _ := c.Append(nil, a)
		y, _ := c.Append(nil, b)
		if less(a, b) != (bytes.Compare(x, y) < 0) {
			t.Fatalf("%s: %v is %x, %v is %x", c.Name(), a, x, b, y)
		}
	}
}

// Goal: the codec goes by the type, and where there is none the error says what to do. Method:
// a table of types.
func TestOf(t *testing.T) {
	wantOf(t, "string", "s")
	wantOf(t, "bytes", []byte("b"))
	wantOf(t, "bool", true)
	wantOf(t, "int64", -5)
	wantOf(t, "uint16", uint16(5))
	wantOf(t, "float32", float32(0.5))
	wantOf(t, "time", time.Unix(5, 6).UTC())
	wantOf(t, "proto:mmapkv.Entry", &entrypb.Entry{Key: []byte("k")})
	wantOf(t, "binary", netip.MustParseAddr("1.2.3.4")) // text too
	wantOf(t, "string", defined("d"))
	wantOf(t, "int64", count(7))
	wantOf(t, "int64", time.Second)
	if _, err := codec.Of[point](); err == nil || !strings.Contains(err.Error(), "codec.JSON[codec_test.point]{}") {
		t.Errorf("of a struct: %v", err)
	}
	if _, err := codec.Of[any](); err == nil {
		t.Error("of any: there is a codec")
	}
}

func wantOf[T any](t *testing.T, name string, v T) {
	t.Helper()
	c, err := codec.Of[T]()
	if err != nil {
		t.Error(err)
		return
	}
	b, err := c.Append(nil, v)
	if err != nil {
		t.Error(err)
	}
	wantForm(t, c, name, v, fmt.Sprintf("%x", b))
}

// Goal: bytes that are no value are refused as such. Method: a table.
func TestValueRefused(t *testing.T) {
	refused := func(name string, err error) {
		t.Helper()
		if !errors.Is(err, codec.ErrValue) {
			t.Errorf("%s: %v, want %v", name, err, codec.ErrValue)
		}
	}
	_, err := codec.Bool{}.Decode([]byte{2})
	refused("bool", err)
	_, err = codec.Int32{}.Decode([]byte{1, 2, 3})
	refused("short", err)
	_, err = codec.Uint8{}.Decode(nil)
	refused("nothing", err)
	_, err = codec.Float64{}.Decode(make([]byte, 9))
	refused("long", err)
	_, err = codec.Time{}.Decode(bytes.Repeat([]byte{0xff}, 12))
	refused("time", err)
	_, err = codec.JSON[point]{}.Decode([]byte("{"))
	refused("json", err)
	_, err = codec.Text[netip.Addr]{}.Decode([]byte("here"))
	refused("text", err)
	_, err = codec.Binary[netip.Addr]{}.Decode([]byte("here!"))
	refused("binary", err)
	_, err = codec.Proto[*entrypb.Entry]{}.Decode([]byte{0xff})
	refused("proto", err)
}

// Goal: no bytes make a codec panic, and what it reads of them it writes as them. Method: fuzzing.
func FuzzValue(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x80, 0, 0, 0, 0, 0, 0, 1})
	f.Add([]byte{0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		sameBytes(t, codec.Codec[[]byte](codec.Bytes{}), b)
		sameBytes(t, codec.Codec[string](codec.String{}), b)
		sameBytes(t, codec.Codec[bool](codec.Bool{}), b)
		sameBytes(t, codec.Codec[int8](codec.Int8{}), b)
		sameBytes(t, codec.Codec[int](codec.Int{}), b)
		sameBytes(t, codec.Codec[uint16](codec.Uint16{}), b)
		sameBytes(t, codec.Codec[float64](codec.Float64{}), b)
		sameBytes(t, codec.Codec[time.Time](codec.Time{}), b)
		codec.JSON[any]{}.Decode(b)
		codec.Binary[netip.Prefix]{}.Decode(b)
		codec.Proto[*entrypb.Entry]{}.Decode(b)
	})
}

func sameBytes[T any](t *testing.T, c codec.Codec[T], b []byte) {
	v, err := c.Decode(b)
	if err != nil {
		return
	}
	if again, err := c.Append(nil, v); err != nil || !bytes.Equal(again, b) {
		t.Errorf("%s: %x is read as %v and written as %x, %v", c.Name(), b, v, again, err)
	}
}

// Goal: the names of a map's codecs are kept as they were, fields of later versions are
// skipped, and bytes that are none are refused. Method: a table.
func TestPair(t *testing.T) {
	p := codec.Pair{Keys: "string", Values: "json"}
	b := p.Append(nil)
	if want := "0a06737472696e6712046a736f6e"; fmt.Sprintf("%x", b) != want {
		t.Errorf("%v is %x, want %s", p, b, want)
	}
	later := append(append([]byte{0x1a, 1, 'x'}, b...), 0x20, 5)
	for name, b := range map[string][]byte{"as written": b, "with more": later} {
		if got, err := codec.DecodePair(b); err != nil || got != p {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for _, b := range [][]byte{{0x0a}, {0x0a, 5, 'x'}, {0xff}, {0x0b}} {
		if got, err := codec.DecodePair(b); !errors.Is(err, codec.ErrValue) {
			t.Errorf("%x: %v, %v", b, got, err)
		}
	}
	if got, want := (codec.Pair{Keys: "string", Values: "\x1b[31mred"}).String(), `keys of string and values of "\x1b[31mred"`; got != want {
		t.Errorf("printed as %s, want %s", got, want)
	}
}

// Goal: what could be written and never read is refused, and a nil pointer is an error and no
// panic. Method: an interface that marshals both ways; pointers to types that marshal themselves.
func TestOfRefuses(t *testing.T) {
	type both interface {
		encoding.BinaryMarshaler
		encoding.BinaryUnmarshaler
	}
	if c, err := codec.Of[both](); err == nil {
		t.Errorf("an interface has the codec %s", c.Name())
	}
	c, err := codec.Of[*time.Time]()
	if err != nil {
		t.Fatal(err)
	}
	for name, appendNil := range map[string]func(dst []byte) ([]byte, error){
		"Of":     func(dst []byte) ([]byte, error) { return c.Append(dst, nil) },
		"Binary": func(dst []byte) ([]byte, error) { return codec.Binary[*time.Time]{}.Append(dst, nil) },
		"Text":   func(dst []byte) ([]byte, error) { return codec.Text[*time.Time]{}.Append(dst, nil) },
	} {
		if b, err := appendNil([]byte("x")); err == nil || string(b) != "x" {
			t.Errorf("%s of a nil pointer: %q, %v", name, b, err)
		}
	}
}
