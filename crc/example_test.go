package crc_test

import (
	"errors"
	"fmt"

	"github.com/mmapkv/mmapkv/crc"
)

func ExampleHeader() {
	file := make([]byte, crc.HeaderSize)
	crc.EncodeHeader(file, &crc.Header{Generation: 7, Salt: 42, BaseRevision: 1000})
	h, err := crc.DecodeHeader(file)
	fmt.Println(h.Version, h.Generation, err)
	file[24]++ // the generation
	_, err = crc.DecodeHeader(file)
	fmt.Println(err != nil)
	// Output:
	// 1 7 <nil>
	// true
}

func ExampleMark() {
	h := crc.Header{Salt: 42, BaseRevision: 1000}
	file := make([]byte, crc.HeaderSize)
	crc.EncodeHeader(file, &h)
	fmt.Println(crc.DecodeMark(file, &h))
	crc.EncodeMark(file[crc.MarkOff(0):], crc.Mark{Off: 16384, Revision: 1020, Stamp: 1_700_000_000}, h.Salt)
	fmt.Println(crc.DecodeMark(file, &h))
	// Output:
	// {8192 1000 0}
	// {16384 1020 1700000000}
}

func ExampleVerify() {
	const salt, off = 42, crc.HeaderSize
	payload := "payload"
	log := make([]byte, off+crc.RecordSize(len(payload)))
	copy(log[off+crc.FrameSize:], payload)
	crc.Seal(log[off:], len(payload), 0, salt, off)
	rec, err := crc.Verify(log, off, salt)
	fmt.Println(string(rec.Payload), rec.Size, err)
	_, err = crc.Verify(log, off, salt+1)
	fmt.Println(err)
	// Output:
	// payload 24 <nil>
	// record sum mismatch
}

// A scan: from record to record, up to the first that does not verify.
func ExampleRecord() {
	const salt = 42
	log := make([]byte, crc.HeaderSize)
	for _, payload := range []string{"one", "a longer one"} {
		rec := make([]byte, crc.RecordSize(len(payload)))
		copy(rec[crc.FrameSize:], payload)
		crc.Seal(rec, len(payload), 0, salt, int64(len(log)))
		log = append(log, rec...)
	}
	for off := int64(crc.HeaderSize); ; {
		rec, err := crc.Verify(log, off, salt)
		if err != nil {
			break // the end, or a torn write
		}
		fmt.Println(off, string(rec.Payload), rec.Size)
		off += rec.Size
	}
	// Output:
	// 8192 one 24
	// 8216 a longer one 32
}

func ExampleCheckpoint() {
	const slotCount = 4
	slots := make([]byte, 8*slotCount)
	c := crc.Checkpoint{Generation: 1, Salt: 42, End: crc.HeaderSize, SlotCount: slotCount, Segments: []crc.CheckpointSegment{{Sum: crc.SegmentSum(slots, 0, 42)}}}
	head := crc.EncodeCheckpoint(&c)
	file := make([]byte, crc.SlotsOff(1, 0, slotCount)+int64(len(slots)))
	copy(file, head)
	got, err := crc.DecodeCheckpoint(file)
	fmt.Println(got.Generation, len(got.Segments), err)
	_, err = crc.DecodeCheckpoint(file[:len(head)-1])
	fmt.Println(errors.Is(err, crc.ErrCheckpoint))
	// Output:
	// 1 1 <nil>
	// true
}

// The sum of a segment is over its slots, its number and the salt of the log.
func ExampleCheckpointSegment() {
	slots := make([]byte, 32)
	row := crc.CheckpointSegment{Sum: crc.SegmentSum(slots, 0, 42)}
	fmt.Println(row.Sum == crc.SegmentSum(slots, 0, 42), row.Sum == crc.SegmentSum(slots, 1, 42))
	// Output: true false
}

func ExampleCloseMark() {
	file := make([]byte, crc.CloseMarkOff+crc.CloseMarkSize)
	_, ok, err := crc.DecodeCloseMark(file, 42)
	fmt.Println(ok, err)
	crc.EncodeCloseMark(file[crc.CloseMarkOff:], crc.CloseMark{Length: 8216, Modified: 1_700_000_000_000_000_000}, 42)
	m, ok, err := crc.DecodeCloseMark(file, 42)
	fmt.Println(m.Length, ok, err)
	// Output:
	// false <nil>
	// 8216 true <nil>
}
