package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"time"
)

// Codec turns values of one type into bytes and back. A Codec keeps no state, and its methods
// may be called from any number of goroutines. As a codec of keys it writes equal values as equal
// bytes.
type Codec[T any] interface {
	// Append appends the bytes of v to dst and returns the extended slice, as append
	// does. On an error it returns dst as it was.
	Append(dst []byte, v T) ([]byte, error)
	// Decode returns the value of which src has the bytes. What it returns does not
	// alias src. Bytes that are those of no value are an error that matches ErrValue.
	Decode(src []byte) (T, error)
	// Name identifies the form of the bytes, and not the type: it is kept with the data, and
	// who opens them with a codec of another name is refused. It is always the same.
	Name() string
}

// ErrValue is wrapped, with what is wrong, by the errors of a codec's Decode, of DecodePair and of
// Named.
var ErrValue = errors.New("bytes are not those of a value")

// Bytes is the codec of bytes as they are. Decode returns a copy, which is never nil.
type Bytes struct{}

func (Bytes) Append(dst []byte, v []byte) ([]byte, error) { return append(dst, v...), nil }
func (Bytes) Decode(src []byte) ([]byte, error)           { return append([]byte{}, src...), nil }
func (Bytes) Name() string                                { return "bytes" }

// StringOf is the codec of strings of any type, whatever bytes they have.
type StringOf[T ~string] struct{}

// String is the codec of strings.
type String = StringOf[string]

func (StringOf[T]) Append(dst []byte, v T) ([]byte, error) { return append(dst, v...), nil }
func (StringOf[T]) Decode(src []byte) (T, error)           { return T(src), nil }
func (StringOf[T]) Name() string                           { return "string" }

// Bool is the codec of truth values: one byte, 0 or 1.
type Bool struct{}

func (Bool) Append(dst []byte, v bool) ([]byte, error) {
	if v {
		return append(dst, 1), nil
	}
	return append(dst, 0), nil
}

func (Bool) Decode(src []byte) (bool, error) {
	if len(src) != 1 || src[0] > 1 {
		return false, fmt.Errorf("%w: bool of the bytes %.8x", ErrValue, src)
	}
	return src[0] == 1, nil
}

func (Bool) Name() string { return "bool" }

// Integer is the codec of integers of any type. It writes all of their bits, the most
// significant byte first, and of signed ones the sign bit inverted: so bytes compare as the
// numbers do. An int and a uint take 64 bits on any machine, and have the names of an int64 and
// a uint64.
type Integer[T interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64
}] struct{}

// The codecs of the built-in integers.
type (
	Int    = Integer[int]
	Int8   = Integer[int8]
	Int16  = Integer[int16]
	Int32  = Integer[int32]
	Int64  = Integer[int64]
	Uint   = Integer[uint]
	Uint8  = Integer[uint8]
	Uint16 = Integer[uint16]
	Uint32 = Integer[uint32]
	Uint64 = Integer[uint64]
)

// form returns the kind of T, with 64 bits for an int and a uint, and the bit that is its sign, or 0.
func (Integer[T]) form() (kind reflect.Kind, sign uint64) {
	kind = reflect.TypeFor[T]().Kind()
	switch kind {
	case reflect.Int:
		kind = reflect.Int64
	case reflect.Uint:
		kind = reflect.Uint64
	}
	if ^T(0) < 0 {
		sign = 1 << (8*width(kind) - 1)
	}
	return kind, sign
}

// width returns the bytes of a number of a kind.
func width(kind reflect.Kind) int {
	switch kind {
	case reflect.Int8, reflect.Uint8:
		return 1
	case reflect.Int16, reflect.Uint16:
		return 2
	case reflect.Int32, reflect.Uint32, reflect.Float32:
		return 4
	}
	return 8
}

// appendBits appends the lowest n bytes of bits.
func appendBits(dst []byte, bits uint64, n int) []byte {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], bits)
	return append(dst, b[8-n:]...)
}

