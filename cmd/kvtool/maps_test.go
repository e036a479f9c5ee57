package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/codec/entrypb"
	"github.com/mmapkv/mmapkv/kv"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"
)

// putMaps makes a store os.Args[1] with maps of several codecs and with keys of none, and a
// file os.Args[2] with the descriptor of the messages in it.
func putMaps() error {
	s, err := kv.Open(os.Args[1], nil)
	if err != nil {
		return err
	}
	defer s.Close()
	sessions, err := kv.NewMap(s, "sessions", codec.Int{}, codec.JSON[any]{})
	visits, visitsErr := kv.NewMap(s, "", codec.String{}, codec.Float64{})
	seen, seenErr := kv.NewMap(s, "seen", codec.Text[netip.Addr]{}, codec.Time{})
	entries, entriesErr := kv.NewMap(s, "entries", codec.Bool{}, codec.Proto[*entrypb.Entry]{})
	opaque, opaqueErr := kv.NewMap(s, "opaque", codec.String{}, codec.Binary[netip.Addr]{})
	if err := errors.Join(err, visitsErr, seenErr, entriesErr, opaqueErr); err != nil {
		return err
	}
	set := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{protodesc.ToFileDescriptorProto(entrypb.File_codec_entry_proto)}}
	descriptors, err := proto.Marshal(set)
	return errors.Join(err,
		s.Put([]byte("plain"), []byte("of no map")),
		s.Put([]byte("like\x00a map"), nil),
		sessions.Put(42, map[string]any{"user": "Ada\u202e", "n": 1}),
		sessions.Put(-1, []string{"<a>"}),
		visits.Put("/about", 2.5),
		visits.Put("\xff", math.Inf(1)),
		seen.Put(netip.MustParseAddr("::1"), time.Unix(1, 5)),
		entries.Put(true, &entrypb.Entry{Key: []byte("k"), Revision: 7}),
		opaque.Put("a", netip.MustParseAddr("1.2.3.4")),
		s.Put([]byte("sessions\x00short"), []byte("{no JSON")),
		os.WriteFile(os.Args[2], descriptors, 0o600))
}

// Goal: bytes that other codecs write come out of show as a form that fromJSON takes back.
// Method: fuzzing, for each codec; what show cannot show is an error, and no panic.
func FuzzCoder(f *testing.F) {
	for _, b := range []string{"", "\x01", "{\"a\": [1e400, \"\\u202e\"]}", "\x80\x00\x00\x00\x00\x00\x00\x01", "\x80\x00\x00\x0e\x77\x91\xf7\x00\x00\x00\x00\x00", "\x0a\x01k\x10\x07"} {
		f.Add([]byte(b))
	}
	coders := []coder{{}, newCoder("mine", formText, messageTypes{}), newCoder("proto:x.Y", formText, messageTypes{})}
	for _, name := range []string{"bytes", "string", "text", "bool", "int8", "int64", "uint16", "uint64", "float32", "float64", "time", "json"} {
		coders = append(coders, newCoder(name, formText, messageTypes{}))
	}
	message := newCoder("proto:mmapkv.Entry", formText, messageTypes{})
	message.message = (&entrypb.Entry{}).ProtoReflect().Type()
	message.whole = true
	coders = append(coders, message)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, c := range coders {
			var line bytes.Buffer
			line.WriteString("{")
			c.field(&line, "value", b)
			line.WriteString("}")
			if !isPlain(line.Bytes()) {
				t.Fatalf("%s: not a line of plain text: %q", c.name, line.Bytes())
			}
			var fields map[string]json.RawMessage
			if err := json.Unmarshal(line.Bytes(), &fields); err != nil {
				t.Fatalf("%s: %s: %v", c.name, line.Bytes(), err)
			}
			raw, ok := fields["value"]
			if !ok || c.isMessage() && c.message == nil {
				continue
			}
			back, err := c.fromJSON(raw)
			if err != nil {
				t.Fatalf("%s: %s: %v", c.name, raw, err)
			}
			again, _, err := c.show(back)
			shown, _, _ := c.show(b)
			if err != nil || !bytes.Equal(again, shown) {
				t.Errorf("%s: %s is read as %x, which shows as %s, %v", c.name, raw, back, again, err)
			}
		}
	})
}

