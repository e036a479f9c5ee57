package crc

import (
	"errors"
	"fmt"
)

// Sizes in bytes.
const (
	FrameSize  = 16            // the header in front of each payload
	Align      = 8             // record offsets and record sizes are multiples of it
	MaxPayload = 1<<30 + 1<<17 // the longest payload: the longest value, the longest key and their fields
)

// Record flags. The low 16 bits are compatible: a reader ignores those that it does not know. The high 16 bits are incompatible: a reader
// refuses a record that has one that it does not know.
const (
	// FlagMore says that the next record belongs to the same transaction. A run of records with FlagMore and the first one without it
	// are applied together or not at all.
	FlagMore uint32 = 1 << 16

	knownFlags        = FlagMore
	incompatibleFlags = uint32(0xffff0000)
)

// Offsets within a frame. The length and the flags are one 8-byte word, stored last.
const (
	frameSumOff    = 0
	frameLengthOff = 8
)

// refusedBits are the incompatible flags that this version does not know, where they lie in the length word.
const refusedBits = uint64(incompatibleFlags&^knownFlags) << 32

// Why there is no valid record at an offset. ErrNoRecord, ErrBounds and ErrSum are returned as they are, without details and so without
// an allocation: a scan ends with one of them, and the caller knows the offset. ErrFlags is wrapped with the flags.
var (
	ErrNoRecord = errors.New("no record")                                        // the length is zero
	ErrBounds   = errors.New("record out of bounds")                             // misaligned, or longer than the log or MaxPayload
	ErrFlags    = errors.New("record has incompatible flags of a later version") // to be read by a later version only
	ErrSum      = errors.New("record sum mismatch")                              // the bytes are not those that were sealed here
)

// Record is a record as it lies in a log.
type Record struct {
	Payload []byte // aliases the log, and its capacity ends with it
	Flags   uint32
	Size    int64 // of frame, payload and padding: the next record begins this many bytes further
}

// RecordSize returns the bytes that a record of a payload of payloadLen bytes takes in the log.
func RecordSize(payloadLen int) int64 {
	return FrameSize + (int64(payloadLen)+Align-1)&^(Align-1)
}

// Seal makes rec, whose payload the caller has put at rec[FrameSize:FrameSize+payloadLen], a record of the file with that salt at offset
// off. It writes the padding, the sum, and last the word of length and flags, so that a writer that dies within Seal leaves "no record",
// never half of one. It panics if payloadLen is not in [1, MaxPayload] or rec is shorter than RecordSize(payloadLen): both are faults of
// the program, not of a file. It does not allocate; its cost is that of XXH64 over the payload.
func Seal(rec []byte, payloadLen int, flags uint32, salt uint64, off int64) {
	if payloadLen <= 0 || payloadLen > MaxPayload {
		panic("crc: payload length out of range")
	}
	rec = rec[:RecordSize(payloadLen)]
	last := rec[len(rec)-Align:]
	le.PutUint64(last, le.Uint64(last)&(^uint64(0)>>paddingBits(payloadLen)))
	word := uint64(payloadLen) | uint64(flags)<<32
	le.PutUint64(rec[frameSumOff:], recordSum(rec[FrameSize:FrameSize+payloadLen], word, salt, off))
	le.PutUint64(rec[frameLengthOff:], word)
}

// paddingBits returns the bits of padding after a payload of n bytes: 0 to 56, the high ones of the record's last word.
func paddingBits(n int) uint { return uint(-n&(Align-1)) * 8 }

// recordSum is the sum of a record: two plain XXH64 calls, so that any tool can check it. The salt and the offset are in it, so that a
// record copied or left over from another file or another place never verifies.
func recordSum(payload []byte, word, salt uint64, off int64) uint64 {
	var b [32]byte
	le.PutUint64(b[0:], sum64(payload))
	le.PutUint64(b[8:], word)
	le.PutUint64(b[16:], salt)
	le.PutUint64(b[24:], uint64(off))
	return sum64(b[:])
}