// readBits reads what appendBits wrote of a number of a kind.
func readBits(src []byte, kind reflect.Kind) (bits uint64, err error) {
	n := width(kind)
	if len(src) != n {
		return 0, fmt.Errorf("%w: %v takes %d bytes, not %d", ErrValue, kind, n, len(src))
	}
	var b [8]byte
	copy(b[8-n:], src)
	return binary.BigEndian.Uint64(b[:]), nil
}

func (c Integer[T]) Append(dst []byte, v T) ([]byte, error) {
	kind, sign := c.form()
	return appendBits(dst, uint64(v)^sign, width(kind)), nil
}

func (c Integer[T]) Decode(src []byte) (T, error) {
	kind, sign := c.form()
	bits, err := readBits(src, kind)
	if err != nil {
		return 0, err
	}
	v := T(bits ^ sign)
	if uint64(v)<<(64-8*width(kind)) != (bits^sign)<<(64-8*width(kind)) {
		return 0, fmt.Errorf("%w: the number does not fit into an int of this machine", ErrValue)
	}
	return v, nil
}

func (c Integer[T]) Name() string {
	kind, _ := c.form()
	return kind.String()
}

// Float is the codec of floating point numbers: their bits, the most significant byte first, of
// negative ones all inverted, and of others the sign. So bytes compare as the numbers do, with
// NaNs at the ends. A NaN keeps its bits; -0 and 0 are two keys.
type Float[T interface{ ~float32 | ~float64 }] struct{}

// The codecs of the built-in floating point numbers.
type (
	Float32 = Float[float32]
	Float64 = Float[float64]
)

func (Float[T]) kind() reflect.Kind { return reflect.TypeFor[T]().Kind() }

func (c Float[T]) Append(dst []byte, v T) ([]byte, error) {
	n := width(c.kind())
	bits := math.Float64bits(float64(v))
	if n == 4 {
		bits = uint64(math.Float32bits(float32(v)))
	}
	sign := uint64(1) << (8*n - 1)
	if bits&sign != 0 {
		bits = ^bits
	} else {
		bits |= sign
	}
	return appendBits(dst, bits, n), nil
}

func (c Float[T]) Decode(src []byte) (T, error) {
	kind := c.kind()
	bits, err := readBits(src, kind)
	if err != nil {
		return 0, err
	}
	if sign := uint64(1) << (8*width(kind) - 1); bits&sign != 0 {
		bits &^= sign
	} else {
		bits = ^bits
	}
	if kind == reflect.Float32 {
		return T(math.Float32frombits(uint32(bits))), nil
	}
	return T(math.Float64frombits(bits)), nil
}

func (c Float[T]) Name() string { return c.kind().String() }

// Time is the codec of moments, to the nanosecond: seconds since 1970 as an Int64 does,
// and nanoseconds. So bytes compare as the moments do. The location is not kept: Decode returns
// UTC.
type Time struct{}

// timeSize is the size of a moment in bytes.
const timeSize = 12

func (Time) Append(dst []byte, v time.Time) ([]byte, error) {
	dst = appendBits(dst, uint64(v.Unix())^1<<63, 8)
	return appendBits(dst, uint64(v.Nanosecond()), 4), nil
}

func (Time) Decode(src []byte) (time.Time, error) {
	if len(src) != timeSize {
		return time.Time{}, fmt.Errorf("%w: time takes %d bytes, not %d", ErrValue, timeSize, len(src))
	}
	sec, nsec := binary.BigEndian.Uint64(src)^1<<63, binary.BigEndian.Uint32(src[8:])
	if nsec >= 1e9 {
		return time.Time{}, fmt.Errorf("%w: time with %d nanoseconds", ErrValue, nsec)
	}
	return time.Unix(int64(sec), int64(nsec)).UTC(), nil
}

func (Time) Name() string { return "time" }
