package crc_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/mmapkv/mmapkv/crc"
)

// sampleCheckpoint has another value in each field, no byte of them zero but those of the counts.
var sampleCheckpoint = crc.Checkpoint{
	Generation: 0x1112131415161718,
	Salt:       0x2122232425262728,
	StoreID:    [16]byte{0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x40},
	Boot:       0x4142434445464748,
	File:       0x5152535455565758,
	Last:       0x6061626364656667,
	End:        0x6162636465666768,
	Revision:   0x7172737475767778,
	TailSum:    0x8182838485868788,
	Stamp:      -0x6e6d6c6b6a696868,
	Records:    0x2122232425262729,
	Live:       0x313233343536373a,
	Mortal:     0x414243444546474a,
	SlotCount:  64,
	Segments: []crc.CheckpointSegment{
		{Sum: 0xd1d2d3d4d5d6d7d8, Used: 0xe1e2, Marks: 0xf1f2, Depth: 1},
		{Sum: 0xd9dadbdcdddedfe0, Used: 0xe3e4, Marks: 0xf3f4, Depth: 0xff},
	},
}

// checkpointFile is the file of a checkpoint whose slots are all zero.
func checkpointFile(c crc.Checkpoint) []byte {
	b := crc.EncodeCheckpoint(&c)
	return append(b, make([]byte, int(c.SlotCount)*8*len(c.Segments))...)
}

// resumCheckpoint gives b the sum that its head and a table of so many segments ask for, by FORMAT.md's words.
func resumCheckpoint(b []byte, segments int) []byte {
	covered := append(bytes.Clone(b[:504]), b[4096:4096+16*segments]...)
	binary.LittleEndian.PutUint64(b[504:], xxhash.Sum64(covered))
	return b
}

// Goal: a checkpoint is read as it was written. Method: one with all fields set, one with as little as there may be, one whose table is longer than a
// page; and with slots, a mark and anything else behind the head.
func TestCheckpointRoundTrip(t *testing.T) {
	long := crc.Checkpoint{SlotCount: 1, Segments: make([]crc.CheckpointSegment, 1000)}
	for i := range long.Segments {
		long.Segments[i] = crc.CheckpointSegment{Sum: uint64(i), Used: uint16(i), Depth: uint8(i)}
	}
	for _, want := range []crc.Checkpoint{sampleCheckpoint, {SlotCount: 1, Segments: make([]crc.CheckpointSegment, 1)}, long} {
		b := checkpointFile(want)
		if at := crc.SlotsOff(len(want.Segments), 0, want.SlotCount); at%crc.Page != 0 || at < 4096+16*int64(len(want.Segments)) || int(at) != len(crc.EncodeCheckpoint(&want)) {
			t.Errorf("the slots of %d segments begin at %d", len(want.Segments), at)
		}
		for i := 512; i < 4096; i++ {
			b[i] = 0xff
		}
		got, err := crc.DecodeCheckpoint(append(b, 1, 2, 3))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("DecodeCheckpoint = %+v, %v, want %+v", got, err, want)
		}
	}
}

// Goal: what is no checkpoint is refused, whatever else it is, with the one error that there is for it, and nothing beside it. Method: a table of damage.
func TestDecodeCheckpointRefuses(t *testing.T) {
	le := binary.LittleEndian
	for _, c := range []struct {
		name   string
		damage func(b []byte) []byte
		detail string // "": it is accepted
	}{
		{"no bytes", func([]byte) []byte { return nil }, "first bytes"},
		{"a store", func([]byte) []byte { return encoded(sampleHeader) }, "first bytes"},
		{"zeros", func(b []byte) []byte { clear(b); return b }, "first bytes"},
		{"cut within the head", func(b []byte) []byte { return b[:4095] }, "first bytes"},
		{"version 0", func(b []byte) []byte { le.PutUint32(b[8:], 0); return resumCheckpoint(b, 2) }, "version 0"},
		{"version 2", func(b []byte) []byte { le.PutUint32(b[8:], 2); return resumCheckpoint(b, 2) }, "version 2"},
		{"no segments", func(b []byte) []byte { le.PutUint32(b[124:], 0); return resumCheckpoint(b, 0) }, "0 segments"},
		{"more segments than there may be", func(b []byte) []byte { le.PutUint32(b[124:], crc.MaxSegments+1); return b }, "4194305 segments"},
		{"more segments than there is room for", func(b []byte) []byte { le.PutUint32(b[124:], crc.MaxSegments); return b }, "4194304 segments"},
		{"as many segments as can be written", func(b []byte) []byte { le.PutUint32(b[124:], math.MaxUint32); return b }, "4294967295 segments"},
		{"no slots", func(b []byte) []byte { le.PutUint32(b[120:], 0); return resumCheckpoint(b, 2) }, "0 slots"},
		{"more slots than there is room for", func(b []byte) []byte { le.PutUint32(b[120:], 65); return resumCheckpoint(b, 2) }, "of 65 slots"},
		{"as many slots as can be written", func(b []byte) []byte { le.PutUint32(b[120:], math.MaxUint32); return resumCheckpoint(b, 2) }, "4294967295 slots"},
		{"cut within the slots", func(b []byte) []byte { return b[:len(b)-1] }, "2 segments of 64 slots in"},
		{"cut before the slots", func(b []byte) []byte { return b[:4096] }, "in 4096 bytes"},
		{"sum wrong", func(b []byte) []byte { b[504]++; return b }, "sum"},
		{"a reserved byte", func(b []byte) []byte { b[200] = 1; return b }, "sum"},
		{"a row", func(b []byte) []byte { b[4096+31] = 1; return b }, "sum"},
		{"undamaged", func(b []byte) []byte { return b }, ""},
		{"a reserved byte, and the sum", func(b []byte) []byte { b[200] = 1; return resumCheckpoint(b, 2) }, ""},
		{"behind the rows", func(b []byte) []byte { b[4096+32] = 1; return b }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := crc.DecodeCheckpoint(c.damage(checkpointFile(sampleCheckpoint)))
			if c.detail == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, crc.ErrCheckpoint) || !strings.Contains(err.Error(), c.detail) {
				t.Errorf("DecodeCheckpoint: %v, want %q", err, c.detail)
			}
			if !reflect.DeepEqual(got, crc.Checkpoint{}) {
				t.Errorf("DecodeCheckpoint returned %+v beside its error", got)
			}
		})
	}
}

