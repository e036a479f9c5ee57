package crc_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/mmapkv/mmapkv/crc"
)

// marked returns a header with the given marks in slots 0 and 1.
func marked(marks ...crc.Mark) []byte {
	b := encoded(sampleHeader)
	for i, m := range marks {
		crc.EncodeMark(b[crc.MarkOff(uint64(i)):], m, sampleHeader.Salt)
	}
	return b
}

// Goal: the mark that counts is the newest valid one, or none. Method: a table of pairs of slots, whole and damaged.
func TestDecodeMark(t *testing.T) {
	none := crc.Mark{Off: crc.HeaderSize, Revision: sampleHeader.BaseRevision}
	older := crc.Mark{Off: 12288, Revision: 10, Stamp: 1000}
	newer := crc.Mark{Off: 12296, Revision: 11, Stamp: 999}
	farther := crc.Mark{Off: 16384, Revision: 10, Stamp: 1001}
	stamped := crc.Mark{Off: 12288, Revision: 10, Stamp: 1001}
	flip := func(b []byte, at int64) []byte { b[at] ^= 1; return b }
	for _, c := range []struct {
		name   string
		header []byte
		want   crc.Mark
	}{
		{"none written", marked(), none},
		{"only slot 0", marked(older), older},
		{"slot 1 newer", marked(older, newer), newer},
		{"slot 0 newer", marked(newer, older), newer},
		{"the revision counts before the offset", marked(farther, newer), newer},
		{"equal revisions: the greater offset, slot 1", marked(older, farther), farther},
		{"equal revisions: the greater offset, slot 0", marked(farther, older), farther},
		{"equal but for the stamp: the greater stamp, slot 1", marked(older, stamped), stamped},
		{"equal but for the stamp: the greater stamp, slot 0", marked(stamped, older), stamped},
		{"both equal", marked(older, older), older},
		{"newer one torn", flip(marked(older, newer), crc.MarkOff(1)+3), older},
		{"older one torn", flip(marked(older, newer), crc.MarkOff(0)+20), newer},
		{"both torn", flip(flip(marked(older, newer), crc.MarkOff(0)), crc.MarkOff(1)+31), none},
		{"ones", append(encoded(sampleHeader)[:512], bytes.Repeat([]byte{0xff}, crc.HeaderSize-512)...), none},
		{"offset misaligned", marked(crc.Mark{Off: 8193, Revision: 12}, older), older},
		{"offset within the header", marked(crc.Mark{Off: crc.HeaderSize - 8, Revision: 12}, older), older},
		{"offset zero", marked(crc.Mark{Revision: 12}, older), older},
		{"offset negative", marked(crc.Mark{Off: math.MinInt64, Revision: 12}, older), older},
		{"offset at the limit", marked(crc.Mark{Off: crc.MaxOff, Revision: 12}, older), crc.Mark{Off: crc.MaxOff, Revision: 12}},
		{"offset beyond the limit", marked(crc.Mark{Off: crc.MaxOff + 8, Revision: 12}, older), older},
		{"offset of an empty log", marked(crc.Mark{Off: crc.HeaderSize, Revision: 12, Stamp: 5}), crc.Mark{Off: crc.HeaderSize, Revision: 12, Stamp: 5}},
		{"a mark below the base revision", marked(crc.Mark{Off: 16384, Revision: 1}), crc.Mark{Off: 16384, Revision: 1}},
		{"header cut short", marked(older, newer)[:crc.HeaderSize-1], none},
		{"no header", nil, none},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := crc.DecodeMark(c.header, &sampleHeader); got != c.want {
				t.Errorf("DecodeMark = %+v, want %+v", got, c.want)
			}
		})
	}
}

// Goal: a mark is its file's. Method: another salt.
func TestMarkOfAnotherFile(t *testing.T) {
	b := marked(crc.Mark{Off: 16384, Revision: 10})
	other := sampleHeader
	other.Salt++
	if got := crc.DecodeMark(b, &other); got.Off != crc.HeaderSize {
		t.Errorf("DecodeMark = %+v", got)
	}
}

// Goal: no flipped bit of a mark goes unseen. Method: each of them.
func TestEveryBitOfMark(t *testing.T) {
	for slot := range uint64(2) {
		b := encoded(sampleHeader)
		off := crc.MarkOff(slot)
		crc.EncodeMark(b[off:], crc.Mark{Off: 16384, Revision: 10, Stamp: 1000}, sampleHeader.Salt)
		for bit := range int64(crc.MarkSize * 8) {
			b[off+bit/8] ^= 1 << (bit % 8)
			if got := crc.DecodeMark(b, &sampleHeader); got.Off != crc.HeaderSize {
				t.Errorf("slot %d, bit %d: %+v", slot, bit, got)
			}
			b[off+bit/8] ^= 1 << (bit % 8)
		}
	}
}

// Goal: slots alternate, keep to sectors of their own, and EncodeMark to its slot. Method: the offsets, and a slot within ones.
func TestMarkSlots(t *testing.T) {
	for i, want := range map[uint64]int64{0: 4608, 1: 5120, 2: 4608, 3: 5120, math.MaxUint64: 5120} {
		if got := crc.MarkOff(i); got != want {
			t.Errorf("MarkOff(%d) = %d, want %d", i, got, want)
		}
	}
	b := bytes.Repeat([]byte{0xff}, crc.MarkSize+8)
	crc.EncodeMark(b, crc.Mark{Off: 1, Revision: 2, Stamp: -3}, salt)
	want := binary.LittleEndian.AppendUint64(nil, 1)
	want = binary.LittleEndian.AppendUint64(want, 2)
	want = binary.LittleEndian.AppendUint64(want, math.MaxUint64-2)
	sum := xxhash.Sum64(binary.LittleEndian.AppendUint64(bytes.Clone(want), salt))
	want = binary.LittleEndian.AppendUint64(want, sum)
	want = append(want, bytes.Repeat([]byte{0xff}, 8)...)
	if !bytes.Equal(b, want) {
		t.Errorf("EncodeMark wrote %x, want %x", b, want)
	}
}

// Goal: marks cost no garbage. Method: counted allocations.
func TestMarkAllocs(t *testing.T) {
	b := marked(crc.Mark{Off: 16384, Revision: 10})
	n := testing.AllocsPerRun(100, func() {
		m := crc.DecodeMark(b, &sampleHeader)
		crc.EncodeMark(b[crc.MarkOff(1):], m, sampleHeader.Salt)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Goal: marks are written alternately, whatever is in the slots at first. Method: write each mark to the slot that NextMark names; with either
// slot damaged, the other one's mark is left.
func TestNextMark(t *testing.T) {
	for damaged := range uint64(2) {
		b := make([]byte, crc.HeaderSize)
		crc.EncodeHeader(b, &sampleHeader)
		for i := range int64(4) {
			m := crc.Mark{Off: crc.HeaderSize + 8*i, Revision: sampleHeader.BaseRevision + uint64(i)}
			slot := crc.NextMark(b, &sampleHeader)
			if want := uint64(i & 1); slot != want {
				t.Fatalf("mark %d goes to slot %d, want %d", i, slot, want)
			}
			crc.EncodeMark(b[crc.MarkOff(slot):], m, sampleHeader.Salt)
			if got := crc.DecodeMark(b, &sampleHeader); got != m {
				t.Fatalf("mark %d: %+v, want %+v", i, got, m)
			}
		}
		b[crc.MarkOff(damaged)]++
		if got, want := crc.NextMark(b, &sampleHeader), damaged; got != want {
			t.Errorf("slot %d damaged: the next mark goes to slot %d", damaged, got)
		}
	}
}
