package crc_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/mmapkv/mmapkv/crc"
)

// sampleHeader has another value in each field, no byte of them zero but those of the flags.
var sampleHeader = crc.Header{
	Version:           crc.Version,
	Compatible:        0x11121314,
	Generation:        0x2122232425262728,
	Salt:              0x3132333435363738,
	StoreID:           [16]byte{0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x4b, 0x4c, 0x4d, 0x4e, 0x4f, 0x50},
	HashSeed:          0x5152535455565758,
	Created:           0x6162636465666768,
	GenerationCreated: 0x7172737475767778,
	BaseRevision:      0x8182838485868788,
}

// encoded returns the header of a file.
func encoded(h crc.Header) []byte {
	b := make([]byte, crc.HeaderSize)
	crc.EncodeHeader(b, &h)
	return b
}

// resumHeader gives b the sum that its immutable part asks for.
func resumHeader(b []byte) []byte {
	binary.LittleEndian.PutUint64(b[504:], xxhash.Sum64(b[:504]))
	return b
}

// Goal: a header is read as it was written, and 0 stands for the version. Method: one with all fields set, and the zero value.
func TestHeaderRoundTrip(t *testing.T) {
	for _, h := range []crc.Header{sampleHeader, {}, {Created: math.MinInt64, GenerationCreated: -1, Salt: math.MaxUint64}} {
		got, err := crc.DecodeHeader(encoded(h))
		h.Version = crc.Version
		if err != nil || got != h {
			t.Errorf("DecodeHeader = %+v, %v, want %+v", got, err, h)
		}
	}
}

// Goal: EncodeHeader writes HeaderSize bytes, whatever was there, and nothing else. Method: a longer slice of ones.
func TestEncodeHeaderStaysWithin(t *testing.T) {
	b := bytes.Repeat([]byte{0xff}, crc.HeaderSize+100)
	crc.EncodeHeader(b, &sampleHeader)
	if !bytes.Equal(b[:crc.HeaderSize], encoded(sampleHeader)) {
		t.Error("what was there shows through")
	}
	if !bytes.Equal(b[crc.HeaderSize:], bytes.Repeat([]byte{0xff}, 100)) {
		t.Error("bytes behind the header were written")
	}
	for i, c := range b[crc.ImmutableSize:crc.CopyOff] {
		if c != 0 {
			t.Errorf("byte %d is %#x", crc.ImmutableSize+i, c)
		}
	}
}

// Goal: each way not to be a header has its error, in the stated order. Method: a table of damage; in each case all that is checked later
// is damaged as well, or cannot be.
func TestDecodeHeaderRefuses(t *testing.T) {
	le := binary.LittleEndian
	for _, c := range []struct {
		name   string
		damage func(b []byte) []byte
		want   error
		detail string
	}{
		{"no bytes", func([]byte) []byte { return nil }, crc.ErrEmpty, ""},
		{"one byte of the magic", func(b []byte) []byte { return b[:1] }, crc.ErrShort, "1 bytes of 8192"},
		{"one byte of something else", func([]byte) []byte { return []byte("{") }, crc.ErrMagic, `"{"`},
		{"short text", func([]byte) []byte { return []byte("hello") }, crc.ErrMagic, `"hello"`},
		{"zeros", func(b []byte) []byte { clear(b); return b }, crc.ErrMagic, `\x00`},
		{"zeros, short", func(b []byte) []byte { clear(b); return b[:100] }, crc.ErrMagic, `\x00`},
		{"magic without the high bit", func(b []byte) []byte { b[0] &= 0x7f; return b }, crc.ErrMagic, `\rmmkv\r\n`},
		{"magic with CR LF made LF", func(b []byte) []byte { return append(b[:5:5], b[6:]...) }, crc.ErrMagic, ""},
		{"magic with LF made CR LF", func(b []byte) []byte { return append(append(b[:6:6], '\r'), b[6:]...) }, crc.ErrMagic, ""},
		{"magic and file cut short", func(b []byte) []byte { b[1] = 'x'; return b[:20] }, crc.ErrMagic, ""},
		{"cut short in sector 0", func(b []byte) []byte { b[8]++; return b[:511] }, crc.ErrShort, "511 bytes of 8192"},
		{"cut short by one byte", func(b []byte) []byte { b[8]++; return b[:crc.HeaderSize-1] }, crc.ErrShort, "8191 bytes of 8192"},
		{"version 0", func(b []byte) []byte { le.PutUint32(b[8:], 0); b[20] = 1; return b }, crc.ErrVersion, "found 0, known 1"},
		{"version 2", func(b []byte) []byte { le.PutUint32(b[8:], 2); b[20] = 1; return resumHeader(b) }, crc.ErrVersion, "found 2, known 1"},
		{"greatest version", func(b []byte) []byte { le.PutUint32(b[8:], math.MaxUint32); return b }, crc.ErrVersion, "found 4294967295, known 1"},
		{"incompatible flag", func(b []byte) []byte { b[20] = 0x10; return resumHeader(b) }, crc.ErrIncompatible, "unknown 0x10, known 0x0"},
		{"incompatible flag, sum wrong", func(b []byte) []byte { b[23] = 0x80; b[504]++; return b }, crc.ErrIncompatible, "unknown 0x80000000"},
		{"sum wrong", func(b []byte) []byte { b[504]++; return b }, crc.ErrHeaderSum, "found"},
		{"salt changed", func(b []byte) []byte { b[32]++; return b }, crc.ErrHeaderSum, "computed"},
		{"reserved and sum wrong", func(b []byte) []byte { b[96] = 1; return b }, crc.ErrHeaderSum, ""},
		{"first reserved byte", func(b []byte) []byte { b[96], b[12] = 1, 1; return resumHeader(b) }, crc.ErrReserved, "0x1 at offset 96"},
		{"last reserved byte", func(b []byte) []byte { b[503] = 0xff; return resumHeader(b) }, crc.ErrReserved, "0xff at offset 503"},
		{"header size 0", func(b []byte) []byte { le.PutUint32(b[12:], 0); return resumHeader(b) }, crc.ErrHeaderField, "header size 0"},
		{"header size 4096", func(b []byte) []byte { le.PutUint32(b[12:], 4096); return resumHeader(b) }, crc.ErrHeaderField, "header size 4096"},
		{"undamaged", func(b []byte) []byte { return b }, nil, ""},
		{"unknown compatible flags", func(b []byte) []byte { le.PutUint32(b[16:], math.MaxUint32); return resumHeader(b) }, nil, ""},
		{"a whole file", func(b []byte) []byte { return append(b, 1, 2, 3) }, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, err := crc.DecodeHeader(c.damage(encoded(sampleHeader)))
			if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.detail) {
				t.Errorf("DecodeHeader: %v, want %v and %q", err, c.want, c.detail)
			}
			if err != nil && h != (crc.Header{}) {
				t.Errorf("DecodeHeader returned %+v beside its error", h)
			}
		})
	}
}