// Goal: the fields of a message of which nothing is known are shown by their numbers, and what
// is no message is an error. Method: a table.
func TestAppendFields(t *testing.T) {
	nested := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "in\x01")
	var b []byte
	b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), 300)
	b = protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), "text")
	b = protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), "")
	b = protowire.AppendBytes(protowire.AppendTag(b, 3, protowire.BytesType), nested)
	b = protowire.AppendFixed32(protowire.AppendTag(b, 4, protowire.Fixed32Type), 1)
	b = protowire.AppendFixed64(protowire.AppendTag(b, 5, protowire.Fixed64Type), 1<<63)
	b = protowire.AppendGroup(protowire.AppendTag(b, 6, protowire.StartGroupType), 6, b[:3])
	want := `{"2":300,"1":["text",""],"3":{"1":{"base64":"aW4B"}},"4":1,"5":9223372036854775808,"6":{"2":300}}`
	if got, err := appendFields(nil, b, 0); string(got) != want || err != nil {
		t.Errorf("shown as %s, %v\nwant %s", got, err, want)
	}
	for _, bad := range []string{"\x08", "\x0a\x05x", "\x0b", "\x00\x00"} {
		if got, err := appendFields(nil, []byte(bad), 0); err == nil {
			t.Errorf("%x is shown as %s", bad, got)
		}
	}
	deep := []byte("\x01")
	for range 1000 {
		deep = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), deep)
	}
	if got, err := appendFields(nil, deep, 0); err != nil || strings.Count(string(got), "{") > maxGuess+2 {
		t.Errorf("a deep message is shown as %.100s, %v", got, err)
	}
}

// Goal: extensions and what an Any holds are shown and taken by the file of descriptors.
// Method: a file with a message M of an extension, and M within an Any, there and back.
func TestExtensionsAndAny(t *testing.T) {
	text := descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("m.proto"), Package: proto.String("x"), Syntax: proto.String("proto2"),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name:           proto.String("M"),
			ExtensionRange: []*descriptorpb.DescriptorProto_ExtensionRange{{Start: proto.Int32(100), End: proto.Int32(200)}},
		}},
		Extension: []*descriptorpb.FieldDescriptorProto{{
			Name: proto.String("more"), Extendee: proto.String(".x.M"), Number: proto.Int32(100), Type: text,
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}},
	}
	set := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{file, protodesc.ToFileDescriptorProto(anypb.File_google_protobuf_any_proto)}}
	b, err := proto.Marshal(set)
	path := filepath.Join(t.TempDir(), "m.desc")
	if err := errors.Join(err, os.WriteFile(path, b, 0o600)); err != nil {
		t.Fatal(err)
	}
	types, err := readDescriptors(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"x.M":                 `{"[x.more]":"v"}`,
		"google.protobuf.Any": `{"@type":"type.googleapis.com/x.M","[x.more]":"v"}`,
	} {
		c := newCoder(protoPrefix+name, formText, types)
		b, err := c.fromText(want)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, _, err := c.show(b); string(got) != want || err != nil {
			t.Errorf("%s is shown as %s, %v; want %s", name, got, err, want)
		}
	}
}

// Goal: a message of very many fields costs no multiple of its size in memory.
// Method: one of the largest that is taken apart, and the same with one field more, and 16 MiB.
func TestAppendFieldsBounded(t *testing.T) {
	field := []byte{8, 1}
	if _, err := appendFields(nil, bytes.Repeat(field, maxFieldsLen/2), 0); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{maxFieldsLen + 2, 16 << 20} {
		b := bytes.Repeat(field, size/2)
		if allocs := testing.AllocsPerRun(1, func() {
			if _, err := appendFields(nil, b, 0); !errors.Is(err, errManyFields) {
				t.Fatal(err)
			}
		}); allocs > 0 {
			t.Fatalf("%d bytes: %v allocations", size, allocs)
		}
	}
}

// Goal: a store with keys like those of countless maps costs no countless memory, and a map made
// while it is watched is seen. Method: typing asked about such keys.
func TestTypingBounded(t *testing.T) {
	s := testStore(t)
	y := &typing{s: s}
	for i := range 2 * maxFound {
		if m, _ := y.of(fmt.Appendf(nil, "%d\x00", i)); m != &y.none {
			t.Fatalf("%d is a map", i)
		}
	}
	if len(y.found) > maxFound {
		t.Errorf("%d names are kept", len(y.found))
	}
	if _, err := kv.NewMap(s, "1", codec.Int{}, codec.Int{}); err != nil {
		t.Fatal(err)
	}
	y.of([]byte("1\x00k"))
	y.of([]byte("\xff\x001"))
	if m, key := y.of([]byte("1\x00k")); m.name != "1" || string(key) != "k" {
		t.Errorf("the new map is not seen: %q", m.name)
	}
}
