package kv

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/internal/prefetch"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// mapping resolves offsets of one file to bytes. It never changes but for growth:
// what was readable stays readable as long as the generation is reachable.
type mapping struct {
	current atomic.Pointer[mmapfile.Mapping]
}

// payload returns the payload of the record at off. The record was verified when
// it came into the index, so only the bounds are looked at.
func (m *mapping) payload(off int64) ([]byte, bool) {
	// Loaded after the offset was: growth is published before the records in it.
	return crc.Payload(m.current.Load().Bytes(), off)
}

func (m *mapping) keyIs(off int64, key []byte) bool {
	log := m.current.Load().Bytes()
	if off < int64(len(log)) {
		// The value is wanted next: its cache misses go beside the key's.
		prefetch.Behind(&log[off])
	}
	p, ok := crc.Payload(log, off) // payload, inlined
	return ok && codec.HasKey(p, key)
}

// key returns the key of the record at off, which is in the index.
func (m *mapping) key(off int64) (key []byte, ok bool) {
	p, ok := m.payload(off)
	if !ok {
		return nil, false
	}
	return codec.Key(p)
}

// generation is one file and what is derived from it. Readers hold on to it for
// as long as they read: the garbage collector unmaps it after the last of them.
type generation struct {
	file   file
	mapped *mmapfile.File // the file's; immutable
	header crc.Header     // immutable
	log    mapping
	index  *index

	// end is one past the last published record, and revision that record's.
	// end is stored first: whoever loads revision and then end has an end that
	// covers it. Written by the writer, under Store.mu and index.mu.
	end      atomic.Int64
	revision atomic.Uint64
	foretold atomic.Uint64 // of a Shared store: the end that this handle published last, or is about to

	last    int64        // offset of the last record, 0: there is none; guarded by index.mu
	live    atomic.Int64 // bytes of live records, and of those that notes will replace; written under index.mu
	count   atomic.Int64 // records in the log; written under Store.mu
	mortal  atomic.Int64 // bytes of all records with a deadline; written under Store.mu
	countAt atomic.Int64 // end at which to count what has expired

	// applying is the transaction whose slots are being stored: until they all
	// are, readers see the keys as they were before. nil most of the time.
	applying atomic.Pointer[before]

	joined      bool                     // this handle has share and presence of the file; guarded by Store.mu
	synced      atomic.Int64             // bytes of the file that were synced; owned by the sync leader
	marking     atomic.Pointer[crc.Mark] // the next mark, of a Shared store; nil: none is to be stored
	marks       atomic.Uint64            // counts the durable marks, its lowest bit the slot of the next; written by the sync leader, of a Shared store in a turn
	marksSynced uint64                   // marks when they were durable last; owned by the sync leader

	// passed are ends of the log as they were: the second was the tail not long ago, the
	// first lies a stretch or more behind that. Guarded by index.mu.
	passed [2]point

	// sealing is held, with Options.SyncAligned, while a record is placed and stored,
	// and while a sync takes note of where the log ends.
	sealing sync.Mutex
	sealed  int64 // guarded by sealing: where the log ended when a sync last began

	// The records below unverified came into the index with a checkpoint, and their
	// sums have not been looked at since: 0 once they all have. Written by verifyRest.
	unverified       atomic.Int64
	checkpoint       atomic.Int64 // end of what the checkpoint beside the file covers; 0: there is none
	checkpointAt     atomic.Int64 // end at which the next one is due
	checkpointSynced bool         // owned by whoever takes a checkpoint
	// The checkpoint that the index came from has damaged segments: Close leaves another.
	checkpointDamaged atomic.Bool

	growing   sync.Mutex          // one growth at a time
	outgrown  []*mmapfile.Mapping // guarded by growing: kept for readers that hold only the generation
	populated int64               // guarded by growing: the pages up to it have been faulted in, or are about to be
	aheadAt   atomic.Int64        // the end at which to look ahead again

	missing []Range  // damaged bytes that a salvage passed over; immutable after Open
	reached []uint64 // the revision before each of missing; immutable after Open
}

// point is where the log ended once, and the revision that the store had then.
type point struct {
	end      int64
	revision uint64
}

// before tells where the record of each key of a transaction was before it. It is
// immutable once readers see it.
type before struct {
	at  map[string]int // key -> its place in off
	off []int64        // 0: there was none
}

// note notes where the record of key is.
func (b *before) note(g *generation, key []byte) {
	off := g.find(g.index.hash.sum(key), key)
	if i, ok := b.at[string(key)]; ok {
		b.off[i] = off
		return
	}
	b.at[string(key)] = len(b.off)
	b.off = append(b.off, off)
}

func newGeneration(f file, h crc.Header) *generation {
	g := &generation{file: f, mapped: f.mapped(), header: h}
	g.log.current.Store(f.Mapping())
	g.index = newIndex(&g.log, hasher{stored: h.HashSeed})
	g.end.Store(crc.HeaderSize)
	g.revision.Store(h.BaseRevision)
	g.synced.Store(crc.HeaderSize)
	g.aheadAt.Store(f.Size() - f.Size()/4)
	return g
}