// Goal: the copy is as good as the original, and checked as it is. Method: the other destroyed; each bit of it; a file too short for it.
func TestDecodeCopy(t *testing.T) {
	b := encoded(sampleHeader)
	clear(b[:crc.ImmutableSize])
	if h, err := crc.DecodeCopy(b); err != nil || h != sampleHeader {
		t.Errorf("DecodeCopy = %+v, %v, want %+v", h, err, sampleHeader)
	}
	for bit := range crc.ImmutableSize * 8 {
		b[crc.CopyOff+bit/8] ^= 1 << (bit % 8)
		if h, err := crc.DecodeCopy(b); err == nil || h != (crc.Header{}) {
			t.Errorf("bit %d of byte %d of the copy flipped: %+v, %v", bit%8, bit/8, h, err)
		}
		b[crc.CopyOff+bit/8] ^= 1 << (bit % 8)
	}
	if _, err := crc.DecodeCopy(b[:crc.HeaderSize-1]); !errors.Is(err, crc.ErrShort) {
		t.Errorf("of a short file: %v", err)
	}
}

// Goal: no flipped bit of the immutable part goes unseen, and each is named for what it hit. Method: each of them.
func TestEveryBitOfHeader(t *testing.T) {
	b := encoded(sampleHeader)
	for bit := range 512 * 8 {
		want := crc.ErrHeaderSum
		switch at := bit / 8; {
		case at < 8:
			want = crc.ErrMagic
		case at < 12:
			want = crc.ErrVersion
		case at >= 20 && at < 24:
			want = crc.ErrIncompatible
		}
		b[bit/8] ^= 1 << (bit % 8)
		if _, err := crc.DecodeHeader(b); !errors.Is(err, want) {
			t.Errorf("bit %d of byte %d flipped: %v, want %v", bit%8, bit/8, err, want)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}

// Goal: the mutable part can hold anything without the immutable part suffering. Method: ones.
func TestMutablePartIgnored(t *testing.T) {
	b := encoded(sampleHeader)
	for i := 512; i < crc.HeaderSize; i++ {
		b[i] = 0xff
	}
	if h, err := crc.DecodeHeader(b); err != nil || h != sampleHeader {
		t.Errorf("DecodeHeader = %+v, %v", h, err)
	}
}

// FuzzDecodeHeader: no bytes make it panic; what it accepts is what EncodeHeader writes into sector 0.
func FuzzDecodeHeader(f *testing.F) {
	b := encoded(sampleHeader)
	f.Add(b[:512])
	f.Add(b[:100])
	f.Add([]byte{})
	f.Add(make([]byte, 512))
	f.Add(resumHeader(append(bytes.Clone(b[:503]), make([]byte, 9)...)))
	f.Fuzz(func(t *testing.T, sector []byte) {
		crc.DecodeHeader(sector)
		b := make([]byte, crc.HeaderSize)
		copy(b, sector)
		// Half of the inputs get their sum put right, which is beyond the fuzzer.
		if len(sector)%2 == 0 {
			resumHeader(b)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		h, err := crc.DecodeHeader(b)
		runtime.ReadMemStats(&after)
		// Nothing but an error is allocated. The rest is for what else runs.
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<10 {
			t.Errorf("%d bytes allocated", n)
		}
		if err == nil && !bytes.Equal(encoded(h)[:crc.ImmutableSize], b[:crc.ImmutableSize]) {
			t.Errorf("%+v is encoded otherwise", h)
		}
		if err != nil && h != (crc.Header{}) {
			t.Errorf("%+v beside %v", h, err)
		}
		if m := crc.DecodeMark(b, &h); m.Off < crc.HeaderSize || m.Off%crc.Align != 0 {
			t.Errorf("mark %+v", m)
		}
	})
}
