package kv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// A store that is open with Options.Shared is written by several handles, of this process and
// others, each with an index of its own.
//
// Terminology.
//   - share: the file's lock, which Shared handles hold together for as long as they write, and
//     an exclusive one alone. So they exclude each other.
//   - company: a lock of the store's name, which Shared handles hold together as long as they
//     are open. The kernel tells by it whether there is anybody else, be it one who has not
//     looked since the file was replaced.
//   - presence: a byte lock of the file that every handle which may write to it holds, together
//     with the others. By it those tell who only read.
//   - turn: a byte lock for one handle. Who has it, and mu, has the write lock.
//
// Why nothing is lost or invented:
//  1. Only who has the turn stores behind the tail, moves it, makes the file grow, or replaces
//     it. The kernel ends the turn of a process that dies.
//  2. A turn begins by taking in the log up to the tail word, in the file that the path names
//     now. So an index is never behind when it decides, nor is a revision given twice.
//  3. A tail that others have seen is never taken back while anybody lives who saw it: who
//     opens the store beside others believes the tail word, and not the records behind it. Only
//     who is alone recovers, as who opens it exclusively does.
//  4. A holder that died before it moved the tail has left bytes behind it, be they whole
//     records. It has said before how far (the word written); the next one makes them zero,
//     durably, before it appends. Else the end of that might follow a new record, and be
//     believed.
//  5. The tail is moved before the writer's own index has the record, and a reader that sees it
//     moved waits for that (follow). So whoever reads it first, in whichever process, nobody
//     reads what was before it any more.
//  6. A sync covers all from what this handle knows to be durable up to the tail, whoever wrote
//     it. What was not synced when the handle came is stored to once more (see settleTail):
//     another's sync of it may have failed. If one fails later, the kernel tells each who had
//     the file open by then.
//  7. The mark is stored in a turn: two who did so at once could spoil both slots.
const (
	presenceLock mmapfile.ByteLock = iota
	turnLock
	compactLock    // of who writes the next generation
	checkpointLock // of who writes a checkpoint
)

const (
	turnWait  = 10 * time.Second       // for a turn, unless LockTimeout says otherwise
	turnFirst = 250 * time.Microsecond // until who waits for a turn looks by itself; then twice as long,
	turnMost  = 50 * time.Millisecond  // up to this: so long may it take until a dead holder is noticed
	turnSpan  = 200 * time.Microsecond // for which a handle may take turn after turn while others wait
)

// turns is what a handle knows of its turns. Guarded by mu.
type turns struct {
	crowded time.Time // since when others have been seen waiting; zero: nobody was
	yields  bool      // others go first
}

// lockWrites takes the write lock: of this handle, and of a Shared store the turn. It returns
// the generation to write to, with all that is published in its index. It waits for others at most
// as long as LockTimeout says, and ctx lasts.
func (s *Store) lockWrites(ctx context.Context) (*generation, error) {
	s.gate.pass()
	var deadline time.Time
	if !s.mu.TryLock() {
		if s.opts.Shared {
			deadline = s.turnDeadline() // the wait for the goroutine before counts too
		}
		if err := s.lockMu(ctx); err != nil {
			return nil, err
		}
	}
	g, err := s.writable()
	if err == nil && s.opts.Shared {
		g, err = s.takeTurn(ctx, g, deadline)
	}
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	return g, nil
}

