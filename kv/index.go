package kv

import (
	"hash/maphash"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/internal/invariants"
	"github.com/mmapkv/mmapkv/internal/prefetch"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// The index maps a key to the offset of the record that holds its newest entry.
//
// Terminology.
//   - slot: 8 bytes, { tag:22 | displacement:2 | offset/8:40 }. The tag is the top
//     22 bits of the key's hash. The key itself stands only in the record.
//   - bucket: 8 slots, one cache line.
//   - segment: a power of two of buckets, 512 once the index has left its first,
//     growing segment. A key's home bucket is given by the low bits of its hash;
//     where that is full the slot goes into one of the next three, and the
//     displacement says how far from home it is. Where those are full too, slots
//     make room by moving on towards the next bucket that is not (hopscotch).
//   - directory: the top `depth` bits of the hash choose an entry, the entry names
//     a segment. Segments split one at a time (extendible hashing), so that no
//     Put ever waits for more than one segment to be rewritten.
//
// Slots hold no pointers and live outside the heap (the first, small segment
// aside), so that a garbage collection costs the same at any number of keys.
//
// Why a reader needs no lock:
//  1. A slot is one word, stored and loaded atomically; so is a directory entry.
//  2. A hit is proved by the key in the record, never by the tag alone. Whatever
//     segment the slot was read from, it was the key's current slot at some
//     moment of the lookup: a segment in the directory holds current slots; a
//     replaced segment held them until the replacement, which came after the
//     lookup had begun; and a recycled segment is filled with current slots only.
//  3. A miss is believed only if the directory entry, which counts its changes,
//     and the table are still the ones that the lookup started from. Otherwise it
//     starts again. Slots move into fresh segments; or on to a later bucket of
//     their probe, where the copy is stored before the original goes. A probe looks
//     at the buckets in that order, so that it meets one of the two.
//  4. An empty slot ends a probe: a bucket with an empty slot never had a slot
//     displaced past it. So a slot that is deleted or moved from a full bucket
//     leaves a marker; markers go when the segment is rewritten.
//  5. A segment that still lies in a checkpoint has a bit in its directory entry.
//     Who sees the bit waits until the segment is loaded, with what was noted for it,
//     and looks again.
const (
	offBits   = 40
	offMask   = 1<<offBits - 1
	tagShift  = 64 - 22
	dispShift = offBits
	marker    = 1 // a deleted slot: offset 8 lies in the file header, no record is there

	bucketSlots   = 8
	maxProbe      = 4
	maxReach      = 32 // buckets from home in which room for a slot is looked for
	segmentBits   = 12
	segmentSlots  = 1 << segmentBits
	smallestSlots = 64
	maxDepth      = 22 // the tag's bits: beyond it a split could not tell two keys apart
	chunkSegments = 64 // 2 MiB, a huge page

	maxFileSize = crc.MaxOff // as an offset divided by 8 has offBits bits
)

type index struct {
	log  *mapping                       // resolves an offset to its key
	more func(huge bool) (chunk, error) // newChunk, or what a test puts in its place
	hash hasher                         // immutable
	keys atomic.Int64                   // slots in use, overflow included

	table atomic.Pointer[table]

	// over takes the keys whose buckets are full though their segment is not:
	// by chance that never happens, so somebody chose the keys. It hashes with a
	// seed that nobody can know. nil until needed, and never nil again.
	over atomic.Pointer[index]

	atHand atomic.Int64 // spare, as of its last change; stored under mu; 0 while the index is small
	noted  atomic.Int64 // segments with notes; stored under mu; with any, keys is not exact

	mu        sync.Mutex  // excludes snapshots from changes
	ready     []chunk     // guarded by mu: for the step out of the heap, when it may come
	saved     *saved      // guarded by mu: the checkpoint that the rest is loaded from; nil: all is there
	segs      []segment   // by id; changed by the writer under mu, who may read it without
	free      []uint32    // guarded by mu: segments to use again
	epoch     uint64      // guarded by mu: of the next snapshot
	snapshots []*snapshot // guarded by mu: those alive, oldest first
	retired   []retired   // guarded by mu: segments that only snapshots hold
	added     int64       // guarded by mu: what keys lacks until count: an atomic counter costs as much as a slot
	writes    uint64      // guarded by mu: counted by mustHold
}

// segment is what the writer knows of a segment beside its slots.
type segment struct {
	depth uint8  // leading hash bits that all its keys share
	used  int32  // slots in use
	marks int32  // markers
	epoch uint64 // of the next snapshot when it was filled: older snapshots do not see it
}

type retired struct {
	id          uint32
	born, until uint64 // the epochs in which it was current
}

// table is how the slots are reached. It is immutable but for the directory's
// entries; a larger directory or one more chunk makes a new table.
type table struct {
	dir    []atomic.Uint64 // changes<<32 | segment id
	shift  uint            // 64 - depth of the directory
	mask   uint64          // buckets of a segment - 1
	chunks []chunk
}

// chunk is the memory of chunkSegments segments.
type chunk struct {
	words  []uint64
	region *mmapfile.Region // nil: words are heap memory
}

// hasher hashes keys, with a seed that is kept in the file header or with one
// that lives as long as the process.
type hasher struct {
	stored uint64
	own    maphash.Seed
	useOwn bool
}

func (hr *hasher) sum(key []byte) uint64 {
	if hr.useOwn {
		return skew(maphash.Bytes(hr.own, key))
	}
	return hr.mix(xxhash.Sum64(key))
}

// mix returns what sum does for a key with that XXH64.
func (hr *hasher) mix(h uint64) uint64 {
	// One multiplication spreads the seed over all bits; that crafted keys may
	// collide all the same is what index.over is for.
	hi, lo := bits.Mul64(h^hr.stored, 0x9E3779B97F4A7C15)
	return skew(hi ^ lo)
}

// skew maps the upper half of a hash, x in [0, 1), to x + x(1-x)/3. Segments whose
// hashes begin with ones then take in keys twice as fast as those with zeros, and
// in between so that at any size as many are about to split as at any other. With
// an even spread all would split at once, and half of the slots be empty after it.
func skew(h uint64) uint64 {
	x := h >> 32
	return (x+x*(1<<32-x)>>32*(1<<32/3)>>32)<<32 | h&(1<<32-1)
}

func newIndex(log *mapping, hr hasher) *index {
	ix := &index{log: log, more: newChunk, hash: hr, epoch: 1, segs: make([]segment, 1)}
	ix.segs[0].epoch = 1
	ix.table.Store(newTable(0, smallestSlots, []chunk{{words: make([]uint64, smallestSlots)}}))
	return ix
}

func newTable(depth uint, slots int, chunks []chunk) *table {
	return &table{
		dir:    make([]atomic.Uint64, 1<<depth),
		shift:  64 - depth,
		mask:   uint64(slots/bucketSlots - 1),
		chunks: chunks,
	}
}

// segmentID returns which segment a directory entry names.
func segmentID(entry uint64) uint32 { return uint32(entry) &^ unloaded }

func (t *table) slots(entry uint64) []uint64 {
	id := segmentID(entry)
	base := int(id%chunkSegments) << segmentBits
	return t.chunks[id/chunkSegments].words[base : base+int(t.mask+1)*bucketSlots]
}

// entries returns the directory's entries of all hashes that share h's first depth bits.
func (t *table) entries(h uint64, depth uint8) []atomic.Uint64 {
	width := len(t.dir) >> depth
	first := int(h>>t.shift) &^ (width - 1)
	return t.dir[first : first+width]
}

// home returns a word of the home bucket of h in the segment of a directory entry: to
// touch it.
func (t *table) home(entry, h uint64) uint64 {
	id := segmentID(entry)
	base := int(id%chunkSegments) << segmentBits
	return atomic.LoadUint64(&t.chunks[id/chunkSegments].words[base+int(h&t.mask)*bucketSlots])
}

// find returns the offset of the record with key, whose hash is h, or 0; or, where
// that cannot be told because a record has changed beneath the index, the changed
// record's offset, negated. It takes no lock and never waits.
func (ix *index) find(h uint64, key []byte) int64 {
	for {
		t := ix.table.Load()
		entry := t.dir[h>>t.shift].Load()
		if entry&unloaded != 0 {
			if off := ix.ensure(h); off != 0 {
				return off
			}
			continue
		}
		pos, off := ix.probe(t, t.slots(entry), h, key)
		if pos >= 0 {
			return off
		}
		if over := ix.over.Load(); over != nil {
			if off := over.find(over.hash.sum(key), key); off != 0 {
				return off
			}
		}
		if t.dir[h>>t.shift].Load() == entry && ix.table.Load() == t {
			return off
		}
	}
}

// probe looks for key in the slots of its segment: position and offset, or -1 and
// what find returns for a key that is not there.
func (ix *index) probe(t *table, slots []uint64, h uint64, key []byte) (int, int64) {
	missed := int64(0)
	for d := uint64(0); d < maxProbe; d++ {
		at := int((h+d)&t.mask) * bucketSlots
		bucket := (*[bucketSlots]uint64)(slots[at : at+bucketSlots])
		for found := matches(bucket, h>>tagShift<<2|d); found != 0; found &= found - 1 {
			i := bits.TrailingZeros8(found) % bucketSlots
			slot := atomic.LoadUint64(&bucket[i])
			off := int64(slot&offMask) << 3
			switch {
			case off <= marker<<3:
			case ix.log.keyIs(off, key):
				return at + i, off
			case !ix.tagIs(slot, off):
				missed = -off
			}
		}
		if hasEmpty(bucket) {
			break
		}
	}
	return -1, missed
}

// matches returns which slots of a bucket, as bits, have a tag and displacement. There is no
// branch in it, since which slot it is cannot be predicted.
func matches(bucket *[bucketSlots]uint64, want uint64) uint8 {
	return uint8(match(&bucket[0], want) | match(&bucket[1], want)<<1 | match(&bucket[2], want)<<2 | match(&bucket[3], want)<<3 |
		match(&bucket[4], want)<<4 | match(&bucket[5], want)<<5 | match(&bucket[6], want)<<6 | match(&bucket[7], want)<<7)
}

// match returns 1 for a slot with that tag and displacement, else 0: a number below
// 2^63 less one has the top bit only if it was 0.
func match(slot *uint64, want uint64) uint64 {
	return ((atomic.LoadUint64(slot)>>dispShift ^ want) - 1) >> 63
}

func hasEmpty(bucket *[bucketSlots]uint64) bool {
	for i := range bucket {
		if atomic.LoadUint64(&bucket[i]) == 0 {
			return true
		}
	}
	return false
}

// tagIs tells whether the record at off, which slot names, has a key of the slot's
// tag. It always has, unless the file was changed beneath: a key that is not found
// then may be the one that was there.
func (ix *index) tagIs(slot uint64, off int64) bool {
	k, ok := ix.log.key(off)
	return ok && ix.hash.sum(k)>>tagShift == slot>>tagShift
}

// hint returns the offset that the first slot with h's tag names, or 0: very
// likely the record, to be touched ahead of find. It touches the home bucket.
func (ix *index) hint(h uint64) int64 {
	t := ix.table.Load()
	entry := t.dir[h>>t.shift].Load()
	if entry&unloaded != 0 {
		return 0
	}
	slots := t.slots(entry)
	at := int(h&t.mask) * bucketSlots
	bucket := (*[bucketSlots]uint64)(slots[at : at+bucketSlots])
	for i := range bucket {
		slot := atomic.LoadUint64(&bucket[i])
		if slot>>dispShift == h>>tagShift<<2 && slot&offMask > marker {
			return int64(slot&offMask) << 3
		}
	}
	return 0
}

// prefetch asks for the home bucket of h, and does not wait for it.
func (ix *index) prefetch(h uint64) {
	t := ix.table.Load()
	prefetch.Read(&t.slots(t.dir[h>>t.shift].Load())[int(h&t.mask)*bucketSlots])
}

// put makes the slot of key name off, and returns the offset that it named
// before, or 0. It fails only for want of memory (see reserve), having changed
// nothing, and where a segment that has not been loaded cannot be (see ensure). The
// caller holds mu.
func (ix *index) put(h uint64, key []byte, off int64) (int64, error) {
	if off <= marker<<3 || off >= maxFileSize || off%8 != 0 {
		panic("mmapkv: offset outside of the index's range")
	}
	if off := ix.load(h); off != 0 {
		return 0, changedAt(-off)
	}
	t, _, slots := ix.own(h)
	if pos, old := ix.probe(t, slots, h, key); pos >= 0 {
		atomic.StoreUint64(&slots[pos], slots[pos]&^offMask|uint64(off)>>3)
		return old, nil
	}
	if over := ix.over.Load(); over != nil {
		if oh := over.hash.sum(key); over.find(oh, key) > 0 {
			over.mu.Lock()
			defer over.mu.Unlock()
			return over.put(oh, key, off)
		}
	}
	return 0, ix.add(h, key, off)
}

// add is put of a key that is in no slot, in a segment that is loaded.
func (ix *index) add(h uint64, key []byte, off int64) error {
	for {
		_, id, slots := ix.own(h)
		if ix.insert(id, slots, h, h>>tagShift<<tagShift|uint64(off)>>3) {
			ix.added++
			return nil
		}
		switch grown, err := ix.relieve(h); {
		case err != nil:
			return err
		case !grown:
			return ix.overflow(key, off)
		}
	}
}

// remove takes the slot of key away and returns the offset it named, or 0. The
// caller holds mu.
func (ix *index) remove(h uint64, key []byte) (int64, error) {
	if off := ix.load(h); off != 0 {
		return 0, changedAt(-off)
	}
	t, id, slots := ix.own(h)
	pos, off := ix.probe(t, slots, h, key)
	if pos < 0 {
		over := ix.over.Load()
		if over == nil {
			return 0, nil
		}
		over.mu.Lock()
		defer over.mu.Unlock()
		off, err := over.remove(over.hash.sum(key), key)
		over.count()
		if off != 0 {
			ix.added--
		}
		return off, err
	}
	left := uint64(marker)
	bucket := pos / bucketSlots * bucketSlots
	for _, slot := range slots[bucket : bucket+bucketSlots] {
		if slot == 0 {
			left = 0
		}
	}
	ix.vacate(id, slots, pos, left)
	ix.added--
	if int(ix.segs[id].marks) > len(slots)/4 {
		return off, ix.rewrite(h, false)
	}
	return off, nil
}

// apply makes the index agree with a record of key at off, the newest there is, and returns
// how long the record is that it replaces, or 0. It fails as put and remove do. The caller
// holds mu.
func (ix *index) apply(kind codec.Kind, h uint64, key []byte, off int64) (replaced int64, err error) {
	var old int64
	if kind == codec.Delete {
		old, err = ix.remove(h, key)
	} else {
		old, err = ix.put(h, key, off)
	}
	if old != 0 {
		p, _ := ix.log.payload(old)
		replaced = crc.RecordSize(len(p))
	}
	return replaced, err
}

// count has keys say what was put and removed. Who did that calls it, once for many, before
// giving mu back.
func (ix *index) count() {
	if ix.added != 0 {
		ix.keys.Add(ix.added)
		ix.added = 0
	}
}

// overflow puts a key that is in no slot yet into the overflow index.
func (ix *index) overflow(key []byte, off int64) error {
	over := ix.over.Load()
	if over == nil {
		over = newIndex(ix.log, hasher{own: maphash.MakeSeed(), useOwn: true})
		ix.over.Store(over)
	}
	over.mu.Lock()
	defer over.mu.Unlock()
	if _, err := over.put(over.hash.sum(key), key, off); err != nil {
		return err
	}
	over.count()
	ix.added++
	return nil
}

// bytes returns the memory that the slots take, in use or set aside for the
// next segments.
func (ix *index) bytes() int64 {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	t := ix.table.Load()
	n := int64(len(t.dir)) * 8
	for _, c := range t.chunks {
		n += int64(len(c.words)) * 8
	}
	if over := ix.over.Load(); over != nil {
		n += over.bytes()
	}
	return n
}

// check compares the index with itself and returns what does not fit. The
// caller holds mu.
func (ix *index) check() (violations []string) {
	t := ix.table.Load()
	total := int64(0)
	for i := 0; i < len(t.dir); {
		id := uint32(t.dir[i].Load())
		violations = append(violations, ix.checkSegment(t, i)...)
		total += int64(ix.segs[id].used)
		i += len(t.dir) >> ix.segs[id].depth
	}
	if over := ix.over.Load(); over != nil {
		over.mu.Lock()
		violations = append(violations, over.check()...)
		over.mu.Unlock()
		total += over.keys.Load()
	}
	if ix.added != 0 || total != ix.keys.Load() {
		violations = append(violations, "the index counts its keys wrongly")
	}
	return violations
}

// checkSegment checks the segment that entry i of the directory names.
func (ix *index) checkSegment(t *table, i int) (violations []string) {
	entry := t.dir[i].Load()
	seg, slots := ix.segs[uint32(entry)], t.slots(entry)
	used, marks := int32(0), int32(0)
	for pos, slot := range slots {
		if slot == marker {
			marks++
		}
		if slot <= marker {
			continue
		}
		used++
		if slot>>(64-seg.depth) != uint64(i)>>(64-t.shift-uint(seg.depth)) {
			violations = append(violations, "a slot lies in the segment of another hash prefix")
		}
		for back := slot >> dispShift & 3; back > 0; back-- {
			at := int((uint64(pos/bucketSlots)-back)&t.mask) * bucketSlots
			if slices.Contains(slots[at:at+bucketSlots], 0) {
				violations = append(violations, "a slot was displaced past a bucket with an empty slot")
			}
		}
	}
	if used != seg.used || marks != seg.marks {
		violations = append(violations, "a segment counts its slots wrongly")
	}
	return violations
}

// mustHold panics if something does not fit in the segment of h, in builds that check
// invariants: after each write to a small index, and one of 16 to another, where a check
// takes many times as long as the write. The caller holds mu.
func (ix *index) mustHold(h uint64) {
	if !invariants.Enabled {
		return
	}
	if ix.writes++; ix.writes%16 != 0 && ix.keys.Load() > 4*segmentSlots {
		return
	}
	t := ix.table.Load()
	if v := ix.checkSegment(t, int(h>>t.shift)); len(v) > 0 {
		panic("mmapkv: index: " + v[0])
	}
}
