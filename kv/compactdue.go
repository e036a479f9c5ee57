package kv

import (
	"errors"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// compactFloor is how many bytes must be dead before a compaction starts by itself;
// less if MaxSize is small.
const compactFloor = 4 << 20

// compactIfDue starts a compaction in the background if enough is dead, or may be
// by now: what has a deadline is counted, once the log has grown by half since it
// was counted last.
func (s *Store) compactIfDue(g *generation) {
	dead, end := g.dead(), g.end.Load()
	due := dead >= s.compactFrom.Load() && s.enough(dead, end)
	count := end >= max(g.countAt.Load(), s.compactFloor()) && s.enough(dead+g.mortal.Load(), end)
	if !s.compacts() || !due && !count || !s.compactKicked.CompareAndSwap(false, true) {
		return
	}
	s.spawn(func() {
		defer s.compactKicked.Store(false)
		if s.opts.Shared {
			if busy, err := g.file.ByteLocked(compactLock); busy || err != nil {
				s.compactFrom.Store(dead + s.compactFloor()) // another does it
				return
			}
		}
		if !due {
			g.countAt.Store(end + end/2)
			if expired, err := s.expiredBytes(g, end); err != nil || !s.enough(dead+expired, end) {
				return
			}
		}
		_, err := s.Compact(s.closing)
		s.compactFrom.Store(s.compactFloor())
		if err != nil && s.closing.Err() == nil {
			s.compactFrom.Store(2 * dead) // not again at each write
			s.opts.Logger.Warn("compaction failed", "path", s.path, "err", err)
		}
	})
}

// compacts tells whether the store is compacted without being asked.
func (s *Store) compacts() bool { return s.opts.CompactAt >= 0 && !s.memory().isHanded() }

func (s *Store) enough(dead, end int64) bool { return float64(dead) >= s.opts.CompactAt*float64(end) }

// compactFloor is how many bytes must be dead before a compaction starts.
func (s *Store) compactFloor() int64 { return min(compactFloor, s.opts.MaxSize/8) }

// expiredBytes counts the bytes of entries that are current and expired.
func (s *Store) expiredBytes(g *generation, end int64) (n int64, err error) {
	cur := newCursor(g, end, true).now()
	cur.want = func(e *codec.Entry) bool { return s.clock.expired(e.Expiry) }
	for {
		items, err := cur.next()
		if err != nil || len(items) == 0 || s.closing.Err() != nil {
			return n, err
		}
		for i := range items {
			if items[i].live() {
				n += items[i].size
			}
		}
	}
}

// retry is a write that may be tried again. gen is the generation that it was tried
// on, or an earlier one.
type retry struct {
	s     *Store
	gen   *generation
	tries int
}

func (s *Store) retry() retry { return retry{s: s, gen: s.gen.Load()} }

// withSpace compacts if err says that the write found no space, and if that promises
// some. It tells whether the write is worth another try: a few times, for others may
// have used the space up again.
func (r *retry) withSpace(err error) bool {
	if err == nil || r.tries == 3 || !errors.Is(err, ErrFull) && !errors.Is(err, mmapfile.ErrNoSpace) {
		return false
	}
	s := r.s
	g := s.gen.Load()
	if g != r.gen {
		// Somebody else compacted: before the write was tried or, more likely, after.
		r.gen = g
		r.tries++
		return g != nil
	}
	if g == nil || !s.compacts() {
		return false
	}
	g.index.loadNoted() // else what is dead may count as live; who needs what cannot be loaded will hear of it
	if g.dead()+g.mortal.Load() < g.end.Load()/8 {
		return false
	}
	now, release, err := s.compactAlone(s.closing)
	if err != nil {
		return false
	}
	defer release()
	r.tries++
	if now == g {
		c := &compaction{s: s, ctx: s.closing, old: g}
		if _, err = c.report("compact"); err != nil {
			return false
		}
	}
	r.gen = s.gen.Load()
	return true
}