// lockMu locks mu, unless ctx ends before. When the store closes, whoever has mu, waiting for a
// turn, lets go of it.
func (s *Store) lockMu(ctx context.Context) error {
	if !s.opts.Shared || ctx == s.closing {
		s.mu.Lock()
		return nil
	}
	locked := make(chan struct{})
	go func() {
		s.mu.Lock()
		select {
		case locked <- struct{}{}:
		case <-ctx.Done():
			s.mu.Unlock()
		}
	}()
	select {
	case <-locked:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// unlockWrites ends what lockWrites began, on the generation that it returned.
func (s *Store) unlockWrites(g *generation) {
	if s.opts.Shared {
		s.endTurn(g)
	}
	s.mu.Unlock()
}

func (s *Store) turnDeadline() time.Time {
	wait := s.opts.LockTimeout
	if wait == 0 {
		wait = turnWait
	}
	return time.Now().Add(wait)
}

// takeTurn waits for the turn in the generation at the path, which may be another than
// g. The caller holds mu.
func (s *Store) takeTurn(ctx context.Context, g *generation, deadline time.Time) (*generation, error) {
	for {
		next, err := s.tryTurn(ctx, g, deadline)
		if err == nil && next == g {
			return g, nil
		}
		if errors.Is(err, fs.ErrClosed) && s.gen.Load() != g {
			next, err = s.writable() // a reader was first to see that it has been replaced
		}
		if err != nil {
			return nil, err
		}
		g = next
	}
}

// tryTurn is takeTurn where g is not replaced meanwhile; else it returns the next generation,
// without the turn.
func (s *Store) tryTurn(ctx context.Context, g *generation, deadline time.Time) (next *generation, err error) {
	if err := s.join(g); err != nil {
		return nil, err
	}
	if err := s.awaitTurn(ctx, g.file, deadline); err != nil {
		return nil, err
	}
	if next, err = s.beginTurn(g); err != nil || next != g {
		s.endTurn(g)
	}
	return next, err
}

// join takes what a handle holds of the file of g as long as it may write to it. The caller holds mu.
func (s *Store) join(g *generation) error {
	if g.joined {
		return nil
	}
	if err := g.file.TryShare(); err != nil {
		return err
	}
	err := takePresence(g.file)
	g.joined = err == nil
	return err
}

// takePresence takes the presence of a file, if the system has such locks.
func takePresence(f file) error {
	_, err := f.TryLockByte(presenceLock, true) // nobody takes it alone
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// writerLives tells whether there is somebody who may write to f, the file at the path, or who
// may yet come to do so from one that it has replaced. Who is about to recover it after a stop
// of the machine does not count: until the header names this boot, the tail word says nothing.
// It is for handles that only read.
func (s *Store) writerLives(f file) bool {
	present, err := f.ByteLocked(presenceLock)
	present = present && err == nil && f.Mapping().Word(crc.BootOff).Load() == mmapfile.BootID()
	if present || liveHolder(f.Mapping()) != 0 {
		return true
	}
	company, err := s.disk.OpenName(s.path)
	if err != nil {
		return false
	}
	defer company.Close()
	shared, err := company.Shared()
	return err == nil && shared
}

// awaitTurn waits for the turn in f. Who waits is woken when a turn ends, and looks by itself
// in between, for a process that dies wakes nobody.
func (s *Store) awaitTurn(ctx context.Context, f file, deadline time.Time) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(f.mapped(), &err)
	event := f.Mapping().Event(crc.TurnOff)
	pause := turnFirst
	if s.turns.yields {
		s.turns.yields = false
		event.Wait(event.Announce(), turnFirst)
	}
	for first := true; ; first = false {
		had, err := f.TryLockByte(turnLock, false)
		if had || err != nil {
			if !first {
				event.Announce() // for the others who wait: a turn that ends wakes one of them
			}
			return err
		}
		seen := event.Announce()
		if had, err := f.TryLockByte(turnLock, false); had || err != nil {
			return err
		}
		if deadline.IsZero() {
			deadline = s.turnDeadline()
		}
		left := time.Until(deadline)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case left <= 0:
			return &mmapfile.LockedError{PID: int(f.Mapping().Word(crc.HolderOff).Load()), Shared: true}
		}
		event.Wait(seen, min(pause, left))
		if !first {
			pause = min(2*pause, turnMost)
		}
	}
}

// beginTurn takes in what others have published, and puts right what one of them has left half done. It
// returns the generation that is at the path; in another than g the turn is still to be had.
func (s *Store) beginTurn(g *generation) (next *generation, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	// Also where the log seems to end where the tail word says: a reader of this process
	// may be at the last step of taking that in, and the revision comes after the end.
	if next, err = s.catchUp(); err != nil || next != g {
		return next, err
	}
	if word, end := g.tailWord().Load(), uint64(g.end.Load()); word != end {
		if word&^crc.Superseded != end {
			return nil, fmt.Errorf("%w: the tail word is not where the log ends", ErrCorrupt)
		}
		// Whoever was to replace this file, and said so, died before it did.
		g.tailWord().Store(end)
	}
	g.log.current.Load().Word(crc.HolderOff).Store(uint64(os.Getpid()))
	return g, s.wipe(g)
}

// wipe makes zero what a holder that died has left behind the tail.
func (s *Store) wipe(g *generation) error {
	word, end := g.writtenWord(), g.end.Load()
	written := int64(word.Load())
	if written <= end {
		return nil
	}
	if err := g.refresh(); err != nil {
		return err
	}
	if written = min(written, g.file.Size()); written <= end {
		return nil
	}
	s.opts.Logger.Info("wiped what a writer left that died", "path", s.path, "end", end, "bytes", written-end)
	clear(g.bytes()[end:written])
	if err := g.file.Sync(end, written-end); err != nil {
		return s.setPoison(err)
	}
	word.Store(uint64(end))
	return nil
}

// writtenWord says how far behind the tail something may have been written.
func (g *generation) writtenWord() *atomic.Uint64 { return g.log.current.Load().Word(crc.WrittenOff) }

// endTurn lets the others have the turn. The caller holds mu.
func (s *Store) endTurn(g *generation) {
	err := s.leaveTurn(g)
	if err != nil && !errors.Is(err, fs.ErrClosed) {
		s.setPoison(err)
	}
}

func (s *Store) leaveTurn(g *generation) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	s.storeMark(g)
	if err := g.file.UnlockByte(turnLock); err != nil {
		return err
	}
	event := g.log.current.Load().Event(crc.TurnOff)
	if !event.Waited() {
		s.turns.crowded = time.Time{}
		return nil
	}
	// To wake somebody takes longer than many turns.
	switch now := time.Now(); {
	case s.turns.crowded.IsZero():
		s.turns.crowded = now
		event.Wake(1) // this turn may have been a long one, and the last for a while
	case now.Sub(s.turns.crowded) > turnSpan:
		// Who gives way announces that, and may be the only one who did.
		s.turns.crowded, s.turns.yields = time.Time{}, event.Wake(1) > 0
	}
	return nil
}

