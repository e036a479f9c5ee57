package kv

import (
	"bytes"
	"runtime"
	"sync/atomic"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// liveWalk walks the log of a view in order, in search of the entries that were
// current. Of a dead record it reads the key and no more.
type liveWalk struct {
	v      *view
	scan   scanner
	prefix []byte // other keys are passed over

	batch [cursorBatch]liveEntry
	n     int // of batch
}

// liveEntry is a put, and, once resolved, what of it Iter passes on.
type liveEntry struct {
	hash    uint64
	off     int64
	payload []byte
	key     []byte
	value   []byte
	expiry  int64
	live    bool
}

// newLiveWalk checks the sum of each record unless trusted.
func newLiveWalk(v *view, prefix []byte, trusted bool) *liveWalk {
	w := &liveWalk{v: v, scan: newScanner(v.g, v.g.bytes()[:v.end]), prefix: prefix}
	w.scan.trusted = trusted
	return w
}

// next returns the next entries, live or not, and none at the end. They alias the
// mapping. An error is why the record at scan.off cannot be read.
func (w *liveWalk) next() ([]liveEntry, error) {
	w.n = 0
	if err := w.read(); err != nil && w.n == 0 {
		return nil, err // else first those that could be read
	}
	if err := w.resolve(); err != nil {
		return nil, err
	}
	return w.batch[:w.n], nil
}

// read reads records into the batch.
func (w *liveWalk) read() (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(w.v.g.mapped, &err)
	hash := &w.v.g.index.hash
	for scan := &w.scan; w.n < len(w.batch) && scan.off < int64(len(scan.log)); {
		e := &w.batch[w.n]
		if !w.readKey(e) {
			r, err := scan.next()
			if err != nil {
				return err
			}
			e.off, e.payload, e.key = r.off, r.payload, r.entry.Key
		}
		if bytes.HasPrefix(e.key, w.prefix) {
			e.hash = hash.sum(e.key)
			w.n++
		}
	}
	return nil
}

// readKey reads the next record as far as its key, if that is all there is to be read:
// sums, gaps and damaged ranges are for the scanner.
func (w *liveWalk) readKey(e *liveEntry) bool {
	scan := &w.scan
	if !scan.trusted || len(scan.missing) > 0 {
		return false
	}
	p, ok := crc.Payload(scan.log, scan.off)
	if !ok {
		return false
	}
	if e.key, ok = codec.Key(p); !ok {
		return false
	}
	e.off, e.payload = scan.off, p
	scan.off += crc.RecordSize(len(p))
	scan.more = false // nobody asked; a gap, if there is one, is none within a transaction
	return true
}

// resolve finds out which entries of the batch are live, and reads those. It touches
// the slots first, so that the misses overlap.
func (w *liveWalk) resolve() (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(w.v.g.mapped, &err)
	snap, touched := w.v.snap, 0
	for i := range w.batch[:w.n] {
		touched += int(snap.home(w.batch[i].hash))
	}
	for i := range w.batch[:w.n] {
		e := &w.batch[i]
		if e.live = snap.holds(e.hash, e.key, e.off); !e.live {
			continue
		}
		var ok bool
		if e.value, e.expiry, ok = codec.Value(e.payload); !ok {
			return errChanged
		}
		touched += touch(e.value)
	}
	runtime.KeepAlive(touched)
	runtime.KeepAlive(w.v.g)
	return nil
}

// home returns a word of the home bucket of h: to touch it.
func (s *snapshot) home(h uint64) uint64 { return s.t.home(s.dir[h>>s.t.shift], h) }

// home returns a word of the home bucket of h in the segment of a directory entry: to
// touch it.
func (t *table) home(entry, h uint64) uint64 {
	id := segmentID(entry)
	base := int(id%chunkSegments) << segmentBits
	return atomic.LoadUint64(&t.chunks[id/chunkSegments].words[base+int(h&t.mask)*bucketSlots])
}
