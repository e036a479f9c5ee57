package kv

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// syncer shares syncs among the writers that wait for one. The first becomes
// the leader and syncs all that is published; those that come while it does
// wait, and one of them leads next.
type syncer struct {
	mu      sync.Mutex
	done    sync.Cond
	busy    bool   // guarded by mu: somebody leads
	durable uint64 // guarded by mu: revisions up to it are past their durability point
	waited  bool   // guarded by mu: somebody has, since the last sync began
	crowded bool   // owned by the leader: others waited for the sync before
}

func (y *syncer) init() { y.done.L = &y.mu }

// lead waits until nobody leads and makes the caller the leader, unless a
// revision above 0 is given and is, or gets, past its durability point meanwhile:
// then it returns false.
func (y *syncer) lead(revision uint64) bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	reached := func() bool { return revision > 0 && y.durable >= revision }
	for y.busy && !reached() {
		y.waited = true
		y.done.Wait()
	}
	if reached() {
		return false
	}
	y.busy = true
	y.crowded, y.waited = y.waited, false
	return true
}

// leave ends a leadership: revisions up to durable are past their durability
// point.
func (y *syncer) leave(durable uint64) {
	y.mu.Lock()
	y.busy = false
	y.durable = max(y.durable, durable)
	y.mu.Unlock()
	y.done.Broadcast()
}

// syncTo returns after the durability point of a revision that is published.
func (s *Store) syncTo(revision uint64) error {
	if revision == 0 || !s.sync.lead(revision) {
		return nil
	}
	// The generation changes only while whoever changes it leads. So this is the
	// one that has the revision, or a later one that has it too.
	g := s.gen.Load()
	if s.sync.crowded && g != nil {
		awaitCrowd(g)
	}
	durable, err := s.syncLog(g)
	s.sync.leave(durable)
	return err
}

// awaitCrowd lets the goroutines that the last sync woke go first, as long as they publish
// something: this sync then covers it, and they need not wait for the next. With 64
// writers that makes a fifth more durable puts a second. Where nobody else runs, it returns at once.
func awaitCrowd(g *generation) {
	for range 4 {
		before := g.revision.Load()
		runtime.Gosched()
		if g.revision.Load() == before {
			return
		}
	}
}

// maxStretch bounds what syncBehind leaves out, in bytes. The kernel keeps the log in
// folios of up to 2 MiB.
const maxStretch = 2 << 20

// stretch is how far, at the least, syncBehind stays from the tail.
func (s *Store) stretch() int64 {
	n := int64(maxStretch)
	if s.opts.SyncBytes > 0 {
		n = min(n, s.opts.SyncBytes/32)
	}
	if s.opts.SyncAligned {
		n = max(n, crc.Page) // what is synced is not stored into any more
	}
	return n
}

// syncBehind syncs what lies well behind the tail, if that is most of what there is to
// sync, and tells whether it was. The kernel locks the folios that it writes, all of
// them until the device has taken them: a writer that stores into one waits. It
// does not wait for this sync, and for the next, of the rest, not as long.
func (s *Store) syncBehind() (most bool, err error) {
	s.sync.lead(0)
	durable := uint64(0)
	if g := s.gen.Load(); g != nil {
		var to point
		if to, most = g.behind(); most {
			durable, err = s.syncUpTo(g, to.end, to.revision)
		}
	}
	s.sync.leave(durable)
	return most, err
}

// syncForBytes is the sync for Options.SyncBytes.
func (s *Store) syncForBytes(g *generation) error {
	if most, err := s.syncBehind(); most {
		return err
	}
	return s.syncTo(g.revision.Load())
}

// syncLog syncs the log of g up to its tail, and returns the revision there. The
// caller leads.
func (s *Store) syncLog(g *generation) (durable uint64, err error) {
	if g == nil {
		return 0, ErrClosed
	}
	end, revision := g.seal(s.opts.SyncAligned)
	return s.syncUpTo(g, end, revision)
}

// syncUpTo syncs the log of g up to end, where it ended with revision. The
// first failure poisons the store: the kernel may have dropped the pages and
// marked them clean, so that a second sync would succeed and mean nothing. The
// caller leads.
func (s *Store) syncUpTo(g *generation, end int64, revision uint64) (durable uint64, err error) {
	if err := s.poisoned(); err != nil {
		return 0, err
	}
	from := g.synced.Load()
	if end > from {
		start := time.Now()
		s.clock.tick()
		err := g.file.Sync(from, end-from)
		s.syncs.Add(1)
		if hook := s.opts.Hooks.Synced; hook != nil {
			hook(end-from, time.Since(start), err)
		}
		if err != nil {
			return 0, s.setPoison(err)
		}
		mark := s.mark
		if s.opts.Shared {
			mark = s.noteMark
		}
		if err := mark(g, end, revision); err != nil {
			return 0, s.setPoison(err)
		}
	}
	return revision, nil
}

// mark notes in the header that the log is durable up to end. The caller leads.
func (s *Store) mark(g *generation, end int64, revision uint64) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	b := g.bytes()
	crc.EncodeMark(b[crc.MarkOff(g.marks.Load()):], crc.Mark{Off: end, Revision: revision, Stamp: s.clock.stamp()}, g.header.Salt)
	g.marks.Add(1)
	g.synced.Store(end)
	return nil
}

// syncMark makes the newest mark durable. It is a lower bound, so that it may
// come later than what it says. The caller leads.
func (s *Store) syncMark(g *generation) error {
	marks := g.marks.Load()
	if g.marksSynced == marks {
		return nil
	}
	if err := g.file.Sync(crc.Page, crc.HeaderSize-crc.Page); err != nil {
		return err
	}
	g.marksSynced = marks
	return nil
}