// noteMark is mark for a sync outside of a turn: it is stored at once if a turn is to be
// had, and else at the end of the next one of this handle.
func (s *Store) noteMark(g *generation, end int64, revision uint64) error {
	g.synced.Store(end)
	g.marking.Store(&crc.Mark{Off: end, Revision: revision, Stamp: s.clock.stamp()})
	if !s.mu.TryLock() {
		return nil
	}
	defer s.mu.Unlock()
	if !g.joined {
		return nil
	}
	had, err := g.file.TryLockByte(turnLock, false)
	if had {
		s.endTurn(g)
	}
	return err
}

// storeMark stores the mark that was noted last, if others have not stored a later one. The
// caller has the turn.
func (s *Store) storeMark(g *generation) {
	if g.marking.Load() == nil {
		return
	}
	m := g.marking.Swap(nil)
	if m == nil {
		return
	}
	b := g.bytes()
	if crc.DecodeMark(b, &g.header).Off < m.Off {
		crc.EncodeMark(b[crc.MarkOff(crc.NextMark(b, &g.header)):], *m, g.header.Salt)
		g.marks.Add(2) // there is one that is not durable; the slot is chosen each time
	}
}

// foretell moves the tail to end for other processes, before this one's index has what is
// there. Readers of this process that see it wait until the caller lets go of follow.
func (s *Store) foretell(g *generation, end int64) {
	s.follow.Lock()
	g.foretold.Store(uint64(end))
	g.tailWord().Store(uint64(end))
}

