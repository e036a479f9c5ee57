package kv

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

const (
	midExtent    = 8 << 20  // bytes: extents double from minExtent to it,
	maxExtent    = 64 << 20 // and are a 32nd of the file then, up to this
	aheadLazy    = 8 << 20  // bytes faulted in ahead of the tail
	aheadDurable = 1 << 20  // the same where each write is synced
)

// errRevisions: only a file that was made so can come to it.
var errRevisions = fmt.Errorf("%w: the revisions are used up", ErrFull)

// extentAfter is how much a file of the given length grows by: what is ahead of the
// tail is disk that holds nothing.
func extentAfter(size int64) int64 {
	return min(max(min(size, midExtent), size/32, minExtent), maxExtent)
}

// slackAfter is how much of an extent may be left when the next one is allocated.
func slackAfter(size int64) int64 { return extentAfter(size) / 2 }

// room returns where the next size bytes of records go, and sees to it that they fit
// there, and so many keys into the index: after it, a write can fail no more. Almost
// always they do, for the next extent is allocated, mapped and faulted in ahead of
// time. The caller holds mu, and sealing if records are aligned.
func (s *Store) room(g *generation, size int64, keys int) (off int64, err error) {
	if g.revision.Load() > maxRevision-uint64(keys) {
		return 0, errRevisions
	}
	off = g.place()
	end := g.end.Load()
	need := off + size - end
	if need > int64(len(g.bytes()))-end {
		if err := s.grow(g, end, need); err != nil {
			return 0, err
		}
	}
	return off, g.index.reserve(keys)
}

// aheadIfDue starts to look ahead in the background if it is time. The caller holds mu
// and index.mu.
func (s *Store) aheadIfDue(g *generation) {
	if at := g.aheadAt.Load(); g.end.Load() > at || at != math.MaxInt64 && g.index.runsLow() {
		g.aheadAt.Store(math.MaxInt64) // until lookAhead sets it again
		s.spawn(func() { s.lookAhead(g) })
	}
}

// grow makes the file long enough for need bytes behind end: by a whole extent
// if the disk has it.
func (s *Store) grow(g *generation, end, need int64) error {
	g.growing.Lock()
	defer g.growing.Unlock()
	size := g.file.Size()
	if need <= int64(len(g.bytes()))-end {
		return nil // lookAhead was first
	}
	if need > s.opts.MaxSize-end {
		return fmt.Errorf("%w: the file would grow beyond Options.MaxSize, %d bytes", ErrFull, s.opts.MaxSize)
	}
	least := min(pageCeil(end+need), s.opts.MaxSize)
	err := s.growFile(g, max(least, min(size+extentAfter(size), s.opts.MaxSize)))
	if errors.Is(err, mmapfile.ErrNoSpace) {
		err = s.growFile(g, least)
	}
	if err == nil {
		g.aheadAt.Store(0)
	}
	return err
}

// growFile grows the file to size. The caller holds g.growing.
func (s *Store) growFile(g *generation, size int64) error {
	from, start := g.file.Size(), time.Now()
	err := g.file.Grow(size)
	if err == nil {
		g.remap()
		s.grows.Add(1)
		if s.opts.Durability == SyncAlways || s.opts.SyncAligned {
			// Small folios: a sync then writes the page that changed, and not the
			// 2 MiB around it.
			g.file.AdviseRandom(from, size-from)
		}
	}
	if hook := s.opts.Hooks.Grown; hook != nil {
		hook(from, size, time.Since(start), err)
	}
	return err
}

// lookAhead allocates the next extent if the tail has come to the last half of
// this one, and brings in the memory that the next writes will use.
func (s *Store) lookAhead(g *generation) {
	g.index.lookAhead()
	s.checkpointIfDue(g)
	// Without the lock: to fault in takes long, and the writer may be at the next extent
	// before it is done.
	from, to := s.growAhead(g)
	g.file.Populate(from, to-from)
}

// growAhead does what lookAhead does to the file, and returns what is to be faulted in.
func (s *Store) growAhead(g *generation) (from, to int64) {
	if s.opts.Shared {
		// In a turn, for others may make the file grow too.
		now, err := s.lockWrites(s.closing)
		if err != nil {
			return 0, 0 // a writer will hear of it
		}
		defer s.unlockWrites(now)
	}
	g.growing.Lock()
	defer g.growing.Unlock()
	if s.closing.Err() != nil || s.gen.Load() != g {
		return 0, 0
	}
	end := g.end.Load()
	if size := g.file.Size(); size-end < slackAfter(size) {
		if next := min(size+extentAfter(size), s.opts.MaxSize); next > size {
			// Where this fails the writer that needs the space will hear of it.
			_ = s.growFile(g, next)
		}
		// The pages below the tail are never written again, nor is the first. A
		// stray store of the host program shall fault rather than corrupt them.
		_ = g.file.Protect(0, crc.Page)
		_ = g.file.Protect(crc.HeaderSize, end-crc.HeaderSize)
	}
	window := int64(aheadLazy)
	if s.opts.Durability == SyncAlways {
		window = aheadDurable
	}
	size := g.file.Size()
	to = min(end+window, size)
	from = min(max(g.populated, end), to)
	g.populated = max(g.populated, to)
	next := size - slackAfter(size)
	switch {
	case next <= end:
		next = size // no space: grow sets it again once there is some
	case to < size:
		next = min(next, to-window/2)
	}
	g.aheadAt.Store(next)
	return from, to
}
