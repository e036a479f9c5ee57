package kv

import (
	"bytes"
	"fmt"
	"io/fs"
	"math"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// Put sets key to value. Both may be empty, and may be used again at once. When
// Put returns nil the write survives the death of the process, and with
// SyncAlways a power cut (see Durability).
//
// Errors leave everything as it was (ErrTooLarge, ErrFull, ErrReadOnly,
// ErrClosed, ErrPoisoned), but for two, either of which poisons. Where the sync of
// this very write failed, readers see it and nobody knows whether it will survive.
// Where the write itself met a fault (ErrFault), readers do not see it, and it may
// be there when the store is opened again.
func (s *Store) Put(key, value []byte) error {
	return s.write("put", &codec.Entry{Key: key, Value: value}, nil, false)
}

// PutDurable is Put that returns after the durability point, whatever the
// store's Durability. It shares its sync with other writers that wait.
func (s *Store) PutDurable(key, value []byte) error {
	return s.write("put", &codec.Entry{Key: key, Value: value}, nil, true)
}

// PutTTL is Put of an entry that is absent again ttl from now. The resolution is
// a millisecond; a ttl of 0 or less is refused with fs.ErrInvalid. The deadline
// is a time of day that is kept with the entry, across Close and Open too; a
// clock set back revives nothing.
func (s *Store) PutTTL(key, value []byte, ttl time.Duration) error {
	expiry, err := s.clock.after(ttl)
	if err != nil {
		return s.wrap("put", 0, err)
	}
	return s.write("put", &codec.Entry{Key: key, Value: value, Expiry: expiry}, nil, false)
}

// PutUntil is Put of an entry that is absent from a deadline on. The resolution
// is a millisecond. A deadline in the past makes the key absent at once.
func (s *Store) PutUntil(key, value []byte, deadline time.Time) error {
	return s.write("put", &codec.Entry{Key: key, Value: value, Expiry: expiryAt(deadline)}, nil, false)
}

// expiryAt returns a deadline as it is kept: unix milliseconds, at least 1, since
// 0 stands for never.
func expiryAt(deadline time.Time) int64 {
	if deadline.Unix() >= math.MaxInt64/1000 {
		return math.MaxInt64
	}
	return max(1, deadline.UnixMilli())
}

// after returns the expiry of an entry that is to live for ttl from now.
func (c *clock) after(ttl time.Duration) (int64, error) {
	if ttl <= 0 {
		return 0, fmt.Errorf("%w: ttl of %v", fs.ErrInvalid, ttl)
	}
	return expiryAt(time.UnixMilli(c.now()).Add(ttl).Add(time.Millisecond - 1)), nil
}

// Delete removes key. To remove a key that is absent is no error and writes
// nothing. Durability and errors are those of Put.
func (s *Store) Delete(key []byte) error {
	return s.write("delete", &codec.Entry{Key: key, Kind: codec.Delete}, nil, false)
}

func checkSize(key, value []byte) error {
	if len(key) > MaxKeySize {
		return fmt.Errorf("%w: key of %d bytes, the limit is %d", ErrTooLarge, len(key), MaxKeySize)
	}
	if len(value) > MaxValueSize {
		return fmt.Errorf("%w: value of %d bytes, the limit is %d", ErrTooLarge, len(value), MaxValueSize)
	}
	return nil
}

// write appends one entry, of the map that has the row if there is one, and waits for its
// durability point, if asked.
func (s *Store) write(op string, e *codec.Entry, row *catalogRow, durable bool) error {
	if err := checkSize(e.Key, e.Value); err != nil {
		return s.wrap(op, 0, err)
	}
	h := s.warm(e.Key)
	again := s.retry()
	revision, err := s.writeLocked(e, h, row)
	for again.withSpace(err) {
		revision, err = s.writeLocked(e, h, row)
	}
	return s.finish(op, revision, durable, err)
}

func (s *Store) writeLocked(e *codec.Entry, h keyHash, row *catalogRow) (uint64, error) {
	g, err := s.lockWrites(s.closing)
	if err != nil {
		return 0, err
	}
	defer s.unlockWrites(g)
	if err := row.ensure(g); err != nil {
		return 0, err
	}
	return s.appendOne(g, e, h.in(g, e.Key))
}

// finish ends a mutation outside of the lock. revision is 0 if none was made.
func (s *Store) finish(op string, revision uint64, durable bool, err error) error {
	if err != nil {
		return s.wrap(op, 0, err)
	}
	if revision == 0 {
		return nil
	}
	if g := s.gen.Load(); g != nil {
		s.compactIfDue(g)
	}
	if durable || s.opts.Durability == SyncAlways {
		return s.wrap(op, 0, s.syncTo(revision))
	}
	return nil
}

// keyHash is the hash of a key in the index of one generation: each has a seed of its
// own.
type keyHash struct {
	g *generation
	h uint64
}

// in returns the hash of key, whose hash kh is, in the index of g.
func (kh keyHash) in(g *generation, key []byte) uint64 {
	if kh.g != g {
		return g.index.hash.sum(key)
	}
	return kh.h
}

// warm hashes key, and asks for the memory that a write of it will look at, before
// the lock is taken.
func (s *Store) warm(key []byte) keyHash {
	g := s.gen.Load()
	if g == nil {
		return keyHash{}
	}
	h := g.index.hash.sum(key)
	g.index.prefetch(h)
	return keyHash{g, h}
}

// writable returns the generation, or why nobody may write to it.
func (s *Store) writable() (*generation, error) {
	g := s.gen.Load()
	switch {
	case g == nil:
		return nil, ErrClosed
	case s.opts.ReadOnly:
		return nil, ErrReadOnly
	}
	return g, s.poisoned()
}

// appendOne appends e, whose key has the hash h, gives it its revision, brings the
// index up to date, and publishes it. A delete of an absent key is revision 0. The
// caller holds mu.
func (s *Store) appendOne(g *generation, e *codec.Entry, h uint64) (revision uint64, err error) {
	if s.opts.SyncAligned {
		g.sealing.Lock()
		defer g.sealing.Unlock()
	}
	revision, err = s.appendEntry(g, e, h)
	return revision, s.poisonOnFault(err)
}

func (s *Store) appendEntry(g *generation, e *codec.Entry, h uint64) (revision uint64, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	if off := g.index.ensure(h); off != 0 {
		return 0, changedAt(-off)
	}
	if e.Kind == codec.Delete && g.index.find(h, e.Key) == 0 {
		return 0, nil
	}
	s.stamp(g, e, 1)
	n := e.Size()
	size := crc.RecordSize(n)
	off, err := s.room(g, size, 1)
	if err != nil {
		return 0, err
	}
	if s.opts.Shared {
		g.writtenWord().Store(uint64(off + size))
	}
	g.encode(e, n, off, 0)
	g.touchTail()

	if s.opts.Shared {
		s.foretell(g, off+size)
		defer s.follow.Unlock()
	}
	g.index.mu.Lock()
	defer g.index.mu.Unlock()
	// A crash here leaves a whole record behind the tail: recovery finds it.
	if err := g.enter(e, h, off, size); err != nil {
		return 0, s.setPoison(err)
	}
	g.publish(off+size, e.Revision)
	g.index.mustHold(h)
	s.wrote(g)
	s.aheadIfDue(g)
	return e.Revision, nil
}

// stamp gives e its revision, n after the newest, and the time. While nothing
// ticks, the clock stands still.
func (s *Store) stamp(g *generation, e *codec.Entry, n uint64) {
	if !s.tick.armed.Load() {
		s.clock.tick()
	}
	e.Revision = g.revision.Load() + n
	e.Written = s.clock.stamp()
}

// encode writes the record of e, whose payload takes n bytes, to off, where there is
// room. Nobody reads it before it is published.
func (g *generation) encode(e *codec.Entry, n int, off int64, flags uint32) {
	log := g.bytes()
	rec := log[off : off+crc.RecordSize(n)]
	codec.Append(rec[crc.FrameSize:crc.FrameSize], e)
	crc.Seal(rec, n, flags, g.header.Salt, off)
}

// poisonOnFault returns the error of a write, and poisons the store if it is a fault
// in the mapping: half of the write may be done.
func (s *Store) poisonOnFault(err error) error {
	if fault, ok := err.(*mmapfile.FaultError); ok {
		return s.setPoison(fault)
	}
	return err
}

// Op is what Compute does with the key after its function returned.
type Op int

const (
	Keep   Op = iota // leave it as it is
	Write            // set it to the value returned
	Remove           // delete it
)

// Compute reads key, calls fn with its value, and does what fn says, as one
// atomic step: no other write comes between. old is valid until fn returns and
// ok is false if key is absent. What is written has no deadline. Other writers
// wait while fn runs; fn may read the store, and must not write to it, compact,
// clear or close it. If fn panics, nothing happened. The value that it returned may be
// used again once Compute has returned. Durability and errors are those of Put.
func (s *Store) Compute(key []byte, fn func(old []byte, ok bool) (value []byte, op Op)) error {
	return s.computeOf("compute", key, nil, fn)
}

// computeOf is Compute for op, of a key of the map that has the row if there is one.
func (s *Store) computeOf(op string, key []byte, row *catalogRow, fn func(old []byte, ok bool) (value []byte, op Op)) error {
	if err := checkSize(key, nil); err != nil {
		return s.wrap(op, 0, err)
	}
	var e *codec.Entry
	again := s.retry()
	decide := func(g *generation) (uint64, error) {
		var err error
		if e, err = s.compute(op, g, key, fn); err != nil || e == nil {
			return 0, err
		}
		return s.appendOne(g, e, g.index.hash.sum(key))
	}
	at, revision, err := s.locked(row, decide)
	for again.withSpace(err) {
		if e == nil { // it was the row that found none
			at, revision, err = s.locked(row, decide)
			continue
		}
		revision, err = s.lockedAt(at, err, func(g *generation) (uint64, error) { return s.appendOne(g, e, g.index.hash.sum(key)) })
	}
	return s.finish(op, revision, false, err)
}

// locked runs fn under the write lock, when the map that has the row, if there is one, has it in
// the store. It returns the revision that the store had before fn.
func (s *Store) locked(row *catalogRow, fn func(g *generation) (uint64, error)) (at, revision uint64, err error) {
	g, err := s.lockWrites(s.closing)
	if err != nil {
		return 0, 0, err
	}
	defer s.unlockWrites(g)
	if err := row.ensure(g); err != nil {
		return 0, 0, err
	}
	at = g.revision.Load()
	revision, err = fn(g)
	return at, revision, err
}

// lockedAt runs fn under the write lock if the store still has revision at; else
// it returns otherwise. It is for what was decided by what the store had then.
func (s *Store) lockedAt(at uint64, otherwise error, fn func(g *generation) (uint64, error)) (uint64, error) {
	_, revision, err := s.locked(nil, func(g *generation) (uint64, error) {
		if g.revision.Load() != at {
			return 0, otherwise
		}
		return fn(g)
	})
	return revision, err
}

// compute returns what fn makes of the value of key, or nil for nothing. Its errors are of the
// operation as.
func (s *Store) compute(as string, g *generation, key []byte, fn func(old []byte, ok bool) ([]byte, Op)) (*codec.Entry, error) {
	e := &codec.Entry{Key: key}
	op := Keep
	call := func(old []byte, ok bool) error {
		lent, done := lend(old)
		defer done()
		e.Value, op = fn(lent, ok)
		if op != Write {
			return nil
		}
		if err := checkSize(nil, e.Value); err != nil {
			return err
		}
		// What fn returns may be, or be part of, what it was lent.
		e.Value = bytes.Clone(e.Value)
		return nil
	}
	err := s.readGuarded(as, g, key, func(v []byte) error { return call(v, true) })
	if err == ErrNotFound {
		err = call(nil, false)
	}
	switch {
	case err != nil || op == Keep:
		return nil, err
	case op == Remove:
		e.Kind, e.Value = codec.Delete, nil
	case op != Write:
		return nil, fmt.Errorf("%w: Op %d", fs.ErrInvalid, op)
	}
	return e, nil
}

// CompareAndSwap sets key to new if its value is old, and tells whether it did.
// nil stands for absent, on both sides: with a nil old the key must be absent,
// with a nil new it is removed. An empty value is a slice of length 0 that is
// not nil. What is written has no deadline.
func (s *Store) CompareAndSwap(key, old, new []byte) (swapped bool, err error) {
	err = s.Compute(key, func(now []byte, ok bool) ([]byte, Op) {
		swapped = ok == (old != nil) && bytes.Equal(now, old)
		switch {
		case !swapped:
			return nil, Keep
		case new == nil:
			return nil, Remove
		}
		return new, Write
	})
	return swapped && err == nil, err
}
