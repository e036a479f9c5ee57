package kv

import (
	"fmt"
	"runtime"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/internal/invariants"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// enter begins a read: it returns the current generation, which the caller keeps
// alive while it uses what it read. A handle that follows others first takes in what they
// have published since.
func (s *Store) enter() (*generation, error) {
	g := s.gen.Load()
	if g == nil {
		return nil, ErrClosed
	}
	if s.follows {
		return s.followed(g)
	}
	return g, nil
}

// read calls fn with the value of key, which aliases the mapping.
func (s *Store) read(op string, key []byte, fn func(value []byte) error) error {
	g, err := s.enter()
	if err != nil {
		return s.wrap(op, 0, err)
	}
	err = s.readGuarded(op, g, key, fn)
	runtime.KeepAlive(g)
	return s.wrapFault(op, err)
}

func (s *Store) readGuarded(op string, g *generation, key []byte, fn func(value []byte) error) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	v, err := s.valueAt(op, g, g.find(g.index.hash.sum(key), key))
	if err != nil {
		return err
	}
	return fn(v)
}

// wrapFault wraps err if it is a fault in the mapping. Any other error has been
// wrapped, or is the caller's own.
func (s *Store) wrapFault(op string, err error) error {
	if fault, ok := err.(*mmapfile.FaultError); ok {
		return s.wrap(op, fault.Off, err)
	}
	return err
}

// valueAt returns the value of the record at off, aliasing the mapping, or
// ErrNotFound where off, which find returned, is 0 or the entry has expired.
func (s *Store) valueAt(op string, g *generation, off int64) ([]byte, error) {
	if off == 0 {
		return nil, ErrNotFound
	}
	if off < 0 {
		return nil, s.wrapRecord(op, g, -off, errChanged)
	}
	if s.verifies(g, off) {
		if _, err := crc.Verify(g.bytes(), off, g.header.Salt); err != nil {
			return nil, s.wrapRecord(op, g, off, err)
		}
	}
	p, _ := crc.Payload(g.bytes(), off)
	v, deadline, ok := codec.Value(p)
	if !ok {
		// The record verified when it came into the index.
		return nil, s.wrapRecord(op, g, off, errChanged)
	}
	if deadline != 0 && s.clock.expired(deadline) {
		return nil, ErrNotFound
	}
	return v, nil
}

// verifies tells whether the sum of the record at off is to be checked before
// anybody gets to see it: if the caller wants that, or nobody has checked it since
// the index was loaded from a checkpoint.
func (s *Store) verifies(g *generation, off int64) bool {
	return s.opts.VerifyReads || off < g.unverified.Load()
}

var errChanged = fmt.Errorf("%w: the file was changed beneath the open store", ErrCorrupt)

// Get returns a copy of the value of key, which belongs to the caller, or
// ErrNotFound. It allocates only the copy.
func (s *Store) Get(key []byte) ([]byte, error) {
	g, err := s.enter()
	if err != nil {
		return nil, s.wrap("get", 0, err)
	}
	value, err := s.copyGuarded(g, key)
	runtime.KeepAlive(g)
	if err != nil {
		return nil, s.wrapFault("get", err)
	}
	return value, nil
}

func (s *Store) copyGuarded(g *generation, key []byte) (_ []byte, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	v, err := s.valueAt("get", g, g.find(g.index.hash.sum(key), key))
	if err != nil {
		return nil, err
	}
	value := make([]byte, len(v))
	copy(value, v)
	return value, nil
}

// GetAppend appends the value of key to dst and returns the extended slice, as
// append does; or dst and ErrNotFound. It does not allocate if dst has the
// capacity.
func (s *Store) GetAppend(dst, key []byte) ([]byte, error) {
	g, err := s.enter()
	if err != nil {
		return dst, s.wrap("get", 0, err)
	}
	out, err := s.appendGuarded(g, dst, key)
	runtime.KeepAlive(g)
	if err != nil {
		return dst, s.wrapFault("get", err)
	}
	return out, nil
}

func (s *Store) appendGuarded(g *generation, dst, key []byte) (out []byte, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	v, err := s.valueAt("get", g, g.find(g.index.hash.sum(key), key))
	if err != nil {
		return nil, err
	}
	return append(dst, v...), nil
}

