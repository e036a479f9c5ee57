package kv

import (
	"fmt"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// Tx is a transaction, given to the function of Update. It is for the goroutine
// that Update runs on, until the function returns; after that its methods return
// ErrClosed.
type Tx struct {
	s       *Store
	entries []codec.Entry  // in the order of each key's first write
	at      map[string]int // key -> its entry
	room    []byte         // for copies of what the caller gave
	size    int64          // bytes of the keys and values in entries
	durable bool
	over    bool
}

// Update runs fn with a transaction: what fn wrote through it happens together, or, if fn
// panics or returns an error, which Update returns as it is, not at all. Readers see all of it
// or none, in this process and in others, and so does recovery. Other writers wait while fn
// runs. fn may read the store, and must not write to it but through tx, nor compact, clear or
// close it. What fn wrote is kept in memory until it returns. Durability and errors are those of Put.
func (s *Store) Update(fn func(tx *Tx) error) error {
	var fnErr error
	tx := &Tx{s: s, at: make(map[string]int)}
	again := s.retry()
	at, revision, err := s.locked(nil, func(g *generation) (uint64, error) {
		defer func() { tx.over = true }()
		if fnErr = fn(tx); fnErr != nil {
			return 0, fnErr
		}
		return s.appendAll(g, tx)
	})
	if fnErr != nil {
		return fnErr
	}
	for again.withSpace(err) {
		revision, err = s.lockedAt(at, err, func(g *generation) (uint64, error) { return s.appendAll(g, tx) })
	}
	return s.finish("update", revision, tx.durable, err)
}

// Durable makes Update return after the transaction's durability point, whatever
// the store's Durability.
func (tx *Tx) Durable() { tx.durable = true }

// Get returns a copy of the value of key, as the transaction sees it, or
// ErrNotFound.
func (tx *Tx) Get(key []byte) ([]byte, error) {
	if tx.over {
		return nil, tx.s.wrap("get", 0, ErrClosed)
	}
	if i, ok := tx.at[string(key)]; ok {
		e := &tx.entries[i]
		if e.Kind == codec.Delete || tx.s.clock.expired(e.Expiry) {
			return nil, ErrNotFound
		}
		return append([]byte{}, e.Value...), nil
	}
	return tx.s.Get(key)
}

// Has tells whether key is present, as the transaction sees it.
func (tx *Tx) Has(key []byte) (bool, error) {
	if _, ok := tx.at[string(key)]; !ok && !tx.over {
		return tx.s.Has(key)
	}
	_, err := tx.Get(key)
	if err == ErrNotFound {
		return false, nil
	}
	return err == nil, err
}

// Put sets key to value when the transaction ends. Both are copied.
func (tx *Tx) Put(key, value []byte) error {
	return tx.add("put", codec.Entry{Key: key, Value: value})
}

// PutTTL is Put of an entry that is absent again ttl from now.
func (tx *Tx) PutTTL(key, value []byte, ttl time.Duration) error {
	expiry, err := tx.s.clock.after(ttl)
	if err != nil {
		return tx.s.wrap("put", 0, err)
	}
	return tx.add("put", codec.Entry{Key: key, Value: value, Expiry: expiry})
}

// PutUntil is Put of an entry that is absent from a deadline on.
func (tx *Tx) PutUntil(key, value []byte, deadline time.Time) error {
	return tx.add("put", codec.Entry{Key: key, Value: value, Expiry: expiryAt(deadline)})
}

// Delete removes key when the transaction ends. An absent key is no error.
func (tx *Tx) Delete(key []byte) error {
	return tx.add("delete", codec.Entry{Key: key, Kind: codec.Delete})
}

func (tx *Tx) add(op string, e codec.Entry) error {
	if tx.over {
		return tx.s.wrap(op, 0, ErrClosed)
	}
	if err := checkSize(e.Key, e.Value); err != nil {
		return tx.s.wrap(op, 0, err)
	}
	i, again := tx.at[string(e.Key)]
	size := int64(len(e.Key) + len(e.Value))
	if again {
		size -= int64(len(tx.entries[i].Key) + len(tx.entries[i].Value))
	}
	if size > MaxTxSize-tx.size {
		return tx.s.wrap(op, 0, fmt.Errorf("%w: transaction above %d bytes", ErrTooLarge, MaxTxSize))
	}
	tx.size += size
	e.Value = tx.copy(e.Value)
	if again {
		e.Key = tx.entries[i].Key
		tx.entries[i] = e
		return nil
	}
	e.Key = tx.copy(e.Key)
	tx.at[string(e.Key)] = len(tx.entries)
	tx.entries = append(tx.entries, e)
	return nil
}

const maxRoom = 64 << 10 // bytes of copies that are allocated at once

// copy returns a copy of b that lives as long as tx.
func (tx *Tx) copy(b []byte) []byte {
	if cap(tx.room)-len(tx.room) < len(b) {
		tx.room = make([]byte, 0, max(len(b), min(2*cap(tx.room), maxRoom)))
	}
	start := len(tx.room)
	tx.room = append(tx.room, b...)
	return tx.room[start:len(tx.room):len(tx.room)]
}

// appendAll appends the entries of tx, whose keys differ, as one run of records,
// brings the index up to date behind a screen, so that no reader sees a part, and
// publishes the run with one store. It returns the last revision, or 0 if nothing
// was to do. The caller holds mu.
func (s *Store) appendAll(g *generation, tx *Tx) (revision uint64, err error) {
	defer func() { err = s.poisonOnFault(err) }()
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)

	hashes := make([]uint64, len(tx.entries))
	for i := range tx.entries {
		hashes[i] = g.index.hash.sum(tx.entries[i].Key)
		g.index.prefetch(hashes[i])
	}
	earlier := before{tx.at, make([]int64, len(tx.entries))}
	// A delete of an absent key is nothing.
	nothing := func(i int) bool { return tx.entries[i].Kind == codec.Delete && earlier.off[i] == 0 }
	total, count, last := int64(0), 0, 0
	for i := range tx.entries {
		e := &tx.entries[i]
		if off := g.index.ensure(hashes[i]); off != 0 {
			return 0, changedAt(-off)
		}
		earlier.off[i] = g.index.find(hashes[i], e.Key)
		if nothing(i) {
			continue
		}
		count, last = count+1, i
		s.stamp(g, e, uint64(count))
		total += crc.RecordSize(e.Size())
	}
	if count == 0 {
		return 0, nil
	}
	if s.opts.SyncAligned {
		g.sealing.Lock()
		defer g.sealing.Unlock()
	}
	start, err := s.room(g, total, count)
	if err != nil {
		return 0, err
	}
	if s.opts.Shared {
		g.writtenWord().Store(uint64(start + total))
	}
	end := start
	for i := range tx.entries[:last+1] {
		if nothing(i) {
			continue
		}
		flags := crc.FlagMore
		if i == last {
			flags = 0
		}
		n := tx.entries[i].Size()
		g.encode(&tx.entries[i], n, end, flags)
		end += crc.RecordSize(n)
	}
	revision = tx.entries[last].Revision
	g.touchTail()

	// Where it ends in the middle, the screen stays, and the store is poisoned.
	g.applying.Store(&earlier)
	if s.opts.Shared {
		s.foretell(g, end)
		defer s.follow.Unlock()
	}
	g.index.mu.Lock()
	defer g.index.mu.Unlock()
	off := start
	for i := range tx.entries[:last+1] {
		if nothing(i) {
			continue
		}
		size := crc.RecordSize(tx.entries[i].Size())
		if err := g.enter(&tx.entries[i], hashes[i], off, size); err != nil {
			return 0, s.setPoison(err)
		}
		g.index.mustHold(hashes[i])
		off += size
	}
	// Before the log ends there: who sees it end, and so waits no more, sees all of it.
	g.applying.Store(nil)
	g.publish(end, revision)
	s.wrote(g)
	s.aheadIfDue(g)
	return revision, nil
}
