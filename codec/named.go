package codec

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"time"
)

// Named is a codec found by its name alone, for a tool that shows and takes the values of maps
// without having their Go types. Its values are of the type that the name says: a []byte for
// "bytes", a string for "string" and for "text", a bool, an int8 to a uint64, a float32 or a
// float64, a time.Time, a json.RawMessage. Its methods may be called from any number of goroutines.
type Named struct {
	Codec[any]
	parse func(text string) (any, error)
}

// Parse returns the value that a person writes as text: bytes and strings as they are, a
// moment as RFC 3339, all else as strconv and JSON have it. What is no such text is an error
// that matches ErrValue.
func (n Named) Parse(text string) (any, error) {
	v, err := n.parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrValue, n.Name(), err)
	}
	return v, nil
}

// ByName returns the codec of a name, if the bytes can be read without the Go type: not those
// of a Proto, a Binary, or a codec of the program's own.
func ByName(name string) (n Named, ok bool) {
	switch name {
	case "bytes":
		n = named[[]byte](Bytes{}, func(text string) ([]byte, error) { return []byte(text), nil })
	case "string", "text":
		n = named[string](texts(name), func(text string) (string, error) { return text, nil })
	case "bool":
		n = named[bool](Bool{}, strconv.ParseBool)
	case "int8":
		n = signed[int8]()
	case "int16":
		n = signed[int16]()
	case "int32":
		n = signed[int32]()
	case "int64":
		n = signed[int64]()
	case "uint8":
		n = unsigned[uint8]()
	case "uint16":
		n = unsigned[uint16]()
	case "uint32":
		n = unsigned[uint32]()
	case "uint64":
		n = unsigned[uint64]()
	case "float32":
		n = floating[float32]()
	case "float64":
		n = floating[float64]()
	case "time":
		n = named[time.Time](Time{}, func(text string) (time.Time, error) { return time.Parse(time.RFC3339Nano, text) })
	case "json":
		n = named[json.RawMessage](JSON[json.RawMessage]{}, parseJSON)
	default:
		return Named{}, false
	}
	return n, true
}

func named[T any](c Codec[T], parse func(text string) (T, error)) Named {
	return Named{anyOf[T]{c}, func(text string) (any, error) {
		v, err := parse(text)
		return v, err
	}}
}

func signed[T int8 | int16 | int32 | int64]() Named {
	return named[T](Integer[T]{}, func(text string) (T, error) {
		v, err := strconv.ParseInt(text, 10, bitsOf[T]())
		return T(v), err
	})
}

func unsigned[T uint8 | uint16 | uint32 | uint64]() Named {
	return named[T](Integer[T]{}, func(text string) (T, error) {
		v, err := strconv.ParseUint(text, 10, bitsOf[T]())
		return T(v), err
	})
}

func floating[T float32 | float64]() Named {
	return named[T](Float[T]{}, func(text string) (T, error) {
		v, err := strconv.ParseFloat(text, bitsOf[T]())
		return T(v), err
	})
}

func bitsOf[T any]() int { return reflect.TypeFor[T]().Bits() }

func parseJSON(text string) (json.RawMessage, error) {
	if !json.Valid([]byte(text)) {
		return nil, errors.New("not valid JSON")
	}
	return json.RawMessage(text), nil
}

// texts is the codec of texts of which the type that reads them is not known, by either name.
type texts string

func (texts) Append(dst []byte, v string) ([]byte, error) { return append(dst, v...), nil }
func (texts) Decode(src []byte) (string, error)           { return string(src), nil }
func (c texts) Name() string                              { return string(c) }

// anyOf is a codec whose type is not in its own.
type anyOf[T any] struct{ c Codec[T] }

func (a anyOf[T]) Append(dst []byte, v any) ([]byte, error) {
	of, ok := v.(T)
	if !ok {
		return dst, fmt.Errorf("%w: a %T is no %s", ErrValue, v, a.Name())
	}
	return a.c.Append(dst, of)
}

func (a anyOf[T]) Decode(src []byte) (any, error) {
	v, err := a.c.Decode(src)
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (a anyOf[T]) Name() string { return a.c.Name() }
