package kv

import (
	"bytes"
	"context"
	"iter"
	"runtime"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/internal/invariants"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// Iter is a consistent snapshot of a store, for one loop.
type Iter struct {
	s      *Store
	prefix []byte
	view   *view
	err    error
}

// view is a store as it was at one moment.
type view struct {
	g        *generation
	snap     *snapshot
	end      int64
	last     int64 // offset of the last record, or 0
	revision uint64
	// keys, and of the log: bytes of live records, records, bytes with a deadline
	keys, live, count, mortal int64
}

func (s *Store) view() (*view, error) {
	g, err := s.enter()
	if err != nil {
		return nil, err
	}
	return g.view()
}

func (g *generation) view() (*view, error) {
	g.index.mu.Lock()
	defer g.index.mu.Unlock()
	if off := g.index.loadAll(); off != 0 {
		return nil, changedAt(-off)
	}
	return &view{
		g: g, snap: g.index.snapshot(), end: g.end.Load(), last: g.last, revision: g.revision.Load(),
		keys: g.index.keys.Load(), live: g.live.Load(), count: g.count.Load(), mortal: g.mortal.Load(),
	}, nil
}

// Iter returns the entries whose key begins with prefix (nil: all) as they are
// now, whatever is written meanwhile. Writers go on: while the snapshot lasts, each
// segment of the index that they change is copied once. It ends when the loop has taken
// from the index what it needs, or is left, or when the Iter is garbage.
func (s *Store) Iter(prefix []byte) *Iter {
	it := &Iter{s: s, prefix: bytes.Clone(prefix)}
	v, err := s.view()
	if err != nil {
		it.err = s.wrap("iterate", 0, err)
		return it
	}
	it.view = v
	runtime.AddCleanup(it, (*snapshot).release, v.snap)
	return it
}

// All yields key and value of each entry, in the order in which they were last
// written. Both are the file's bytes, valid until the loop's body ends, and must
// not be changed. The body may use the store. A second loop over the same Iter
// yields nothing, and Err is then ErrClosed. An Iter is for one goroutine.
//
// The cost is that of reading each record that is not dead, whatever the prefix, and
// of going through the index twice, unless the loop is left within the first records
// (a 256th of the keys). It takes 4 bytes of memory a key, and up to 4 MiB. A log longer
// than 32 GiB is dealt with in parts of that length, each of which takes two passes through
// the index, and memory for its own keys.
//
// What cannot be read ends the loop, with an error, and so does a key that is not the
// one that it was because the file was changed beneath. But a page that is lost
// while the body reads it (the file is cut short just then) ends the program.
func (it *Iter) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		v := it.view
		it.view = nil
		if v == nil {
			if it.err == nil {
				it.err = it.s.wrap("iterate", 0, ErrClosed)
			}
			return
		}
		defer v.snap.release()
		pass := yield
		if invariants.Enabled {
			pass = func(key, value []byte) bool { return lendBoth(key, value, yield) }
		}
		w := newLiveWalk(v, it.prefix, !it.s.verifies(v.g, crc.HeaderSize))
		for entries := range w.batches() {
			for i := range entries {
				e := &entries[i]
				if e.expiry != 0 && it.s.clock.expired(e.expiry) {
					continue
				}
				if !pass(e.key, e.value) {
					return
				}
			}
			runtime.KeepAlive(v.g)
		}
		if w.err != nil {
			it.err = it.s.wrapRecord("iterate", v.g, w.off, w.err)
		}
	}
}

// lendBoth passes on what yield may see of key and value until it returns, in builds that
// check invariants.
func lendBoth(key, value []byte, yield func(key, value []byte) bool) bool {
	key, keyDone := lend(key)
	defer keyDone()
	value, valueDone := lend(value)
	defer valueDone()
	return yield(key, value)
}

// Err returns why the loop ended early, or nil.
func (it *Iter) Err() error { return it.err }

// Record is a record of the log, as Records tells of it.
type Record struct {
	Off, Len int64 // bytes from the start of the file; frame and padding included
	Key      []byte
	Value    []byte
	Revision uint64
	Written  time.Time // to the second or so
	Expiry   time.Time // zero: never
	Deleted  bool      // a tombstone
	More     bool      // the next record belongs to the same transaction
	Live     bool      // the key's current entry, expired or not
	Expired  bool      // by the clock that Get goes by
}

// Records yields every record of the log in order, the dead ones too, as of now:
// the history that has not been compacted away. Key and Value are as with
// Iter.All. An error ends the loop. It is for tools that look into stores.
func (s *Store) Records(ctx context.Context) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		v, err := s.view()
		if err != nil {
			yield(Record{}, s.wrap("scan", 0, err))
			return
		}
		defer v.snap.release()
		cur := newCursor(v.g, v.end, !s.verifies(v.g, crc.HeaderSize)).at(v.snap)
		for {
			items, err := cur.next()
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(Record{}, s.wrapRecord("scan", v.g, cur.scan.off, err))
				return
			}
			if len(items) == 0 {
				return
			}
			for i := range items {
				if !yield(s.record(&items[i]), nil) {
					return
				}
			}
			runtime.KeepAlive(v.g)
		}
	}
}

// Lookup returns the record of key, with copies of key and value, or ErrNotFound.
// It is Get for those who ask for more than the value: the deadline, the revision,
// the time.
func (s *Store) Lookup(key []byte) (r Record, err error) {
	g, err := s.enter()
	if err != nil {
		return r, s.wrap("get", 0, err)
	}
	err = s.lookup(g, key, &r)
	runtime.KeepAlive(g)
	return r, s.wrapFault("get", err)
}

func (s *Store) lookup(g *generation, key []byte, r *Record) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	off := g.find(g.index.hash.sum(key), key)
	if _, err := s.valueAt("get", g, off); err != nil {
		return err
	}
	p, _ := g.log.payload(off)
	e, err := codec.Decode(p)
	if err != nil {
		return s.wrapRecord("get", g, off, err)
	}
	e.Key, e.Value = bytes.Clone(e.Key), append([]byte{}, e.Value...)
	*r = s.record(&item{logRecord: logRecord{off: off, size: crc.RecordSize(len(p)), entry: e}, current: off})
	return nil
}

func (s *Store) record(it *item) Record {
	r := Record{
		Off: it.off, Len: it.size, Key: it.entry.Key, Value: it.entry.Value, Revision: it.entry.Revision,
		Written: time.Unix(it.entry.Written, 0), Deleted: it.entry.Kind == codec.Delete, More: it.more, Live: it.live(), Expired: s.clock.expired(it.entry.Expiry),
	}
	if it.entry.Expiry != 0 {
		r.Expiry = time.UnixMilli(it.entry.Expiry)
	}
	return r
}
