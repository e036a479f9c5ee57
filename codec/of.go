package codec

import (
	"encoding"
	"fmt"
	"reflect"
	"time"

	"google.golang.org/protobuf/proto"
)

// Of returns the codec for a type: String, Bytes, Bool, an Integer, a Float or Time; Proto for
// a protobuf message; Binary or Text for a type that marshals itself so, and for one that does
// both Binary. A type that a program defines goes by what it marshals itself to, and else by
// its kind, which converts by reflection: StringOf, Integer and Float, with the type, do without.
// For any other it returns an error that says what to do.
func Of[T any]() (Codec[T], error) {
	var none T
	var c any
	switch any(none).(type) {
	case string:
		c = String{}
	case []byte:
		c = Bytes{}
	case bool:
		c = Bool{}
	case int:
		c = Int{}
	case int8:
		c = Int8{}
	case int16:
		c = Int16{}
	case int32:
		c = Int32{}
	case int64:
		c = Int64{}
	case uint:
		c = Uint{}
	case uint8:
		c = Uint8{}
	case uint16:
		c = Uint16{}
	case uint32:
		c = Uint32{}
	case uint64:
		c = Uint64{}
	case float32:
		c = Float32{}
	case float64:
		c = Float64{}
	case time.Time:
		c = Time{}
	case proto.Message:
		c = found[T]{
			func(dst []byte, v T) ([]byte, error) { return appendProto(dst, any(v).(proto.Message)) },
			decodeProto[T], protoName[T](),
		}
	default:
		return ofDefined[T]()
	}
	return c.(Codec[T]), nil
}

// found is a codec for a T of which the compiler does not know that it is what the codec is for.
type found[T any] struct {
	append func(dst []byte, v T) ([]byte, error)
	decode func(src []byte) (T, error)
	name   string
}

func (c found[T]) Append(dst []byte, v T) ([]byte, error) { return c.append(dst, v) }
func (c found[T]) Decode(src []byte) (T, error)           { return c.decode(src) }
func (c found[T]) Name() string                           { return c.name }

// ofDefined is Of for types that a program defines.
func ofDefined[T any]() (Codec[T], error) {
	t := reflect.TypeFor[T]()
	both := func(out, in reflect.Type) bool {
		// An interface does not tell what type to make of bytes.
		return t.Kind() != reflect.Interface && t.Implements(out) && (t.Implements(in) || reflect.PointerTo(t).Implements(in))
	}
	switch {
	case both(reflect.TypeFor[encoding.BinaryMarshaler](), reflect.TypeFor[encoding.BinaryUnmarshaler]()):
		return found[T]{
			func(dst []byte, v T) ([]byte, error) { return appendBinary(dst, any(v).(encoding.BinaryMarshaler)) },
			decodeBinary[T], "binary",
		}, nil
	case both(reflect.TypeFor[encoding.TextMarshaler](), reflect.TypeFor[encoding.TextUnmarshaler]()):
		return found[T]{
			func(dst []byte, v T) ([]byte, error) { return appendText(dst, any(v).(encoding.TextMarshaler)) },
			decodeText[T], "text",
		}, nil
	}
	switch t.Kind() {
	case reflect.String:
		return as[T, string](String{}), nil
	case reflect.Bool:
		return as[T, bool](Bool{}), nil
	case reflect.Int:
		return as[T, int](Int{}), nil
	case reflect.Int8:
		return as[T, int8](Int8{}), nil
	case reflect.Int16:
		return as[T, int16](Int16{}), nil
	case reflect.Int32:
		return as[T, int32](Int32{}), nil
	case reflect.Int64:
		return as[T, int64](Int64{}), nil
	case reflect.Uint:
		return as[T, uint](Uint{}), nil
	case reflect.Uint8:
		return as[T, uint8](Uint8{}), nil
	case reflect.Uint16:
		return as[T, uint16](Uint16{}), nil
	case reflect.Uint32:
		return as[T, uint32](Uint32{}), nil
	case reflect.Uint64:
		return as[T, uint64](Uint64{}), nil
	case reflect.Float32:
		return as[T, float32](Float32{}), nil
	case reflect.Float64:
		return as[T, float64](Float64{}), nil
	}
	return nil, fmt.Errorf("there is no codec for %v by itself: give one to NewMap, such as codec.JSON[%v]{}", t, t)
}

// as is the codec of U for a type that was defined as U. It converts by reflection: StringOf[T]
// and Integer[T] do without.
func as[T, U any](c Codec[U]) Codec[T] {
	t, u := reflect.TypeFor[T](), reflect.TypeFor[U]()
	return found[T]{
		func(dst []byte, v T) ([]byte, error) {
			return c.Append(dst, reflect.ValueOf(v).Convert(u).Interface().(U))
		},
		func(src []byte) (v T, err error) {
			w, err := c.Decode(src)
			if err != nil {
				return v, err
			}
			return reflect.ValueOf(w).Convert(t).Interface().(T), nil
		},
		c.Name(),
	}
}
