package codec

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"
)

// Proto is the codec of protobuf messages, T being the pointer type that protoc-gen-go makes.
// The message is written deterministically, as far as protobuf knows such a thing, so that it
// may be a key for as long as the program is built with one version of it. Its name is "proto:"
// and the message's full name.
type Proto[T proto.Message] struct{}

func (Proto[T]) Append(dst []byte, v T) ([]byte, error) { return appendProto(dst, v) }
func (Proto[T]) Decode(src []byte) (T, error)           { return decodeProto[T](src) }
func (Proto[T]) Name() string                           { return protoName[T]() }

func appendProto(dst []byte, m proto.Message) ([]byte, error) {
	out, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(dst, m)
	if err != nil {
		return dst, err
	}
	return out, nil
}

// decodeProto reads a T, which is a message, though the compiler may not know it.
func decodeProto[T any](src []byte) (v T, err error) {
	m := any(v).(proto.Message).ProtoReflect().New().Interface()
	if err := proto.Unmarshal(src, m); err != nil {
		return v, fmt.Errorf("%w: %s: %w", ErrValue, protoName[T](), err)
	}
	return m.(T), nil
}

func protoName[T any]() string {
	var none T
	return "proto:" + string(any(none).(proto.Message).ProtoReflect().Descriptor().FullName())
}

// JSON is the codec of whatever encoding/json writes and reads, by its rules: fields that are not
// exported are not kept, and unknown ones are skipped. Append fails for what has no JSON, such as a
// channel or a NaN. Its name is "json", whatever the type.
type JSON[T any] struct{}

func (JSON[T]) Append(dst []byte, v T) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(dst, b...), err
}

func (JSON[T]) Decode(src []byte) (v T, err error) {
	if err = json.Unmarshal(src, &v); err != nil {
		err = fmt.Errorf("%w: %w", ErrValue, err)
	}
	return v, err
}

func (JSON[T]) Name() string { return "json" }

// Text is the codec of types that write themselves as text (encoding.TextMarshaler), and, or
// their pointers, read that (encoding.TextUnmarshaler). The type's own errors are wrapped. Its name
// is "text", whatever the type.
type Text[T encoding.TextMarshaler] struct{}

func (Text[T]) Append(dst []byte, v T) ([]byte, error) { return appendText(dst, v) }
func (Text[T]) Name() string                           { return "text" }
func (Text[T]) Decode(src []byte) (T, error)           { return decodeText[T](src) }

func appendText(dst []byte, v encoding.TextMarshaler) ([]byte, error) {
	if err := notNil(v); err != nil {
		return dst, err
	}
	if a, ok := v.(encoding.TextAppender); ok {
		return orAsItWas(dst)(a.AppendText(dst))
	}
	b, err := v.MarshalText()
	return append(dst, b...), err
}

func decodeText[T any](src []byte) (T, error) {
	return decodeInto[T](func(u encoding.TextUnmarshaler) error { return u.UnmarshalText(src) })
}

// Binary is the codec of types that write themselves in binary form (encoding.BinaryMarshaler),
// and, or their pointers, read that (encoding.BinaryUnmarshaler). The type's own errors are wrapped.
// Its name is "binary", whatever the type.
type Binary[T encoding.BinaryMarshaler] struct{}

func (Binary[T]) Append(dst []byte, v T) ([]byte, error) { return appendBinary(dst, v) }
func (Binary[T]) Name() string                           { return "binary" }
func (Binary[T]) Decode(src []byte) (T, error)           { return decodeBinary[T](src) }

func appendBinary(dst []byte, v encoding.BinaryMarshaler) ([]byte, error) {
	if err := notNil(v); err != nil {
		return dst, err
	}
	if a, ok := v.(encoding.BinaryAppender); ok {
		return orAsItWas(dst)(a.AppendBinary(dst))
	}
	b, err := v.MarshalBinary()
	return append(dst, b...), err
}

func decodeBinary[T any](src []byte) (T, error) {
	return decodeInto[T](func(u encoding.BinaryUnmarshaler) error { return u.UnmarshalBinary(src) })
}

// notNil refuses a nil pointer: it has nothing to write, and what is read is never nil.
func notNil(v any) error {
	if p := reflect.ValueOf(v); !p.IsValid() || p.Kind() == reflect.Pointer && p.IsNil() {
		return fmt.Errorf("a %T that is nil cannot be written", v)
	}
	return nil
}

// orAsItWas returns what an append to dst returned, or, where that failed, dst.
func orAsItWas(dst []byte) func(out []byte, err error) ([]byte, error) {
	return func(out []byte, err error) ([]byte, error) {
		if err != nil {
			return dst, err
		}
		return out, nil
	}
}

// decodeInto makes a T and calls read with it, or with its address, whichever is a U.
func decodeInto[T, U any](read func(u U) error) (v T, err error) {
	u, ok := any(&v).(U)
	if !ok {
		// T is a pointer that reads itself: it must point to something first.
		if t := reflect.TypeFor[T](); t.Kind() == reflect.Pointer {
			v = reflect.New(t.Elem()).Interface().(T)
		}
		if u, ok = any(v).(U); !ok {
			return v, fmt.Errorf("%w: %v cannot read itself: neither it nor its pointer is a %v", ErrValue, reflect.TypeFor[T](), reflect.TypeFor[U]())
		}
	}
	if err := read(u); err != nil {
		var none T
		return none, fmt.Errorf("%w: %w", ErrValue, err)
	}
	return v, nil
}