// find returns the offset of the current record of key, or 0, or what index.find
// returns for a record that has changed.
func (g *generation) find(h uint64, key []byte) int64 {
	off := g.index.find(h, key)
	// A slot of a transaction can only have been seen after applying was set, so
	// that nil here means that none or all of it was.
	if b := g.applying.Load(); b != nil {
		if i, ok := b.at[string(key)]; ok {
			return b.off[i]
		}
	}
	return off
}

// seal returns what a sync that begins now is to cover. With Options.SyncAligned
// nothing more will be stored into the pages of that.
func (g *generation) seal(aligned bool) (end int64, revision uint64) {
	if aligned {
		g.sealing.Lock()
		defer g.sealing.Unlock()
		g.sealed = g.end.Load()
	}
	revision = g.revision.Load()
	return g.end.Load(), revision
}

// place returns where the next record goes: to the tail, or, if that has been
// sealed, to the next page. The caller holds mu, and sealing if records are aligned.
func (g *generation) place() int64 {
	end := g.end.Load()
	if end == g.sealed {
		return pageCeil(end)
	}
	return end
}

func pageCeil(off int64) int64 { return (off + crc.Page - 1) &^ (crc.Page - 1) }

// bytes returns the file's mapped bytes, which are valid as long as g is reachable.
func (g *generation) bytes() []byte { return g.log.current.Load().Bytes() }

// publish makes the log end at end for readers in every process.
func (g *generation) publish(end int64, revision uint64) {
	g.tailWord().Store(uint64(end))
	g.end.Store(end)
	g.revision.Store(revision)
	g.wake()
}

// pass notes where the log ends, once in a stretch of so many bytes. The caller holds
// index.mu.
func (g *generation) pass(stretch int64) {
	if end := g.end.Load(); end-g.passed[1].end >= stretch {
		g.passed[0], g.passed[1] = g.passed[1], point{end, g.revision.Load()}
	}
}

// behind returns where the log ended a stretch or more ago, if two thirds or more of
// what is not synced lie before that.
func (g *generation) behind() (p point, ok bool) {
	g.index.mu.Lock()
	p = g.passed[0]
	g.index.mu.Unlock()
	return p, p.end-g.synced.Load() >= 2*(g.end.Load()-p.end)
}

// touchTail stores to the page of the tail word what is there. Where no store to it is
// possible (a copy-on-write disk is full), that shows before the index has changed,
// and not when it says what the log does not.
func (g *generation) touchTail() { g.tailWord().Add(0) }

// enter makes the index agree with the record of e, which is at off and takes
// size bytes. The caller holds index.mu.
func (g *generation) enter(e *codec.Entry, h uint64, off, size int64) error {
	var live, mortal int64
	replaced, err := g.index.apply(e.Kind, h, e.Key, off)
	if err == nil && e.Kind != codec.Delete {
		live = size
		if e.Expiry != 0 {
			mortal = size
		}
	}
	g.book(live-replaced, mortal, 1, off)
	return err
}

// book counts records that were entered: so many, of so many live bytes more, and so many
// with a deadline, the last of them at off. The caller holds index.mu.
func (g *generation) book(live, mortal, count, last int64) {
	g.index.count()
	if live != 0 {
		g.live.Add(live)
	}
	if mortal != 0 {
		g.mortal.Add(mortal)
	}
	g.count.Add(count)
	g.last = last
}

// tailWord is the published tail as other processes see it.
func (g *generation) tailWord() *atomic.Uint64 {
	return g.log.current.Load().Word(crc.TailOff)
}

// word returns what the tail word says.
func (g *generation) word() (word uint64, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	return g.tailWord().Load(), nil
}

// remap takes over the mapping of a file that has grown. The caller holds
// g.growing.
func (g *generation) remap() {
	m := g.file.Mapping()
	if old := g.log.current.Swap(m); old != m {
		g.outgrown = append(g.outgrown, old)
	}
}

func (g *generation) dead() int64 { return g.end.Load() - crc.HeaderSize - g.live.Load() }

// clock tells the time that entries are stamped with and that deadlines are
// compared with. It never goes back: neither within a process nor behind the
// newest stamp in the file, so that a clock set back revives nothing.
type clock struct {
	newest atomic.Int64 // unix milliseconds
}

// stamp returns the time of the last tick, in unix seconds.
func (c *clock) stamp() int64 { return c.newest.Load() / 1000 }

// seen makes the clock at least a stamp.
func (c *clock) seen(stamp int64) { c.advance(max(0, min(stamp, math.MaxInt64/1000)) * 1000) }

// tick makes the clock at least the present.
func (c *clock) tick() { c.advance(time.Now().UnixMilli()) }

func (c *clock) advance(ms int64) {
	for {
		newest := c.newest.Load()
		if ms <= newest || c.newest.CompareAndSwap(newest, ms) {
			return
		}
	}
}

// now returns the time in unix milliseconds.
func (c *clock) now() int64 { return max(time.Now().UnixMilli(), c.newest.Load()) }

// expired tells whether a deadline, in unix milliseconds, has passed. 0 never does;
// what once has, has for ever.
func (c *clock) expired(deadline int64) bool {
	if deadline == 0 || deadline > c.now() {
		return false
	}
	c.advance(deadline)
	return true
}
