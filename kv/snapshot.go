package kv

import (
	"fmt"
	"iter"
	"math/bits"
	"slices"
	"sync/atomic"

	"github.com/mmapkv/mmapkv/crc"
)

// snapshot is the index as it was at one moment. It is a copy of the directory:
// while it lives, a writer copies a segment before it first changes it. Nobody
// waits, and the cost is that of what is written meanwhile.
type snapshot struct {
	ix    *index
	t     *table   // chunks, shift and mask; its directory goes on changing
	dir   []uint64 // immutable
	epoch uint64
	over  *snapshot // of the overflow index; nil if there was none

	// broken: there was no memory to keep it, so that holds may be wrong.
	broken atomic.Bool
}

// snapshot takes one. The caller holds mu, and releases it in the end.
func (ix *index) snapshot() *snapshot {
	s := &snapshot{ix: ix, t: ix.table.Load(), epoch: ix.epoch}
	ix.epoch++
	s.dir = make([]uint64, len(s.t.dir))
	for i := range s.dir {
		s.dir[i] = s.t.dir[i].Load()
	}
	if over := ix.over.Load(); over != nil {
		over.mu.Lock()
		s.over = over.snapshot()
		over.mu.Unlock()
	}
	ix.snapshots = append(ix.snapshots, s)
	return s
}

// release ends the snapshot; only then may its segments be used again. Further
// calls do nothing.
func (s *snapshot) release() {
	s.ix.mu.Lock()
	defer s.ix.mu.Unlock()
	for i, other := range s.ix.snapshots {
		if other == s {
			s.ix.snapshots = append(s.ix.snapshots[:i], s.ix.snapshots[i+1:]...)
			s.ix.reclaim()
			break
		}
	}
	if s.over != nil {
		s.over.release()
	}
}

// holds tells whether the record at off, of a key with hash h, was the key's
// current one.
func (s *snapshot) holds(h uint64, key []byte, off int64) bool {
	slots := s.t.slots(s.dir[h>>s.t.shift])
	want := h>>tagShift<<tagShift | uint64(off)>>3
	for d := uint64(0); d < maxProbe; d++ {
		at := int((h+d)&s.t.mask) * bucketSlots
		bucket := (*[bucketSlots]uint64)(slots[at : at+bucketSlots])
		// Where in the bucket the slot is, no processor can foretell: so no jump
		// depends on it. (x-1)&^x has its highest bit set if x is 0, and only then.
		equal := uint64(0)
		for i := range bucket {
			x := bucket[i] ^ (want | d<<dispShift)
			equal |= (x - 1) &^ x
		}
		if equal>>63 != 0 {
			return true
		}
		if slices.Contains(bucket[:], 0) {
			break
		}
	}
	return s.over != nil && s.over.holds(s.over.ix.hash.sum(key), key, off)
}

// find returns the offset of the record of key that was current, or 0.
func (s *snapshot) find(h uint64, key []byte) int64 {
	if pos, off := s.ix.probe(s.t, s.t.slots(s.dir[h>>s.t.shift]), h, key); pos >= 0 {
		return off
	}
	if s.over != nil {
		return s.over.find(s.over.ix.hash.sum(key), key)
	}
	return 0
}

// slots yields the slots of each segment, overflow included, in the order of their
// hashes.
func (s *snapshot) slots() iter.Seq[[]uint64] {
	return func(yield func([]uint64) bool) {
		for at := s; at != nil; at = at.over {
			for i, entry := range at.dir {
				// The entries that share a segment lie side by side.
				if (i == 0 || segmentID(entry) != segmentID(at.dir[i-1])) && !yield(at.t.slots(entry)) {
					return
				}
			}
		}
	}
}

// segments returns a row for each segment, in the order of their hashes, with its
// depth.
func (s *snapshot) segments() (rows []crc.CheckpointSegment) {
	for i := 0; i < len(s.dir); {
		n := 1
		for i+n < len(s.dir) && uint32(s.dir[i+n]) == uint32(s.dir[i]) {
			n++
		}
		depth := bits.Len(uint(len(s.dir))) - bits.Len(uint(n))
		rows = append(rows, crc.CheckpointSegment{Depth: uint8(depth)})
		i += n
	}
	return rows
}

var errBroken = fmt.Errorf("%w: no memory to keep the snapshot", ErrFull)

// isBroken tells that holds may have been wrong since the snapshot was taken.
func (s *snapshot) isBroken() bool {
	return s.broken.Load() || s.over != nil && s.over.isBroken()
}

// retire takes a segment that the directory names no more. The caller holds mu.
func (ix *index) retire(id uint32) {
	ix.retired = append(ix.retired, retired{id: id, born: ix.segs[id].epoch, until: ix.epoch})
	ix.reclaim()
}

// reclaim frees the retired segments that no living snapshot has. The caller
// holds mu.
func (ix *index) reclaim() {
	kept := ix.retired[:0]
	for _, r := range ix.retired {
		held := false
		for _, s := range ix.snapshots {
			held = held || r.born <= s.epoch && s.epoch < r.until
		}
		if held {
			kept = append(kept, r)
		} else {
			ix.free = append(ix.free, r.id)
		}
	}
	ix.retired = kept
	ix.noteSpare()
}
