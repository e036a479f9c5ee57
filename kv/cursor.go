package kv

import (
	"runtime"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// cursor walks the published log of a generation in order, and tells of each
// record which one is its key's current one. It asks the index in batches, so
// that the cache misses overlap.
type cursor struct {
	g    *generation
	scan scanner
	want func(*codec.Entry) bool // nil: all; others are not looked up
	// current returns the offset of the key's current record, or 0; for another
	// record than that at off it may return 0, too.
	current func(h uint64, key []byte, off int64) int64
	// home and hint touch what current will look at, home the slots and hint, which
	// may be nil, the record.
	home, hint func(h uint64) (touched int)

	batch []item
}

type item struct {
	logRecord
	hash    uint64
	current int64
}

func (it *item) live() bool { return it.current == it.off }

const cursorBatch = 64

// newCursor walks from the first record to end. Unless trusted, it checks the
// sum of each record.
func newCursor(g *generation, end int64, trusted bool) *cursor {
	log := g.bytes()
	c := &cursor{g: g, scan: newScanner(g, log[:end]), batch: make([]item, 0, cursorBatch)}
	c.scan.trusted = trusted
	return c
}

// at makes the cursor tell which records were current in a snapshot.
func (c *cursor) at(snap *snapshot) *cursor {
	c.current = func(h uint64, key []byte, off int64) int64 {
		if snap.holds(h, key, off) {
			return off
		}
		return 0
	}
	c.home = func(h uint64) int { return int(snap.t.home(snap.dir[h>>snap.t.shift], h)) }
	return c
}

// now makes the cursor tell which records are current when it comes to them.
func (c *cursor) now() *cursor {
	c.current = func(h uint64, key []byte, _ int64) int64 { return c.g.index.find(h, key) }
	c.home = func(h uint64) int {
		t := c.g.index.table.Load()
		return int(t.home(t.dir[h>>t.shift].Load(), h))
	}
	c.hint = func(h uint64) (touched int) {
		if p, ok := c.g.log.payload(c.g.index.hint(h)); ok {
			touched = int(p[0])
		}
		return touched
	}
	return c
}

// next returns the next records, none at the end. They alias the mapping. An
// error is why the record at scan.off cannot be read.
func (c *cursor) next() (items []item, err error) {
	c.batch = c.batch[:0]
	if err := c.read(); err != nil && len(c.batch) == 0 {
		return nil, err // else first those that could be read
	}
	if err := c.resolve(); err != nil {
		return nil, err
	}
	return c.batch, nil
}

// read reads records into the batch.
func (c *cursor) read() (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(c.g.mapped, &err)
	for n := len(c.batch); n < cursorBatch && c.scan.off < int64(len(c.scan.log)); {
		it := &c.batch[:n+1][n]
		if err := c.scan.read(&it.logRecord); err != nil {
			return err
		}
		if c.want == nil || c.want(&it.entry) {
			it.hash = c.g.index.hash.sum(it.entry.Key)
			n++
			c.batch = c.batch[:n]
		}
	}
	return nil
}

// resolve finds out which records of the batch are current.
func (c *cursor) resolve() (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(c.g.mapped, &err)
	touched := 0
	for i := range c.batch {
		touched += c.home(c.batch[i].hash)
	}
	if c.hint != nil {
		for i := range c.batch {
			touched += c.hint(c.batch[i].hash)
		}
	}
	for i := range c.batch {
		it := &c.batch[i]
		it.current = c.current(it.hash, it.entry.Key, it.off)
		touched += touch(it.entry.Value)
	}
	runtime.KeepAlive(touched)
	runtime.KeepAlive(c.g)
	return nil
}

// touch reads a byte of each page of v, so that a page which cannot be had faults
// here, under the guard, and not in the caller's loop.
func touch(v []byte) (sum int) {
	for i := 0; i < len(v); i += 4096 {
		sum += int(v[i])
	}
	if len(v) > 0 {
		sum += int(v[len(v)-1])
	}
	return sum
}