// Goal: no flipped bit of the head or of the table goes unseen. Method: each of them.
func TestEveryBitOfCheckpoint(t *testing.T) {
	b := checkpointFile(sampleCheckpoint)
	for bit := range 4096*8 + 2*16*8 {
		at := bit / 8
		b[at] ^= 1 << (bit % 8)
		_, err := crc.DecodeCheckpoint(b)
		if covered := at < 512 || at >= 4096; covered != errors.Is(err, crc.ErrCheckpoint) {
			t.Errorf("bit %d of byte %d flipped: %v", bit%8, at, err)
		}
		b[at] ^= 1 << (bit % 8)
	}
}

// Goal: the sum of a segment is that of its slots, at its place, in a checkpoint of its log. Method: each bit; another place; another salt; FORMAT.md's words.
func TestSegmentSum(t *testing.T) {
	slots := payload(64 * 8)
	sum := crc.SegmentSum(slots, 3, salt)
	words := binary.LittleEndian.AppendUint64(nil, xxhash.Sum64(slots))
	words = binary.LittleEndian.AppendUint64(words, 3)
	words = binary.LittleEndian.AppendUint64(words, salt)
	if want := xxhash.Sum64(words); sum != want {
		t.Errorf("SegmentSum = %#x, want %#x", sum, want)
	}
	if crc.SegmentSum(slots, 2, salt) == sum || crc.SegmentSum(slots, 3, salt+1) == sum {
		t.Error("at another place, or in another log, it is the same")
	}
	for bit := range len(slots) * 8 {
		slots[bit/8] ^= 1 << (bit % 8)
		if crc.SegmentSum(slots, 3, salt) == sum {
			t.Errorf("bit %d of byte %d flipped: the same sum", bit%8, bit/8)
		}
		slots[bit/8] ^= 1 << (bit % 8)
	}
}

// Goal: the tail sum tells a log from any other in the frame of the last record and in the last 4096 bytes, and looks at no other byte. Method: logs shorter
// and longer than that, without a record too; each byte changed.
func TestTailSum(t *testing.T) {
	for _, n := range []int{0, 8, 100, 4000, 4072, 4073, 5000, 10_000} {
		log := make([]byte, crc.HeaderSize)
		last := int64(0)
		if n > 0 {
			log = sealed(0, payload(200), payload(n))
			last = crc.HeaderSize + crc.RecordSize(200)
		}
		end := int64(len(log))
		log = append(log, 1, 2, 3, 4, 5, 6, 7, 8)
		sum := crc.TailSum(log, last, end)
		for i := range log {
			at := int64(i)
			covered := last > 0 && at >= last && at < last+crc.FrameSize || at >= max(crc.HeaderSize, end-4096) && at < end
			log[i] ^= 0x10
			if got := crc.TailSum(log, last, end); (got != sum) != covered {
				t.Fatalf("a last payload of %d bytes: byte %d of %d changed, the sum: %v", n, i, end, got != sum)
			}
			log[i] ^= 0x10
		}
	}
}