// View calls fn with the value of key, without a copy, and returns what fn
// returns; or ErrNotFound, without a call. The bytes are those of the file: they
// are valid until fn returns and must not be changed. Builds with -race or the
// tag invariants hand out a copy that is overwritten when fn returns, so that
// tests find who keeps it. fn may call the store.
//
// A fault of the disk while fn reads the value on the goroutine that called View
// is returned as an error; on another goroutine it ends the program. Get has no
// such condition.
func (s *Store) View(key []byte, fn func(value []byte) error) error {
	return s.read("view", key, func(v []byte) error {
		v, done := lend(v)
		defer done()
		return fn(v)
	})
}

// lend returns what a callback may see of v until done is called. It is v itself
// but for builds that check invariants.
func lend(v []byte) (lent []byte, done func()) {
	if !invariants.Enabled || v == nil {
		return v, func() {}
	}
	c := append(make([]byte, 0, len(v)), v...)
	return c, func() {
		for i := range c {
			c[i] = 0xDB
		}
	}
}

// Has tells whether key is present. It costs a Get without the copy.
func (s *Store) Has(key []byte) (bool, error) {
	err := s.read("has", key, func([]byte) error { return nil })
	if err == ErrNotFound {
		return false, nil
	}
	return err == nil, err
}

// Len returns the number of keys. Keys that have expired count until a
// compaction leaves them behind. It is 0 after Close, and where a read would fail. Soon
// after an Open that followed a kill it may wait for the index to be loaded.
func (s *Store) Len() int {
	g, err := s.enter()
	if err != nil || g.index.loadNoted() != 0 {
		return 0
	}
	return int(g.index.keys.Load())
}

// getBatch is how many lookups GetMany overlaps. With 64 at once each takes a tenth longer.
const getBatch = 32

// GetMany calls fn with the value of each key, in the order of keys, ok telling
// whether it is present. It costs much less than a Get for each key, because the
// cache misses of a batch overlap. Each key is read as Get would; together they
// are no snapshot. The bytes are valid until fn returns, as with View. An error
// of fn ends GetMany and is returned.
func (s *Store) GetMany(keys [][]byte, fn func(i int, value []byte, ok bool) error) error {
	for first := 0; first < len(keys); {
		g, err := s.enter()
		if err != nil {
			return s.wrap("get", 0, err)
		}
		n, err := s.getBatch(g, keys[first:min(first+getBatch, len(keys))], first, fn)
		runtime.KeepAlive(g)
		if err != nil {
			return s.wrapFault("get", err)
		}
		first += n
	}
	return nil
}

// getBatch does what GetMany does with keys, the first of which is its first-th. It
// ends early, having dealt with n of them, where fn has cleared or compacted the
// store.
func (s *Store) getBatch(g *generation, keys [][]byte, first int, fn func(i int, value []byte, ok bool) error) (n int, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	var hashes [getBatch]uint64
	var hints [getBatch]int64
	// Passes of loads that do not depend on each other: the processor has the misses
	// of each pass under way at the same time.
	for i, key := range keys {
		hashes[i] = g.index.hash.sum(key)
	}
	touched := 0
	t := g.index.table.Load()
	for _, h := range hashes[:len(keys)] {
		touched += int(t.home(t.dir[h>>t.shift].Load(), h))
	}
	for i := range keys {
		hints[i] = g.index.hint(hashes[i])
	}
	for i := range keys {
		if p, ok := g.log.payload(hints[i]); ok {
			touched += int(p[0])
		}
	}
	// That the sum is used keeps the loads.
	runtime.KeepAlive(touched)
	for i, key := range keys {
		if i > 0 && s.gen.Load() != g {
			return i, nil
		}
		v, err := s.valueAt("get", g, g.find(hashes[i], key))
		if err != nil && err != ErrNotFound {
			return i, err
		}
		lent, done := lend(v)
		callErr := fn(first+i, lent, err == nil)
		done()
		if callErr != nil {
			return i, callErr
		}
	}
	return len(keys), nil
}
