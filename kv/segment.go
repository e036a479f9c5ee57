package kv

import (
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/mmapkv/mmapkv/internal/invariants"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// This file has the ways in which slots get to another segment: copied for a
// snapshot's sake, rewritten without markers, split, and, while the index is
// small, moved to a segment of twice the size. The caller holds index.mu.

// own returns the segment of h, free to be changed: where a living snapshot
// shares it, a copy takes its place first.
func (ix *index) own(h uint64) (t *table, id uint32, slots []uint64) {
	t = ix.table.Load()
	entry := t.dir[h>>t.shift].Load()
	id = segmentID(entry)
	slots = t.slots(entry)
	if n := len(ix.snapshots); n == 0 || ix.snapshots[n-1].epoch < ix.segs[id].epoch {
		return t, id, slots
	}
	if t.small() {
		t2 := newTable(0, len(slots), []chunk{{words: append([]uint64(nil), slots...)}})
		ix.segs[0].epoch = ix.epoch
		ix.table.Store(t2)
		return t2, 0, t2.slots(0)
	}
	seg := ix.segs[id]
	fresh, err := ix.allocate()
	if err != nil {
		// Without memory for a copy it is the snapshots that must give way.
		for _, s := range ix.snapshots {
			s.broken.Store(true)
		}
		ix.snapshots = nil
		ix.reclaim()
		return t, id, slots
	}
	t = ix.table.Load()
	to := t.slots(uint64(fresh))
	storeAll(to, slots)
	ix.segs[fresh] = segment{depth: seg.depth, used: seg.used, marks: seg.marks, epoch: ix.epoch}
	ix.point(t, h, seg.depth, fresh)
	ix.retire(id)
	return t, fresh, to
}

func (t *table) small() bool { return t.chunks[0].region == nil }

// point makes the directory entries of all hashes that share h's first depth
// bits name segment id. Readers wait for a segment that is not loaded, and for what it
// splits into, as before.
func (ix *index) point(t *table, h uint64, depth uint8, id uint32) {
	entries := t.entries(h, depth)
	for i := range entries {
		entry := entries[i].Load()
		entries[i].Store((entry>>32+1)<<32 | entry&unloaded | uint64(id))
	}
}

// storeAll stores slots that readers may be loading meanwhile. The runtime copies aligned
// pointers, and so words of 64 bits where those are as long, whole, as its garbage
// collector needs that; the race detector does not know. The caller has loaded the table
// after what the slots name was stored, so that no copy is seen before it.
func storeAll(to, slots []uint64) {
	if !invariants.Enabled && strconv.IntSize == 64 {
		copy(to, slots)
		return
	}
	for i, slot := range slots {
		atomic.StoreUint64(&to[i], slot)
	}
}

// allocate returns a segment all of whose slots are to be stored.
func (ix *index) allocate() (uint32, error) {
	if n := len(ix.free); n > 0 {
		id := ix.free[n-1]
		ix.free = ix.free[:n-1]
		ix.noteSpare()
		return id, nil
	}
	if ix.spare() == 0 {
		c, err := ix.more(true)
		if err != nil {
			return 0, err
		}
		ix.addChunk(c)
	}
	ix.segs = append(ix.segs, segment{})
	ix.noteSpare()
	return uint32(len(ix.segs) - 1), nil
}

// reserve sees to it that so many keys can be put, whatever segments they meet,
// without fail. The caller is the writer, and does not hold mu.
func (ix *index) reserve(keys int) error {
	// Only the writer takes of it: what is at hand stays so.
	if int(ix.atHand.Load()) >= ix.need(keys) {
		return nil
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	return ix.reserveLocked(keys)
}

// reserveLocked is reserve for those who hold mu.
func (ix *index) reserveLocked(keys int) error {
	if ix.table.Load().small() {
		// It may leave the heap, and split on.
		all := int(ix.keys.Load()) + keys
		for all > segmentSlots/4 && len(ix.ready)*chunkSegments < spareSegments+all/splitKeys {
			c, err := ix.more(len(ix.ready) > 0)
			if err != nil {
				return err
			}
			ix.ready = append(ix.ready, c)
		}
		return nil
	}
	for ix.spare() < ix.need(keys) {
		c, err := ix.more(true)
		if err != nil {
			return err
		}
		ix.addChunk(c)
	}
	return nil
}

// need is how many segments so many keys may take.
func (ix *index) need(keys int) int { return spareSegments + min(keys, len(ix.segs)) + keys/splitKeys }

const (
	// spareSegments is what one put may take: a copy for a snapshot, and two for a
	// split; and as many again in the overflow index.
	spareSegments = 6
	// splitKeys is how many keys a segment has at the least after a split that
	// chance brought about.
	splitKeys = 1000
)

// spare is how many segments there is memory for. The index is not small.
func (ix *index) spare() int {
	return len(ix.table.Load().chunks)*chunkSegments - len(ix.segs) + len(ix.free)
}

// noteSpare is called where spare has changed.
func (ix *index) noteSpare() {
	if !ix.table.Load().small() {
		ix.atHand.Store(int64(ix.spare()))
	}
}

// newChunk makes a chunk. The first of an index is not a huge page, for the index
// may stay small; each other one is a huge page, with fewer misses of the
// processor's address cache.
func newChunk(huge bool) (chunk, error) {
	region, err := mmapfile.NewRegion(chunkSegments*segmentSlots, huge)
	if err != nil {
		return chunk{}, err
	}
	return chunk{region.Words, region}, nil
}

// addChunk gives the index the memory of c. The directory is copied: a reader that
// still has the old table must not come by a segment in a chunk which that has not.
func (ix *index) addChunk(c chunk) {
	t := ix.table.Load()
	t2 := &table{dir: make([]atomic.Uint64, len(t.dir)), shift: t.shift, mask: t.mask}
	for i := range t2.dir {
		t2.dir[i].Store(t.dir[i].Load())
	}
	t2.chunks = append(append(t2.chunks, t.chunks...), c)
	ix.table.Store(t2)
	ix.noteSpare()
}

// runsLow tells whether it is time to look ahead. The caller holds mu.
func (ix *index) runsLow() bool { return !ix.table.Load().small() && ix.spare() < chunkSegments/4 }

// lookAhead keeps memory ready, already touched: to clear a huge page takes
// milliseconds, which no Put shall wait for. The caller does not hold mu.
func (ix *index) lookAhead() {
	for {
		ix.mu.Lock()
		low := ix.runsLow()
		ix.mu.Unlock()
		if !low {
			return
		}
		c, err := ix.more(true)
		if err != nil {
			return // the writer that needs it will hear of it
		}
		atomic.StoreUint64(&c.words[0], 0)
		ix.mu.Lock()
		ix.addChunk(c)
		ix.mu.Unlock()
	}
}

// insert stores slot, of whatever displacement, in segment id, whose slots are given,
// for a key with hash h. It returns false if there is no room.
func (ix *index) insert(id uint32, slots []uint64, h, slot uint64) bool {
	mask := uint64(len(slots)/bucketSlots - 1)
	pos, d := vacancy(slots, mask, h)
	for pos >= 0 && d >= maxProbe {
		from, nearer := movable(slots, mask, h, d)
		if from < 0 {
			return false
		}
		moved := slots[from]
		ix.occupy(id, slots, pos, moved+(d-nearer)<<dispShift)
		ix.vacate(id, slots, from, marker)
		pos, d = from, nearer
	}
	if pos < 0 {
		return false
	}
	ix.occupy(id, slots, pos, slot&^(3<<dispShift)|d<<dispShift)
	return true
}

// vacancy returns the position of the first slot in reach of h that is free, and how
// many buckets from home it is, or -1.
func vacancy(slots []uint64, mask, h uint64) (int, uint64) {
	for d := uint64(0); d < maxReach; d++ {
		at := int((h+d)&mask) * bucketSlots
		for i, slot := range slots[at : at+bucketSlots] {
			if slot <= marker {
				return at + i, d
			}
		}
	}
	return -1, 0
}

// movable returns the position of a slot that may move on to the bucket d from h's
// home, and how far from there it is now, or -1. The nearer to home the better.
func movable(slots []uint64, mask, h, d uint64) (int, uint64) {
	for nearer := d - maxProbe + 1; nearer < d; nearer++ {
		at := int((h+nearer)&mask) * bucketSlots
		for i, slot := range slots[at : at+bucketSlots] {
			if slot>>dispShift&3+d-nearer < maxProbe {
				return at + i, nearer
			}
		}
	}
	return -1, 0
}

// occupy stores a slot where there was none.
func (ix *index) occupy(id uint32, slots []uint64, pos int, slot uint64) {
	if slots[pos] == marker {
		ix.segs[id].marks--
	}
	ix.segs[id].used++
	atomic.StoreUint64(&slots[pos], slot)
}

// vacate leaves 0 or marker where a slot was.
func (ix *index) vacate(id uint32, slots []uint64, pos int, left uint64) {
	if left == marker {
		ix.segs[id].marks++
	}
	ix.segs[id].used--
	atomic.StoreUint64(&slots[pos], left)
}

// relieve makes room for h, for whose slot its segment has no room. It
// returns false where more segments would not help.
func (ix *index) relieve(h uint64) (bool, error) {
	t := ix.table.Load()
	id := segmentID(t.dir[h>>t.shift].Load())
	seg := ix.segs[id]
	slots := int(t.mask+1) * bucketSlots
	if int(seg.used) < slots/4 {
		return false, nil // chance fills a segment evenly
	}
	if slots < segmentSlots {
		return true, ix.enlarge(slots * 2)
	}
	if seg.depth == maxDepth {
		return false, nil
	}
	if len(t.dir) == 1<<seg.depth {
		// Chance needs an entry for every thousand keys or so.
		ix.count()
		if int64(len(t.dir)) > 64+ix.keys.Load()/64 {
			return false, nil
		}
		ix.deepen()
	}
	return true, ix.rewrite(h, true)
}

// deepen doubles the directory.
func (ix *index) deepen() {
	t := ix.table.Load()
	t2 := &table{dir: make([]atomic.Uint64, 2*len(t.dir)), shift: t.shift - 1, mask: t.mask, chunks: t.chunks}
	for i := range t2.dir {
		t2.dir[i].Store(t.dir[i/2].Load())
	}
	ix.table.Store(t2)
}

// rewrite moves the slots of h's segment, without the markers, to a fresh one,
// or to two if split. It reads no record.
func (ix *index) rewrite(h uint64, split bool) error {
	t := ix.table.Load()
	if t.small() {
		return ix.enlarge(int(t.mask+1) * bucketSlots)
	}
	entry := t.dir[h>>t.shift].Load()
	old := ix.segs[segmentID(entry)]
	var to [2]uint32
	depth := old.depth
	n := 1
	if split {
		n, depth = 2, depth+1
	}
	for i := range n {
		id, err := ix.allocate()
		if err != nil {
			if i == 1 {
				ix.free = append(ix.free, to[0])
				ix.noteSpare()
			}
			return err
		}
		to[i] = id
		ix.segs[id] = segment{depth: depth, epoch: ix.epoch}
	}
	t = ix.table.Load()
	slots := t.slots(entry)
	moved := sortOut(slots, depth, split)
	defer moves.Put(moved)
	for side, id := range to[:n] {
		storeAll(t.slots(uint64(id)), moved.slots[side][:])
		ix.segs[id].used = moved.used[side]
	}
	for _, pos := range moved.rest {
		home, side := origin(slots, int(pos), depth, split)
		if id := to[side]; !ix.insert(id, t.slots(uint64(id)), home, slots[pos]) {
			if err := ix.strand(slots[pos]); err != nil {
				return err
			}
		}
	}
	if split {
		bit := uint64(1) << (64 - depth)
		ix.point(t, h&^bit, depth, to[0])
		ix.point(t, h|bit, depth, to[1])
	} else {
		ix.point(t, h, depth, to[0])
	}
	ix.retire(segmentID(entry))
	return nil
}

// move is where the slots of one segment go in two others, or in one.
type move struct {
	rest  []uint16 // positions of those whose home bucket has no room
	slots [2][segmentSlots]uint64
	used  [2]int32
	inUse [2][segmentSlots / bucketSlots]uint8 // slots in use of each bucket
}

// moves are of segments that were rewritten, to be used again.
var moves = sync.Pool{New: func() any { return new(move) }}

// sortOut puts slots into the home buckets that they have in one segment, or, if split,
// in two of the given depth. That is most of what a split costs, and is done in memory
// that nobody else reads.
func sortOut(slots []uint64, depth uint8, split bool) *move {
	m := moves.Get().(*move)
	rest := m.rest[:0]
	*m = move{}
	for pos, slot := range slots {
		if slot <= marker {
			continue
		}
		home, side := origin(slots, pos, depth, split)
		n := m.inUse[side][home]
		if n == bucketSlots {
			rest = append(rest, uint16(pos))
			continue
		}
		m.slots[side][home*bucketSlots+uint64(n)] = slot &^ (3 << dispShift)
		m.inUse[side][home]++
		m.used[side]++
	}
	m.rest = rest
	return m
}

// origin returns the home bucket of the slot at pos, and, if its segment splits, in which
// of the two, of the given depth, it comes to lie.
func origin(slots []uint64, pos int, depth uint8, split bool) (home, side uint64) {
	if split {
		side = slots[pos] >> (64 - depth) & 1
	}
	return homeOf(slots, pos), side
}

// homeOf returns the home bucket of the slot at pos of a segment.
func homeOf(slots []uint64, pos int) uint64 {
	return (uint64(pos/bucketSlots) - slots[pos]>>dispShift&3) & uint64(len(slots)/bucketSlots-1)
}

// strand puts a slot that fits nowhere in its new segment (the order in which
// slots are moved is not the order in which they came) into the overflow index.
func (ix *index) strand(slot uint64) error {
	off := int64(slot&offMask) << 3
	if !ix.tagIs(slot, off) {
		return changedAt(off)
	}
	ix.added-- // overflow counts it again
	key, _ := ix.log.key(off)
	return ix.overflow(key, off)
}

// enlarge moves the one small segment to one with so many slots. Where home is,
// depends on more bits of the hash than a slot has, so it reads the keys: at
// most a few thousand, once. A slot whose record has changed goes to each home that
// it may have, so that a lookup comes by it and knows.
func (ix *index) enlarge(slots int) error {
	t := ix.table.Load()
	chunks := []chunk{{}}
	switch {
	case slots < segmentSlots:
		chunks[0].words = make([]uint64, slots)
	case len(ix.ready) > 0:
		chunks = ix.ready
	default:
		var err error
		if chunks[0], err = ix.more(false); err != nil {
			return err
		}
	}
	t2 := newTable(0, slots, chunks)
	t2.dir[0].Store(t.dir[0].Load() & unloaded) // see point
	old := t.slots(0)
	seg := ix.segs[0]
	ix.segs[0] = segment{epoch: ix.epoch}
	for pos, slot := range old {
		if slot <= marker {
			continue
		}
		off := int64(slot&offMask) << 3
		if !ix.tagIs(slot, off) {
			home := homeOf(old, pos)
			for ; home <= t2.mask; home += t.mask + 1 {
				if !ix.insert(0, t2.slots(0), home, slot) {
					ix.segs[0] = seg
					return changedAt(off)
				}
			}
			continue
		}
		key, _ := ix.log.key(off)
		if !ix.insert(0, t2.slots(0), ix.hash.sum(key), slot) {
			if err := ix.strand(slot); err != nil {
				ix.segs[0] = seg
				return err
			}
		}
	}
	ix.table.Store(t2)
	if !t2.small() {
		ix.ready = nil
		ix.noteSpare()
	}
	return nil
}
