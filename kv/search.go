package kv

import (
	"math/bits"
	"os"
	"slices"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
)

// search is what one scan knows once it has met damage: from there on any bytes
// may claim to be a record. It makes the scan take time in proportion to the log:
//  1. A claim is summed only if all but its sum is right: the frame, the entry
//     with its lengths, the revision. Bytes that nobody made for it hardly ever
//     pass, records within a value of a store are summed once.
//  2. Each class of lengths, from a power of two to the next, has its own
//     allowance of bytes summed in vain, so that claims of long records do not
//     use up what short ones need. A file that was made to use them all up loses
//     records, and no time.
//  3. A page that cannot be read is touched twice at most.
type search struct {
	allowance [33]int64 // bytes that may still be summed in vain, by the bits of the length
	lost      []int64   // offsets of the pages that cannot be read, ascending
}

func newSearch(logLen int64) *search {
	y := new(search)
	for i := range y.allowance {
		y.allowance[i] = logLen
	}
	return y
}

// verify is crc.Verify of what may be the next record of c, at off. It is
// crc.ErrSum too if there is no point in looking at the sum.
func (y *search) verify(c *scanner, off int64) (crc.Record, error) {
	rec, err := crc.Read(c.log, off)
	if err != nil {
		return rec, err
	}
	n := int64(len(rec.Payload))
	class := bits.Len64(uint64(n))
	if y.isLost(off, rec.Size) || n > y.allowance[class] || !isEntry(rec.Payload, c.revision, maxRevision) {
		return rec, crc.ErrSum
	}
	// Paid ahead, for the sum may meet a page that cannot be read.
	y.allowance[class] -= n
	if rec, err = crc.Verify(c.log, off, c.header.Salt); err == nil {
		y.allowance[class] += n
	}
	return rec, err
}

// isEntry tells whether p holds an entry of a revision above after and up to last.
func isEntry(p []byte, after, last uint64) bool {
	if key, ok := codec.Key(p); !ok || len(key) > MaxKeySize { // the words of Decode for what is wrong cost more
		return false
	}
	e, err := codec.Decode(p)
	return err == nil && after < e.Revision && e.Revision <= last
}

// lose notes that the byte at off cannot be read. It returns the offset of its
// page, and whether that was known.
func (y *search) lose(off int64) (page int64, known bool) {
	page = pageOf(off)
	i, known := slices.BinarySearch(y.lost, page)
	if !known {
		y.lost = slices.Insert(y.lost, i, page)
	}
	return page, known
}

// isLost tells whether any of [off, off+n) is known to be unreadable.
func (y *search) isLost(off, n int64) bool {
	i, _ := slices.BinarySearch(y.lost, pageOf(off))
	return i < len(y.lost) && y.lost[i]-off < n
}

// lostEnd returns the end of the last page that cannot be read, or 0.
func (y *search) lostEnd() int64 {
	if len(y.lost) == 0 {
		return 0
	}
	return y.lost[len(y.lost)-1] + int64(os.Getpagesize())
}

func pageOf(off int64) int64 { return off &^ (int64(os.Getpagesize()) - 1) }