// Payload returns the payload of the record at off if Read would return one. It is for offsets that are known to hold a verified record,
// where only memory safety is asked for: the sum is not looked at, and there is no reason given for a refusal. The payload aliases log.
func Payload(log []byte, off int64) ([]byte, bool) {
	if off < HeaderSize || off&(Align-1) != 0 || int64(len(log))-off < FrameSize {
		return nil, false
	}
	rec := log[off:]
	word := le.Uint64(rec[frameLengthOff:])
	rec = rec[FrameSize:]
	n := uint64(uint32(word))
	// n-1 wraps for a zero length. Rounding the room down has the effect of rounding the payload up to its padding.
	if n-1 >= MaxPayload || n > uint64(len(rec))&^(Align-1) || word&refusedBits != 0 {
		return nil, false
	}
	return rec[:n:n], true
}

// frame finds the record at off by its length alone, and returns its payload and its word of length and flags, which it does not judge. The
// error is ErrNoRecord or ErrBounds.
func frame(log []byte, off int64) (payload []byte, word uint64, err error) {
	if off < HeaderSize || off&(Align-1) != 0 || FrameSize > int64(len(log))-off {
		return nil, 0, ErrBounds
	}
	rec := log[off:]
	word = le.Uint64(rec[frameLengthOff:])
	rec = rec[FrameSize:]
	n := uint64(uint32(word))
	if n == 0 {
		return nil, 0, ErrNoRecord
	}
	if n > MaxPayload || n > uint64(len(rec))&^(Align-1) { // the room rounded down, as in Payload
		return nil, 0, ErrBounds
	}
	return rec[:n:n], word, nil
}

// refused returns ErrFlags, with the incompatible flags of a record's word that this version does not know.
func refused(word uint64) error {
	return fmt.Errorf("%w: unknown %#x, known %#x", ErrFlags, word&refusedBits>>32, knownFlags)
}

// record is the record of a payload and a word that have been found in a log.
func record(payload []byte, word uint64) Record {
	return Record{Payload: payload, Flags: uint32(word >> 32), Size: RecordSize(len(payload))}
}

// Read returns the record at off, checked against the bounds of log and not against its sum. log is the file's bytes [0, end). Errors:
// ErrBounds for an offset that is misaligned, within the header or beyond the log, or a length beyond the log or MaxPayload; ErrNoRecord
// for a zero length; ErrFlags for an unknown incompatible flag.
func Read(log []byte, off int64) (Record, error) {
	payload, word, err := frame(log, off)
	if err != nil {
		return Record{}, err
	}
	if word&refusedBits != 0 {
		return Record{}, refused(word)
	}
	return record(payload, word), nil
}

// Verify returns the record at off of the file with that salt, checked in full. Errors: those of Read, and ErrSum if the sum differs or the
// padding is not zero. The sum is checked before the flags: ErrFlags means a record that a later version wrote here, never a
// torn or damaged word. The cost is that of XXH64 over the payload.
func Verify(log []byte, off int64, salt uint64) (Record, error) {
	payload, word, err := frame(log, off)
	if err != nil {
		return Record{}, err
	}
	if le.Uint64(log[off+frameSumOff:]) != recordSum(payload, word, salt, off) || !zeroPadding(log, off, len(payload)) {
		return Record{}, ErrSum
	}
	if word&refusedBits != 0 {
		return Record{}, refused(word)
	}
	return record(payload, word), nil
}

// Gap reports whether the bytes from off to the next multiple of Page are all zero, as a writer leaves them that goes on in a new page, and
// returns that multiple. There is no gap at a multiple of Page, nor where log ends before the next.
func Gap(log []byte, off int64) (next int64, ok bool) {
	next = (off + Page - 1) &^ (Page - 1)
	if off < HeaderSize || off == next || next > int64(len(log)) {
		return 0, false
	}
	for _, b := range log[off:next] {
		if b != 0 {
			return 0, false
		}
	}
	return next, true
}

// zeroPadding reports whether the padding behind the n bytes of payload of the record at off, which lies within log, is zero.
func zeroPadding(log []byte, off int64, n int) bool {
	return le.Uint64(log[off+RecordSize(n)-Align:])>>(64-paddingBits(n)) == 0 // a shift by 64 yields 0
}

// Plausible reports whether the bytes at off could be a record that Verify accepts: its bounds, its flags and its padding. It touches two
// cache lines whatever the length, and is the screen before the sum when resynchronising in steps of Align. A forged file can have a
// plausible record at every step, each as long as the rest of the log: a caller bounds the bytes that it sums for false ones.
func Plausible(log []byte, off int64) bool {
	payload, ok := Payload(log, off)
	return ok && zeroPadding(log, off, len(payload))
}
