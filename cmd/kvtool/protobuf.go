package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// messageTypes are the messages of a file of descriptors; nil has none.
type messageTypes struct{ *dynamicpb.Types }

// maxDescriptors bounds a file of descriptors, in bytes.
const maxDescriptors = 64 << 20

// readDescriptors reads a FileDescriptorSet, with all that it imports.
func readDescriptors(path string) (messageTypes, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file, as --proto needs", path) // to open a pipe waits for its writer
	}
	if err != nil {
		return messageTypes{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return messageTypes{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDescriptors+1))
	if err != nil {
		return messageTypes{}, err
	}
	if len(b) > maxDescriptors {
		err = fmt.Errorf("it has more than %s", exactBytes(maxDescriptors))
	}
	var set descriptorpb.FileDescriptorSet
	if err == nil {
		err = proto.Unmarshal(b, &set)
	}
	if err == nil && len(set.File) == 0 {
		err = errors.New("it describes nothing")
	}
	if err == nil {
		files, filesErr := protodesc.NewFiles(&set)
		if err = filesErr; err == nil {
			return messageTypes{dynamicpb.NewTypes(files)}, nil
		}
	}
	return messageTypes{}, fmt.Errorf("%s: no FileDescriptorSet as protoc --include_imports --descriptor_set_out writes one: %w", path, err)
}

// find returns the message of that name, or nil.
func (m messageTypes) find(name string) protoreflect.MessageType {
	if m.Types == nil {
		return nil
	}
	t, err := m.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		return nil
	}
	return t
}

func (m messageTypes) decode(t protoreflect.MessageType, b []byte) (proto.Message, error) {
	v := t.New().Interface()
	return v, proto.UnmarshalOptions{Resolver: m.Types}.Unmarshal(b, v)
}

// show returns a message as JSON, without the fields that its descriptor does not have:
// with whole these are an error.
func (m messageTypes) show(t protoreflect.MessageType, b []byte, whole bool) ([]byte, error) {
	v, err := m.decode(t, b)
	if err != nil {
		return nil, err
	}
	if whole {
		known := t.New().Interface()
		if err := (proto.UnmarshalOptions{DiscardUnknown: true, Resolver: m.Types}).Unmarshal(b, known); err != nil {
			return nil, err
		}
		if proto.Size(known) != proto.Size(v) {
			return nil, errors.New("it has fields that the descriptor has not")
		}
	}
	text, err := protojson.MarshalOptions{Resolver: m.Types}.Marshal(v)
	if err != nil {
		return nil, err
	}
	return compactJSON(text)
}

// parse returns the bytes of a message from its JSON.
func (m messageTypes) parse(t protoreflect.MessageType, text []byte) ([]byte, error) {
	v := t.New().Interface()
	if err := (protojson.UnmarshalOptions{Resolver: m.Types}).Unmarshal(text, v); err != nil {
		return nil, err
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(v)
}

// Bounds of what is taken apart without a descriptor: a field costs some 60 times its smallest
// size, 2 bytes.
const (
	maxGuess     = 16      // how deep messages are looked for in bytes that may be some
	maxFieldsLen = 1 << 20 // bytes of a message
)

var errManyFields = fmt.Errorf("a protobuf message of more than %d bytes is taken apart by its descriptor only (--proto)", maxFieldsLen)

// appendFields appends the fields of a message of which nothing is known, as a JSON object: each
// by its number, in an array if it is there several times. Whether bytes are text or another
// message is a guess: text if they can be printed, a message if they are well-formed, and else
// {"base64": ...}. A message of more than maxFieldsLen is errManyFields.
func appendFields(dst, b []byte, depth int) ([]byte, error) {
	if len(b) > maxFieldsLen {
		return nil, errManyFields
	}
	values := map[protowire.Number][][]byte{}
	var order []protowire.Number
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		if size < 0 {
			return nil, protowire.ParseError(size)
		}
		if values[number] == nil {
			order = append(order, number)
		}
		values[number] = append(values[number], appendFieldValue(nil, number, kind, b[n:n+size], depth))
		b = b[n+size:]
	}
	dst = append(dst, '{')
	for i, number := range order {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, '"'), strconv.Itoa(int(number))...), `":`...)
		if of := values[number]; len(of) == 1 {
			dst = append(dst, of[0]...)
			continue
		}
		for j, v := range values[number] {
			dst = append(append(dst, "[,"[min(j, 1)]), v...)
		}
		dst = append(dst, ']')
	}
	return append(dst, '}'), nil
}

// appendFieldValue appends the value of a field, which is well-formed.
func appendFieldValue(dst []byte, number protowire.Number, kind protowire.Type, b []byte, depth int) []byte {
	switch kind {
	case protowire.VarintType:
		v, _ := protowire.ConsumeVarint(b)
		return strconv.AppendUint(dst, v, 10)
	case protowire.Fixed32Type:
		v, _ := protowire.ConsumeFixed32(b)
		return strconv.AppendUint(dst, uint64(v), 10)
	case protowire.Fixed64Type:
		v, _ := protowire.ConsumeFixed64(b)
		return strconv.AppendUint(dst, v, 10)
	case protowire.StartGroupType:
		b, _ = protowire.ConsumeGroup(number, b)
	default:
		if b, _ = protowire.ConsumeBytes(b); len(b) == 0 || isPlain(b) {
			return appendJSON(dst, b)
		}
	}
	if depth < maxGuess {
		if fields, err := appendFields(nil, b, depth+1); err == nil {
			return append(dst, fields...)
		}
	}
	dst = base64.StdEncoding.AppendEncode(append(dst, `{"base64":"`...), b)
	return append(dst, `"}`...)
}
