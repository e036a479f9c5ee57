package codec_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/codec/entrypb"
)

// sample is an entry with a key of 16 and a value of 100 bytes.
var sample = codec.Entry{Key: make([]byte, 16), Revision: 1_000_000, Written: 1_700_000_000, Value: make([]byte, 100)}

func BenchmarkAppend(b *testing.B) {
	buf := make([]byte, 0, sample.Size())
	for b.Loop() {
		codec.Append(buf, &sample)
	}
}

func BenchmarkDecode(b *testing.B) {
	p := codec.Append(nil, &sample)
	for b.Loop() {
		codec.Decode(p)
	}
}

func BenchmarkDecodeDelete(b *testing.B) {
	p := codec.Append(nil, &codec.Entry{Key: sample.Key, Revision: sample.Revision, Written: sample.Written, Kind: codec.Delete})
	for b.Loop() {
		codec.Decode(p)
	}
}

func BenchmarkKey(b *testing.B) {
	p := codec.Append(nil, &sample)
	for b.Loop() {
		codec.Key(p)
	}
}

func BenchmarkValue(b *testing.B) {
	p := codec.Append(nil, &sample)
	for b.Loop() {
		codec.Value(p)
	}
}

// The generated code, for comparison with Append and Decode.
func BenchmarkGeneratedAppend(b *testing.B) {
	m := message(&sample)
	buf := make([]byte, 0, sample.Size())
	for b.Loop() {
		if _, err := (proto.MarshalOptions{}).MarshalAppend(buf, m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGeneratedUnmarshal(b *testing.B) {
	p := codec.Append(nil, &sample)
	for b.Loop() {
		var m entrypb.Entry
		if err := proto.Unmarshal(p, &m); err != nil {
			b.Fatal(err)
		}
	}
}
