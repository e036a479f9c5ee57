package crc

import (
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// checkpointMagic begins a checkpoint; see magic.
const checkpointMagic = "\x8dmmki\r\n\x1a"

// CheckpointVersion is the version of the checkpoint's format that this package writes, and the only one that it reads.
const CheckpointVersion uint32 = 1

// Sizes and offsets in bytes from the start of a checkpoint's file.
const (
	CloseMarkOff   = 512 // the close mark, in a sector of its own
	CloseMarkSize  = 24
	segmentsOff    = 4096 // the table of segments
	segmentRowSize = 16

	checkpointVersionOff  = 8
	checkpointGenOff      = 16
	checkpointSaltOff     = 24
	checkpointStoreIDOff  = 32
	checkpointBootOff     = 48
	checkpointFileOff     = 56
	checkpointEndOff      = 64
	checkpointRevisionOff = 72
	checkpointTailSumOff  = 80
	checkpointStampOff    = 88
	checkpointRecordsOff  = 96
	checkpointLiveOff     = 104
	checkpointMortalOff   = 112
	checkpointSlotsOff    = 120
	checkpointCountOff    = 124
	checkpointLastOff     = 128
	checkpointSumOff      = 504
)

// MaxSegments bounds the table of a checkpoint: more than an index ever has.
const MaxSegments = 1 << 22

// ErrCheckpoint: bytes are not a checkpoint that this version reads. It may be deleted.
var ErrCheckpoint = errors.New("not a checkpoint")

// Checkpoint is what a checkpoint's file says before the slots: which log the index belongs to, what of it is covered, and what was counted there.
type Checkpoint struct {
	Generation uint64
	Salt       uint64   // of the log
	StoreID    [16]byte // of the log
	Boot       uint64   // the boot in which alone it is valid, since it was not synced; 0: it was, and is valid in any
	File       uint64   // identifies the log's file in its file system
	Last       int64    // offset of the last record covered; 0: there is none
	End        int64    // the records before it are covered
	Revision   uint64   // of the last of them
	TailSum    uint64   // of the log about Last and End: see TailSum
	Stamp      int64    // unix seconds: the newest time that the store had seen
	Records    int64    // covered, dead ones included
	Live       int64    // bytes of live records
	Mortal     int64    // bytes of all records with a deadline
	SlotCount  uint32   // of each segment
	Segments   []CheckpointSegment
}

// CheckpointSegment is the row of a segment.
type CheckpointSegment struct {
	Sum   uint64 // of its slots: see SegmentSum
	Used  uint16 // slots in use
	Marks uint16 // slots that hold a marker
	Depth uint8  // leading bits of the hash that all its keys share
}

// SlotsOff returns where the slots of segment i lie in a checkpoint of count segments.
func SlotsOff(count, i int, slotCount uint32) int64 {
	first := (segmentsOff + int64(count)*segmentRowSize + Page - 1) &^ (Page - 1)
	return first + int64(i)*int64(slotCount)*8
}

// SegmentSum is the sum of the slots of segment i, as they lie in the file, of a checkpoint of the log with that salt.
func SegmentSum(slots []byte, i int, salt uint64) uint64 {
	return sumOf(sum64(slots), uint64(i), salt)
}

// tailSumSize is how many bytes before the end TailSum looks at, at most.
const tailSumSize = 4096

// TailSum is the sum of the frame of the last record, which is at last (0: there is none), and of the bytes of log[:end] from the header on, 4096 at
// most. It ties a checkpoint to the very log that it was made of: another one, that an older copy of the file was continued to, has other bytes there.
// The frame is that of the whole record, however long that is.
func TailSum(log []byte, last, end int64) uint64 {
	var d xxhash.Digest
	d.Reset()
	if last != 0 {
		d.Write(log[last : last+FrameSize])
	}
	d.Write(log[max(HeaderSize, end-tailSumSize):end])
	return d.Sum64()
}

// sumOf is XXH64 over words.
func sumOf(words ...uint64) uint64 {
	var b [32]byte
	for i, w := range words {
		le.PutUint64(b[8*i:], w)
	}
	return sum64(b[:8*len(words)])
}

// EncodeCheckpoint returns the bytes before the first segment, in a slice of their own. There is no close mark in them.
func EncodeCheckpoint(c *Checkpoint) []byte {
	dst := make([]byte, SlotsOff(len(c.Segments), 0, c.SlotCount))
	copy(dst, checkpointMagic)
	le.PutUint32(dst[checkpointVersionOff:], CheckpointVersion)
	le.PutUint64(dst[checkpointGenOff:], c.Generation)
	le.PutUint64(dst[checkpointSaltOff:], c.Salt)
	copy(dst[checkpointStoreIDOff:], c.StoreID[:])
	le.PutUint64(dst[checkpointBootOff:], c.Boot)
	le.PutUint64(dst[checkpointFileOff:], c.File)
	le.PutUint64(dst[checkpointLastOff:], uint64(c.Last))
	le.PutUint64(dst[checkpointEndOff:], uint64(c.End))
	le.PutUint64(dst[checkpointRevisionOff:], c.Revision)
	le.PutUint64(dst[checkpointTailSumOff:], c.TailSum)
	le.PutUint64(dst[checkpointStampOff:], uint64(c.Stamp))
	le.PutUint64(dst[checkpointRecordsOff:], uint64(c.Records))
	le.PutUint64(dst[checkpointLiveOff:], uint64(c.Live))
	le.PutUint64(dst[checkpointMortalOff:], uint64(c.Mortal))
	le.PutUint32(dst[checkpointSlotsOff:], c.SlotCount)
	le.PutUint32(dst[checkpointCountOff:], uint32(len(c.Segments)))
	for i, s := range c.Segments {
		row := dst[segmentsOff+i*segmentRowSize:]
		le.PutUint64(row, s.Sum)
		le.PutUint16(row[8:], s.Used)
		le.PutUint16(row[10:], s.Marks)
		row[12] = s.Depth
	}
	le.PutUint64(dst[checkpointSumOff:], checkpointSum(dst, len(c.Segments)))
	return dst
}

// checkpointSum covers the head before the sum, and the table.
func checkpointSum(b []byte, count int) uint64 {
	var d xxhash.Digest
	d.Reset()
	d.Write(b[:checkpointSumOff])
	d.Write(b[segmentsOff : segmentsOff+count*segmentRowSize])
	return d.Sum64()
}

// DecodeCheckpoint reads a checkpoint from b, the whole of its file; the slots are not looked at, but there is room for them. The error wraps
// ErrCheckpoint and says what is wrong; none of it is damage to a store.
func DecodeCheckpoint(b []byte) (c Checkpoint, err error) {
	switch {
	case len(b) < segmentsOff || string(b[:len(checkpointMagic)]) != checkpointMagic:
		return c, fmt.Errorf("%w: the first bytes are not those of one", ErrCheckpoint)
	case le.Uint32(b[checkpointVersionOff:]) != CheckpointVersion:
		return c, fmt.Errorf("%w: version %d, known is %d", ErrCheckpoint, le.Uint32(b[checkpointVersionOff:]), CheckpointVersion)
	}
	slots, segments := le.Uint32(b[checkpointSlotsOff:]), le.Uint32(b[checkpointCountOff:])
	count := int(min(segments, MaxSegments+1))
	if count < 1 || count > MaxSegments || slots < 1 || slots > 1<<16 || SlotsOff(count, count, slots) > int64(len(b)) {
		return c, fmt.Errorf("%w: %d segments of %d slots in %d bytes", ErrCheckpoint, segments, slots, len(b))
	}
	if le.Uint64(b[checkpointSumOff:]) != checkpointSum(b, count) {
		return c, fmt.Errorf("%w: sum mismatch", ErrCheckpoint)
	}
	c = Checkpoint{
		Generation: le.Uint64(b[checkpointGenOff:]),
		Salt:       le.Uint64(b[checkpointSaltOff:]),
		Boot:       le.Uint64(b[checkpointBootOff:]),
		File:       le.Uint64(b[checkpointFileOff:]),
		Last:       int64(le.Uint64(b[checkpointLastOff:])),
		End:        int64(le.Uint64(b[checkpointEndOff:])),
		Revision:   le.Uint64(b[checkpointRevisionOff:]),
		TailSum:    le.Uint64(b[checkpointTailSumOff:]),
		Stamp:      int64(le.Uint64(b[checkpointStampOff:])),
		Records:    int64(le.Uint64(b[checkpointRecordsOff:])),
		Live:       int64(le.Uint64(b[checkpointLiveOff:])),
		Mortal:     int64(le.Uint64(b[checkpointMortalOff:])),
		SlotCount:  slots,
		Segments:   make([]CheckpointSegment, count),
	}
	copy(c.StoreID[:], b[checkpointStoreIDOff:])
	for i := range c.Segments {
		row := b[segmentsOff+i*segmentRowSize:]
		c.Segments[i] = CheckpointSegment{Sum: le.Uint64(row), Used: le.Uint16(row[8:]), Marks: le.Uint16(row[10:]), Depth: row[12]}
	}
	return c, nil
}

// CloseMark is what the log's file was like when its store was closed, after its last write. As long as it is like that, nobody has written to it.
type CloseMark struct {
	Length   int64 // bytes
	Modified int64 // unix nanoseconds
}

// EncodeCloseMark writes m to dst[:CloseMarkSize] for the log with that salt. It panics if dst is shorter.
func EncodeCloseMark(dst []byte, m CloseMark, salt uint64) {
	le.PutUint64(dst, uint64(m.Length))
	le.PutUint64(dst[8:], uint64(m.Modified))
	le.PutUint64(dst[16:], sumOf(uint64(m.Length), uint64(m.Modified), salt))
}

// DecodeCloseMark reads the close mark of a checkpoint, of which it takes the first CloseMarkOff+CloseMarkSize bytes, and panics without them; ok
// tells whether it has one. Where there is something else than one or zeros, the error wraps ErrCheckpoint: there may have been one.
func DecodeCloseMark(checkpoint []byte, salt uint64) (m CloseMark, ok bool, err error) {
	b := checkpoint[CloseMarkOff : CloseMarkOff+CloseMarkSize]
	m = CloseMark{Length: int64(le.Uint64(b)), Modified: int64(le.Uint64(b[8:]))}
	switch le.Uint64(b[16:]) {
	case sumOf(uint64(m.Length), uint64(m.Modified), salt):
		return m, true, nil
	case 0:
		if m == (CloseMark{}) {
			return m, false, nil
		}
	}
	return CloseMark{}, false, fmt.Errorf("%w: sum mismatch of the close mark", ErrCheckpoint)
}