// syncAndTrim makes all of g durable, mark included, and gives the slack back.
// The caller leads and holds the write lock.
func (s *Store) syncAndTrim(g *generation) (durable uint64, err error) {
	if durable, err = s.syncLog(g); err != nil {
		return 0, err
	}
	s.storeMark(g)
	length, err := s.trimmed(g)
	if err != nil {
		return 0, err
	}
	if g.marksSynced == g.marks.Load() && g.file.Size() == length {
		return durable, nil
	}
	// A crash here leaves a log with slack or without; both are whole.
	if err := g.file.Truncate(length); err != nil {
		return 0, s.setPoison(err)
	}
	if err := g.file.SyncFile(); err != nil {
		return 0, s.setPoison(err)
	}
	return durable, nil
}

// trimmed returns how long the file needs to be: as the log, or, with
// Options.SyncAligned, to the end of its last page, into which nothing is stored any
// more, not even the zeros of a truncation.
func (s *Store) trimmed(g *generation) (length int64, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	end := g.end.Load()
	if s.opts.SyncAligned {
		b := g.bytes()
		if next, ok := crc.Gap(b[:min(int64(len(b)), g.file.Size())], end); ok {
			return next, nil
		}
	}
	return end, nil
}

// Sync returns after the durability point of every write that returned before
// Sync was called. After a failed sync the store is poisoned: it and every
// later write return ErrPoisoned. With nothing to sync it costs nothing.
func (s *Store) Sync() error {
	g, err := s.writable()
	if err == nil && s.opts.Shared {
		g, err = s.catchUp() // which waits for who is at it: the revision follows the end
	}
	if err != nil {
		return s.wrap("sync", 0, err)
	}
	return s.wrap("sync", 0, s.syncTo(g.revision.Load()))
}

func (s *Store) setPoison(cause error) error {
	err := fmt.Errorf("%w: %w", ErrPoisoned, cause)
	if s.poison.CompareAndSwap(nil, &err) {
		if g := s.gen.Load(); g != nil {
			g.setFailed()
		}
		var damage *CorruptError
		if errors.As(cause, &damage) {
			s.found(damage)
		}
		s.opts.Logger.Error("a sync or a write failed half-way: no more writes until the store is opened again", "path", s.path, "err", cause)
	}
	return *s.poison.Load()
}

// setFailed notes in the file that a sync of it has failed. In the memory of the kernel its
// pages may be whole, and synced again with success; the device may not have them all the same.
// So has ext4 it (seen with Linux 6.18): blocks that were allocated, and whose first write
// failed, stay marked as never written, whatever is written to them later, as long as their
// page is in memory. Whoever opens the file next, for writing, does not go on in it.
func (g *generation) setFailed() {
	var fault error // then it is nobody's who may be told
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &fault)
	g.failedWord().Store(1)
}

func (g *generation) failedWord() *atomic.Uint64 { return g.log.current.Load().Word(crc.FailedOff) }

// hasFailed tells whether a sync of the file has failed.
func (g *generation) hasFailed() (yes bool, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	return g.failedWord().Load() != 0, nil
}

func (s *Store) poisoned() error {
	if p := s.poison.Load(); p != nil {
		return *p
	}
	return nil
}

// ticker does what is due SyncEvery after a write: it syncs, if the durability is
// periodic, keeps the clock going, makes the durable mark durable, and sees to it
// that a checkpoint is taken when it is due. A store
// that nobody writes has no timer running.
type ticker struct {
	timer  *time.Timer
	armed  atomic.Bool
	kicked atomic.Bool // a sync for SyncBytes is under way
}

func (s *Store) startTicker() {
	s.tick.timer = time.AfterFunc(time.Hour, func() {
		s.tick.armed.Store(false)
		s.spawn(s.onTick)
	})
	s.tick.timer.Stop()
}

// wrote is called after something was published, so that a tick which comes too
// early for it finds the ticker unarmed and a later one follows.
func (s *Store) wrote(g *generation) {
	s.rearm()
	if s.opts.Durability != SyncPeriodic {
		return
	}
	g.pass(s.stretch())
	if s.opts.SyncBytes > 0 && g.end.Load()-g.synced.Load() > s.opts.SyncBytes && s.tick.kicked.CompareAndSwap(false, true) {
		s.spawn(func() {
			s.syncForBytes(g)
			s.tick.kicked.Store(false)
		})
	}
}

func (s *Store) rearm() {
	if !s.tick.armed.Load() && s.tick.armed.CompareAndSwap(false, true) {
		s.tick.timer.Reset(s.opts.SyncEvery)
	}
}

func (s *Store) onTick() {
	s.clock.tick()
	g := s.gen.Load()
	if g == nil {
		return
	}
	if s.checkpointIfDue(g) {
		s.rearm()
	}
	if s.opts.Durability == SyncManual {
		return
	}
	// An error poisons, which is logged; the next write reports it. Writers may go on while
	// much is synced: twice, what they wrote meanwhile is much less.
	for most, i := true, 0; most && i < 2; i++ {
		most, _ = s.syncBehind()
	}
	if s.syncTo(g.revision.Load()) == nil && s.sync.lead(0) {
		if g := s.gen.Load(); g != nil {
			if err := s.syncMark(g); err != nil {
				s.setPoison(err)
			}
		}
		s.sync.leave(0)
	}
}
