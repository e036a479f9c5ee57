// Package codec turns what a store holds into bytes and back: values of Go types, for kv.Map and
// kv.Value, and the entries of the log, for package kv itself. It is no more than that: it knows
// no offset, no lock and no checksum, does no I/O and keeps no state.
//
//	ages, err := kv.NewMap(store, "ages", codec.String{}, codec.Uint8{})
//
// All of it may be used from any number of goroutines. No bytes make Decode panic, and what it
// allocates is bounded by their length, as far as a type's own methods keep to that.
//
// # Values
//
// A [Codec] is for values of one type, and of no size: it costs nothing to make. [Of] finds one
// by the type, which is what kv.OpenMap does; kv.NewMap and kv.ValueOptions take any.
//
//	codec     for                              name              bytes
//	Bytes     []byte                           bytes             as they are
//	StringOf  string, or a type defined so     string            as they are
//	Bool      bool                             bool              1: 0 or 1
//	Integer   integers, or types defined so    int8 ... uint64   1 to 8, big-endian
//	Float     floats, or types defined so      float32, float64  4 or 8, big-endian
//	Time      time.Time                        time              12
//	Proto     pointers to protobuf messages    proto:FULL.NAME   the message
//	Text      encoding.TextMarshaler           text              what it marshals to
//	Binary    encoding.BinaryMarshaler         binary            what it marshals to
//	JSON      whatever encoding/json takes     json              JSON
//
// Append allocates only where dst is too short, and where the type's own marshaling does. Decode
// returns what aliases nothing: it allocates nothing for a number, a Bool and a Time, and the value
// for Bytes and a string. Bytes that it cannot take are an error that matches [ErrValue].
//
// # Keys
//
// Two keys are the same if their bytes are. So a codec of keys writes equal values as equal bytes:
// all of these do, but for what [Float] and [Proto] say, and for what a type makes of itself in
// Text, Binary and JSON. The bytes of strings, numbers and moments compare as they do themselves,
// for tools that sort; a store has no order of keys.
//
// # Changing a type
//
// The name of a codec is kept with the data, and another one is refused with kv.ErrCodec. It
// stands for the form of the bytes and not for the type. So an int may become an int64 or a type
// defined as one, and a struct in JSON, or a message, may get further fields. Where the form is to
// change, write the entries to a map of another name. "text", "binary" and "json" do not tell the
// type: one that does not understand what another wrote finds out in Decode, or not at all.
//
// # A codec of one's own
//
// It is a type with the three methods of [Codec], as the example there has it. Let Decode check
// what it reads, wrap ErrValue, and keep nothing of src; and never change what Name returns. A
// tool that has only the name reads values by [ByName], which knows the codecs above but Proto
// and Binary.
//
// # Entries
//
// An [Entry] is one put or delete. Its bytes, the payload of a record in the log, are those of the
// protobuf message in entry.proto, so that any protobuf tool reads a payload. They are written by
// [Append] and read by [Decode], or in part by [Key], [Value] and [KeyValue], by hand, since that is
// several times faster than the generated code (package entrypb, which only tests use). What these
// return aliases what they were given and lives as long; they allocate only to word an error.
//
// Beyond protobuf's rules, the bytes of an entry obey these, and Decode refuses what does not:
//  1. Field numbers strictly ascend and are at most that of the value.
//  2. The key is the first field and always present.
//  3. The revision is present and greater than 0.
//  4. The kind is Put or Delete.
//  5. A Put has a value, which is the last field and ends with the payload; a Delete has none.
//  6. Unknown fields, whatever their wire type, are skipped; by rules 1 and 5 they lie after the kind and before the value.
package codec
