package kv

import (
	"bytes"
	"iter"
	"math/bits"
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/internal/prefetch"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// liveWalk finds the entries that were current in a view, in the order of the log. It
// takes from the slots where they are, and reads no dead record:
//
//   - The slots come in the order of their hashes. They are counted by stretch of the log,
//     and then each is put behind the others of its stretch, as a word: where in the
//     stretch the record begins, and the first bits of the tag. That is two passes
//     through the index.
//   - When the walk comes to a stretch, its words, which fit into the innermost cache, are
//     sorted, and the records read.
//
// A loop that is left early shall not pay for that: the first records are looked up one
// by one, unless the walk is thorough.
type liveWalk struct {
	v       *view
	prefix  []byte // other keys are passed over
	trusted bool   // look at no sum
	window  int64  // bytes of the log whose slots are taken at once

	start    int64 // offset in the log of the first record
	thorough bool  // it will hardly be left early

	left int64 // keys that have not been met
	off  int64 // of the record that was read last
	err  error // why that cannot be read

	// ends tells where the words of each stretch of the window end. The last one is of
	// what is no slot of the window.
	ends  []uint32
	words []uint32
	table *[stretchUnits]uint32 // for sortStretch; nil until words are gathered

	batch  [cursorBatch]liveEntry
	n      int // of batch
	hashes [cursorBatch]uint64
}

// liveEntry is an entry that was current.
type liveEntry struct {
	off    int64 // of its record
	key    []byte
	value  []byte
	expiry int64
}

const (
	stretchBits  = 12 // of an offset / 8, within the stretch
	stretchUnits = 1 << stretchBits
	stretchLen   = stretchUnits << 3

	// The tag's bits in a word. 2 of the 22 are left out: that a changed key goes unseen
	// is four times as likely as in a lookup, one in a million.
	wordTagBits = 32 - stretchBits
	wordTagMask = 1<<wordTagBits - 1

	// liveWindow makes for 4 MiB of ends and 4 bytes of words a key. A longer log takes two
	// passes through the index for each window.
	liveWindow = stretchLen << 20

	// firstShare of all keys is how many records are looked up one by one.
	firstShare = 256

	// readAhead is how many records ahead of the one that is read memory is asked for: an
	// entry took 35 ns with 12 to 24, and 39 without.
	readAhead = 12
)

// newLiveWalk checks the sum of each record unless trusted.
func newLiveWalk(v *view, prefix []byte, trusted bool) *liveWalk {
	return &liveWalk{v: v, prefix: prefix, trusted: trusted, window: liveWindow, start: crc.HeaderSize, left: v.keys}
}

// batches yields the entries, which alias the mapping. It ends early with err set, if the
// record at off cannot be read.
func (w *liveWalk) batches() iter.Seq[[]liveEntry] {
	return func(yield func([]liveEntry) bool) {
		from, ok := w.start, true
		if !w.thorough {
			from, ok = w.first(yield)
		}
		for ; ok && from < w.v.end; from += w.window {
			w.gather(from)
			ok = w.holds() && w.readWindow(from, yield)
		}
		// Each slot that was gathered is of a record that was read, or else err is set. A
		// slot that was not has lost its record among the first.
		if ok && !w.thorough && w.left != 0 {
			w.off, w.err = w.v.end, errChanged
		}
	}
}

// holds tells whether what was taken from the snapshot was right.
func (w *liveWalk) holds() bool {
	if w.v.snap.isBroken() {
		w.err = errBroken
	}
	return w.err == nil
}

// first looks up the first records of the log. It returns where those end.
func (w *liveWalk) first(yield func([]liveEntry) bool) (end int64, ok bool) {
	cur := newCursor(w.v.g, w.v.end, w.trusted).at(w.v.snap)
	for walked := int64(0); walked <= w.v.keys/firstShare; {
		items, err := cur.next()
		if w.off, w.err = cur.scan.off, err; err != nil {
			return 0, false
		}
		if len(items) == 0 {
			break
		}
		walked += int64(len(items))
		w.n = 0
		for i := range items {
			it := &items[i]
			if !it.live() {
				continue
			}
			w.left--
			if e := &it.entry; bytes.HasPrefix(e.Key, w.prefix) {
				w.batch[w.n] = liveEntry{it.off, e.Key, e.Value, e.Expiry}
				w.n++
			}
		}
		if !w.holds() || !yield(w.batch[:w.n]) {
			return 0, false
		}
	}
	return cur.scan.off, true
}

// gather takes the slots of the window that begins at from. After the last window it
// ends the snapshot.
func (w *liveWalk) gather(from int64) {
	count := int((min(w.window, w.v.end-from) + stretchLen - 1) / stretchLen)
	w.ends = slices.Grow(w.ends[:0], count+1)[:count+1]
	clear(w.ends)
	ends, first := w.ends, uint64(from)>>3
	// No jump depends on what a word of the index is, for no processor can foretell
	// that. An empty slot and a marker are before every window, and so, as a difference
	// without a sign, behind it.
	for slots := range w.v.snap.slots() {
		for i := range slots {
			unit := atomic.LoadUint64(&slots[i])&offMask - first
			ends[min(unit>>stretchBits, uint64(count))]++
		}
	}
	total := uint32(0)
	for i, n := range ends {
		ends[i] = total
		total += n
	}
	total = ends[count]
	if w.table == nil {
		w.table = new([stretchUnits]uint32)
	}
	if cap(w.words) <= int(total) {
		w.words = make([]uint32, total+1) // slices.Grow would clear it once more
	}
	w.words = w.words[:total+1]
	words := w.words
	for slots := range w.v.snap.slots() {
		for i := range slots {
			slot := atomic.LoadUint64(&slots[i])
			unit := slot&offMask - first
			end := &ends[min(unit>>stretchBits, uint64(count))]
			at := min(*end, total) // beyond it lies what is no slot, or all, if the snapshot broke just now
			words[at] = uint32(unit)<<wordTagBits | uint32(slot>>(64-wordTagBits))
			*end = at + 1
		}
	}
	if from+w.window >= w.v.end && w.holds() {
		w.v.snap.release() // so that writers copy no segment for it any more
	}
}

// readWindow yields the entries of the window that begins at from.
func (w *liveWalk) readWindow(from int64, yield func([]liveEntry) bool) bool {
	begin := uint32(0)
	for i, end := range w.ends[:len(w.ends)-1] {
		base, words := from+int64(i)*stretchLen, sortStretch(w.words[begin:end], w.table)
		begin = end
		w.left -= int64(len(words))
		for len(words) > 0 {
			w.n = 0
			w.err = w.read(base, words)
			words = words[min(len(words), len(w.batch)):]
			if !yield(w.batch[:w.n]) || w.err != nil {
				return false
			}
		}
	}
	return true
}

// sortStretch sorts the words of a stretch, and returns one for each record: where a
// record was changed beneath, several slots may name it (see index.enlarge).
func sortStretch(words []uint32, table *[stretchUnits]uint32) []uint32 {
	var used [stretchUnits / 64]uint64
	for _, word := range words {
		unit := word >> wordTagBits
		table[unit] = word
		used[unit/64] |= 1 << (unit % 64)
	}
	n := 0
	for i, units := range &used {
		for ; units != 0; units &= units - 1 {
			words[n] = table[i*64+bits.TrailingZeros64(units)]
			n++
		}
	}
	return words[:n]
}

// read reads the records of the first words, of the stretch at base, into the batch. If
// it returns an error, the batch has those before.
func (w *liveWalk) read(base int64, words []uint32) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(w.v.g.mapped, &err)
	log, n, touched := w.v.g.bytes()[:w.v.end], 0, 0
	for ; n < min(len(words), len(w.batch)); n++ {
		w.off = base + int64(words[n]>>wordTagBits)<<3
		if ahead := n + readAhead; ahead < len(words) {
			prefetch.Behind(&log[min(base+int64(words[ahead]>>wordTagBits)<<3, w.v.end-1)])
		}
		if !w.trusted {
			if _, err = crc.Verify(log, w.off, w.v.g.header.Salt); err != nil {
				break
			}
		}
		p, _ := crc.Payload(log, w.off)
		e, ok := &w.batch[n], false
		if e.key, e.value, e.expiry, ok = codec.KeyValue(p); !ok {
			err = errChanged
			break
		}
		e.off = w.off
		if len(w.prefix) == 0 || bytes.HasPrefix(e.key, w.prefix) {
			touched += touch(e.value)
		}
	}
	// By themselves, as a processor overlaps more of the sums the less lies between.
	for i := range n {
		w.hashes[i] = xxhash.Sum64(w.batch[i].key)
	}
	hash := &w.v.g.index.hash
	for i, word := range words[:n] {
		tag := word & wordTagMask
		if uint32(hash.mix(w.hashes[i])>>(64-wordTagBits)) != tag && !w.overflowed(w.batch[i].key, tag) {
			w.off, n, err = base+int64(word>>wordTagBits)<<3, i, errChanged
			break
		}
	}
	w.n = n
	if len(w.prefix) > 0 {
		w.n = len(slices.DeleteFunc(w.batch[:n], func(e liveEntry) bool { return !bytes.HasPrefix(e.key, w.prefix) }))
	}
	runtime.KeepAlive(touched)
	runtime.KeepAlive(w.v.g)
	return err
}

// overflowed tells whether a slot of the overflow index with that tag may be the key's.
func (w *liveWalk) overflowed(key []byte, tag uint32) bool {
	for over := w.v.snap.over; over != nil; over = over.over {
		if uint32(over.ix.hash.sum(key)>>(64-wordTagBits)) == tag {
			return true
		}
	}
	return false
}
