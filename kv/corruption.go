package kv

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// Damage is never silent: whoever meets it, the caller gets an error or a
// Violation, Stats().Corruptions counts it, and the Logger and Hooks.Corrupted are
// told. All of it comes through found: errors on their way out of the package by
// wrap, and what is no error, of a salvage and of Verify, directly.

// maxTold bounds the places of which the Logger and the Hook are told.
const maxTold = 1024

// corruptions is the damage that a store has met since Open.
type corruptions struct {
	count atomic.Uint64

	mu   sync.Mutex
	told map[place]struct{} // guarded by mu
}

// place is where damage is: offsets are void across generations.
type place struct {
	generation uint64 // 0: Open has not come to an end
	off        int64
}

// isNew notes a place, and tells whether it is the first time, and whether it is the
// last of which anybody is told.
func (c *corruptions) isNew(p place) (yes, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.told[p]; known || len(c.told) == maxTold {
		return false, false
	}
	if c.told == nil {
		c.told = make(map[place]struct{})
	}
	c.told[p] = struct{}{}
	return true, len(c.told) == maxTold
}

// changedAt is errChanged of the record at off.
func changedAt(off int64) error {
	return &CorruptError{Ranges: []Range{{Off: off, Len: crc.FrameSize}}, What: errChanged.Error()}
}

// found counts damage that was met, and tells of it the first time that it is met
// at its place: a record that is read again and again is no reason for a flood.
func (s *Store) found(damage *CorruptError) {
	damage.Path = s.path
	s.corruptions.count.Add(uint64(len(damage.Ranges)))
	at := place{off: damage.Ranges[0].Off}
	if g := s.gen.Load(); g != nil {
		at.generation = g.header.Generation
	}
	yes, last := s.corruptions.isNew(at)
	if !yes {
		return
	}
	s.opts.Logger.Error("damage was found", "path", s.path, "err", damage)
	if last {
		s.opts.Logger.Error("damage in more places is counted only", "path", s.path, "places", maxTold)
	}
	if hook := s.opts.Hooks.Corrupted; hook != nil {
		hook(damage)
	}
}

// foundIn is found for an error of an operation, if it is one of damage. Without an
// offset it is the header's.
func (s *Store) foundIn(err *Error) {
	var damage *CorruptError
	switch {
	case !errors.Is(err, ErrCorrupt) || errors.Is(err, ErrPoisoned):
		return // what poisoned was counted when it was met
	case !errors.As(err, &damage):
		damage = &CorruptError{Path: s.path, Ranges: []Range{{Off: 0, Len: crc.HeaderSize}}, What: err.Err.Error()}
	}
	s.found(damage)
}

// wrapRecord is wrap of why the record of g at off cannot be read: with its range,
// if the reason is damage.
func (s *Store) wrapRecord(op string, g *generation, off int64, err error) error {
	for _, damage := range []error{crc.ErrSum, crc.ErrNoRecord, crc.ErrBounds, codec.ErrEntry, errOrder, errChanged} {
		if errors.Is(err, damage) {
			err = &CorruptError{Path: s.path, Ranges: []Range{{Off: off, Len: g.recordLen(off)}}, What: err.Error()}
			break
		}
	}
	return s.wrap(op, off, err)
}

// recordLen is the length of the record at off, as far as that can be told.
func (g *generation) recordLen(off int64) (n int64) {
	var fault error // then its length cannot be told
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &fault)
	n = crc.FrameSize
	if p, ok := g.log.payload(off); ok {
		n = crc.RecordSize(len(p))
	}
	return n
}