// Goal: a close mark is read as it was written, is that of its log, and what is neither one nor zeros is told from both. Method: extreme values; another
// salt; each bit; ones.
func TestCloseMark(t *testing.T) {
	for _, want := range []crc.CloseMark{{Length: 0x1112131415161718, Modified: 0x2122232425262728}, {}, {Length: math.MaxInt64, Modified: math.MinInt64}} {
		b := checkpointFile(sampleCheckpoint)
		refused := func(what string, salt uint64) {
			t.Helper()
			if m, ok, err := crc.DecodeCloseMark(b, salt); ok || !errors.Is(err, crc.ErrCheckpoint) || m != (crc.CloseMark{}) {
				t.Errorf("%s: %+v, %v, %v", what, m, ok, err)
			}
		}
		if m, ok, err := crc.DecodeCloseMark(b, salt); ok || err != nil {
			t.Fatalf("without one: %+v, %v", m, err)
		}
		crc.EncodeCloseMark(b[crc.CloseMarkOff:], want, salt)
		if m, ok, err := crc.DecodeCloseMark(b, salt); !ok || m != want || err != nil {
			t.Errorf("DecodeCloseMark = %+v, %v, %v, want %+v", m, ok, err, want)
		}
		refused("another log's", salt+1)
		if _, err := crc.DecodeCheckpoint(b); err != nil {
			t.Errorf("with the mark: %v", err)
		}
		for bit := range crc.CloseMarkSize * 8 {
			b[crc.CloseMarkOff+bit/8] ^= 1 << (bit % 8)
			refused("a bit flipped", salt)
			b[crc.CloseMarkOff+bit/8] ^= 1 << (bit % 8)
		}
		for i := range crc.CloseMarkSize {
			clear(b[crc.CloseMarkOff : crc.CloseMarkOff+crc.CloseMarkSize])
			b[crc.CloseMarkOff+i] = 0xff
			refused("one byte and zeros", salt)
		}
	}
	b := bytes.Repeat([]byte{0xff}, crc.CloseMarkSize+8)
	crc.EncodeCloseMark(b, crc.CloseMark{Length: 1, Modified: -2}, salt)
	want := binary.LittleEndian.AppendUint64(nil, 1)
	want = binary.LittleEndian.AppendUint64(want, math.MaxUint64-1)
	sum := xxhash.Sum64(binary.LittleEndian.AppendUint64(bytes.Clone(want), salt))
	want = append(binary.LittleEndian.AppendUint64(want, sum), bytes.Repeat([]byte{0xff}, 8)...)
	if !bytes.Equal(b, want) {
		t.Errorf("EncodeCloseMark wrote %x, want %x", b, want)
	}
}

// FuzzDecodeCheckpoint: no bytes make it panic, or allocate more than in proportion to what there is; what it accepts is what EncodeCheckpoint writes, but
// for what is reserved.
func FuzzDecodeCheckpoint(f *testing.F) {
	head := func(b []byte) []byte { return append(bytes.Clone(b[:512]), b[4096:4096+32]...) }
	f.Add(head(checkpointFile(sampleCheckpoint)), uint16(8192+2*64*8))
	f.Add(head(checkpointFile(sampleCheckpoint)), uint16(0))
	f.Add(encoded(sampleHeader)[:512], uint16(4096))
	f.Add([]byte{}, uint16(4096))
	lying := checkpointFile(sampleCheckpoint)
	binary.LittleEndian.PutUint32(lying[124:], crc.MaxSegments)
	f.Add(head(lying), uint16(60_000))
	f.Fuzz(func(t *testing.T, said []byte, size uint16) {
		crc.DecodeCheckpoint(said)
		// The fuzzer says what is in the head and behind it, not the page between.
		b := make([]byte, size)
		n := copy(b[:min(len(b), 512)], said)
		if len(b) > 4096 {
			copy(b[4096:], said[n:])
		}
		if len(b) >= 4096 {
			// Half of the inputs get their sum put right, which is beyond the fuzzer.
			if count := int(binary.LittleEndian.Uint32(b[124:])); len(said)%2 == 0 && count <= (len(b)-4096)/16 {
				resumCheckpoint(b, count)
			}
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		c, err := crc.DecodeCheckpoint(b)
		runtime.ReadMemStats(&after)
		// Rows take as much memory as they have bytes; 64 KiB are for what else runs.
		if n := after.TotalAlloc - before.TotalAlloc; n > uint64(len(b))+64<<10 {
			t.Errorf("%d bytes allocated for %d", n, len(b))
		}
		if err != nil {
			if !errors.Is(err, crc.ErrCheckpoint) || !reflect.DeepEqual(c, crc.Checkpoint{}) {
				t.Errorf("%+v beside %v", c, err)
			}
			return
		}
		if end := crc.SlotsOff(len(c.Segments), len(c.Segments), c.SlotCount); end > int64(len(b)) {
			t.Errorf("the slots end at %d of %d", end, len(b))
		}
		again, err := crc.DecodeCheckpoint(checkpointFile(c))
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%+v is encoded otherwise: %+v, %v", c, again, err)
		}
		crc.DecodeCloseMark(b, c.Salt)
	})
}