// awaitOwn waits for the index to have what this handle itself is about to publish, up to the
// tail word, and tells whether it has. It lasts no longer than that takes a writer that is not
// held up: who waits for follow instead holds up the next.
func (g *generation) awaitOwn(word uint64) bool {
	for range 64 {
		if uint64(g.end.Load()) >= word {
			return true
		}
		if g.foretold.Load() < word {
			return false
		}
		runtime.Gosched()
	}
	return false
}

// distrust sees to it that what becomes durable in g, which others write too, stands on what
// is. The next sync writes all of the log beyond the mark, whatever the kernel says of it, for
// the sync of another process may have failed before this one had the file open, and that one
// have died before it said so (see setFailed); and whoever gave the file its name may have died
// before it synced that.
func (s *Store) distrust(g *generation) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	g.storeAgain(g.synced.Load(), g.end.Load())
	return syncDir(s.disk, filepath.Dir(s.path))
}

// openToShare opens the file at the path to write it together with others, creating it if
// need be. It is done in a turn.
func (s *Store) openToShare() (g *generation, err error) {
	if s.company, err = s.disk.OpenName(s.path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.company.Close()
		}
	}()
	f, before, err := s.claimFile(s.claimShared)
	if err != nil {
		return nil, err
	}
	others, err := s.company.Shared()
	switch {
	case err != nil:
	case !others:
		g, err = s.openAlone(f, before)
	default:
		if g, err = s.load(f, before.identity, true); err == nil {
			err = s.distrust(g)
		}
	}
	if err == nil {
		// Not before, for who finds this handle here takes the store for recovered.
		err = errors.Join(s.company.Share(), takePresence(f))
	}
	if err != nil {
		refuse(f, cmp.Or(before, &head{}))
		return nil, err
	}
	g.joined = true
	s.endTurn(g)
	return g, nil
}

// claimShared takes share and turn of f.
func (s *Store) claimShared(f file) (before *head, err error) {
	h, err := s.readHeader(f) // not before it is known to be a store is it written to
	if err == nil {
		h.identity, err = f.Identity()
	}
	if err == nil {
		err = f.TryShare()
	}
	if err == nil {
		err = s.awaitTurn(context.Background(), f, time.Time{})
	}
	if err != nil {
		return nil, err
	}
	if still, err := s.stillThere(f); !still || err != nil {
		return nil, err
	}
	identity := h.identity
	if h, err = s.readHeader(f); err != nil { // marks and holder may have changed while others had the turn
		return nil, err
	}
	h.identity = identity
	return &h, setHolder(f, uint64(os.Getpid()))
}

// closesAlone tells whether nobody else may write the store, and if so has taken the turn, for
// good. The caller holds mu.
func (s *Store) closesAlone() bool {
	if others, err := s.company.Shared(); others || err != nil {
		return false // without waiting for a turn that one of them may keep
	}
	g, err := s.writable()
	if err == nil {
		g, err = s.takeTurn(context.Background(), g, time.Time{})
	}
	if err != nil {
		return false
	}
	others, err := s.company.Shared()
	if others || err != nil {
		s.endTurn(g)
		return false
	}
	return true
}

// refuseCompany returns an error if somebody shares the store who has not looked since its file
// was replaced: the new one's lock does not tell of that.
func (s *Store) refuseCompany(holder uint64) error {
	company, err := s.disk.OpenName(s.path)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil // nor is there anybody who shares
	}
	if err != nil {
		return err
	}
	defer company.Close()
	shared, err := company.Shared()
	if shared {
		err = &mmapfile.LockedError{PID: int(min(holder, math.MaxInt32)), Shared: true}
	}
	return err
}

// claimCompaction waits until no other process compacts, and keeps them from it. It returns the
// generation at the path, which nobody else can replace then.
func (s *Store) claimCompaction(ctx context.Context) (*generation, error) {
	for wait := time.Millisecond; ; wait = min(2*wait, turnMost) {
		g, err := s.lockWrites(ctx) // in a turn it is the one at the path
		if err != nil {
			return nil, err
		}
		had, err := g.file.TryLockByte(compactLock, false)
		s.unlockWrites(g)
		if had || err != nil {
			return g, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.closing.Done():
			return nil, ErrClosed
		}
	}
}
