package crc

import "cmp"

// MarkSize is the size in bytes of a durable mark.
const MarkSize = 32

// The two slots of the durable mark lie in sectors of their own, so that a torn or lost write of one leaves the other.
const (
	markOff    = 4608 // slot 0
	markStride = 512  // from slot 0 to slot 1
)

// Offsets within a mark.
const (
	markOffsetOff   = 0
	markRevisionOff = 8
	markStampOff    = 16
	markSumOff      = 24
)

// Mark is a durable mark: a lower bound of what has been synced. A file has two slots for it, written alternately.
type Mark struct {
	Off      int64  // bytes [0, Off) of the file were synced
	Revision uint64 // of the store at Off
	Stamp    int64  // unix seconds: the newest time that the store had seen
}

// MarkOff returns the offset in the file of slot i&1.
func MarkOff(i uint64) int64 { return markOff + int64(i&1)*markStride }

// EncodeMark writes m and its sum to dst[:MarkSize] for the file with that salt. It panics if dst is shorter than MarkSize.
func EncodeMark(dst []byte, m Mark, salt uint64) {
	dst = dst[:MarkSize]
	le.PutUint64(dst[markOffsetOff:], uint64(m.Off))
	le.PutUint64(dst[markRevisionOff:], m.Revision)
	le.PutUint64(dst[markStampOff:], uint64(m.Stamp))
	le.PutUint64(dst[markSumOff:], markSum(dst, salt))
}

// markSum is the sum of a mark: XXH64 over its first 24 bytes and the salt.
func markSum(mark []byte, salt uint64) uint64 {
	var b [32]byte
	copy(b[:markSumOff], mark)
	le.PutUint64(b[markSumOff:], salt)
	return sum64(b[:])
}

// DecodeMark returns the mark that counts in header, the first HeaderSize bytes of a file whose immutable part is h: of the valid ones that
// with the greater revision, then the greater offset, then the greater stamp. With no valid one it is the mark of a file of which nothing but the header is
// known to be durable: {HeaderSize, h.BaseRevision, 0}. A bad slot is no error: it is what a torn write of a mark leaves.
func DecodeMark(header []byte, h *Header) Mark {
	m, _ := bestMark(header, h)
	return m
}

// NextMark returns the slot that the next mark is to be written to: the one whose mark does not count. The arguments are those of DecodeMark.
func NextMark(header []byte, h *Header) uint64 {
	_, slot := bestMark(header, h)
	return (slot + 1) & 1
}

// bestMark returns the mark that counts and its slot; with no valid one, slot 1.
func bestMark(header []byte, h *Header) (best Mark, slot uint64) {
	best, slot = Mark{Off: HeaderSize, Revision: h.BaseRevision}, 1
	found := false
	for i := range uint64(2) {
		if m, ok := decodeSlot(header, i, h.Salt); ok && (!found || m.newer(best)) {
			best, slot, found = m, i, true
		}
	}
	return best, slot
}

// newer reports whether m counts rather than o.
func (m Mark) newer(o Mark) bool {
	return cmp.Or(cmp.Compare(m.Revision, o.Revision), cmp.Compare(m.Off, o.Off), cmp.Compare(m.Stamp, o.Stamp)) > 0
}

// decodeSlot reads slot i and reports whether it is valid: the sum, and an offset at which a log can end.
func decodeSlot(header []byte, i uint64, salt uint64) (Mark, bool) {
	if len(header) < HeaderSize {
		return Mark{}, false
	}
	slot := header[MarkOff(i):][:MarkSize]
	m := Mark{
		Off:      int64(le.Uint64(slot[markOffsetOff:])),
		Revision: le.Uint64(slot[markRevisionOff:]),
		Stamp:    int64(le.Uint64(slot[markStampOff:])),
	}
	ok := m.Off >= HeaderSize && m.Off <= MaxOff && m.Off%Align == 0 && le.Uint64(slot[markSumOff:]) == markSum(slot, salt)
	return m, ok
}
