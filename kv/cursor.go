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
	hint    func(h uint64)

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
	c.hint = func(uint64) {}
	return c
}

// now makes the cursor tell which records are current when it comes to them.
func (c *cursor) now() *cursor {
	c.current = func(h uint64, key []byte, _ int64) int64 { return c.g.index.find(h, key) }
	c.hint = func(h uint64) { c.g.index.hint(h) }
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
	for len(c.batch) < cursorBatch && c.scan.off < int64(len(c.scan.log)) {
		r, err := c.scan.next()
		if err != nil {
			return err
		}
		it := item{logRecord: r}
		if c.want == nil || c.want(&r.entry) {
			it.hash = c.g.index.hash.sum(r.entry.Key)
			c.hint(it.hash)
			c.batch = append(c.batch, it)
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
