package kv

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// Report is what Verify found.
type Report struct {
	Records    int64 // in the log, dead ones included
	Tombstones int64
	Keys       int64
	LiveBytes  int64 // of the records that the index points at
	DeadBytes  int64 // of all others
	// Violations lists every invariant that does not hold, in the order of the
	// file. Empty: the store is sound.
	Violations []Violation
}

// Violation is one invariant that does not hold.
type Violation struct {
	Off  int64 // bytes from the start of the file; 0: no place in it
	What string
}

func (v Violation) String() string { return fmt.Sprintf("offset %d: %s", v.Off, v.What) }

func (r *Report) violate(off int64, format string, args ...any) {
	r.Violations = append(r.Violations, Violation{off, fmt.Sprintf(format, args...)})
}

// Verify reads the whole log and checks every invariant that DESIGN.md numbers,
// on a snapshot, while readers and writers go on. It changes nothing. An error,
// that of ctx for instance, says that it could not finish; what it found wrong is
// in the Report. A store that Open refuses can be verified with Options.Salvage.
func (s *Store) Verify(ctx context.Context) (Report, error) {
	v, err := s.view()
	if err != nil {
		return Report{}, s.wrap("verify", 0, err)
	}
	defer v.snap.release()
	r := verification{lost: make(map[uint64]int64)}
	err = s.verifyLog(ctx, v, &r)
	runtime.KeepAlive(v.g)
	return r.Report, s.wrap("verify", 0, err)
}

// verification is a Report that is being made.
type verification struct {
	Report
	// lost are the offsets of puts without a slot and, so far, without a tombstone,
	// by the hash of their key.
	lost map[uint64]int64
}

func (s *Store) verifyLog(ctx context.Context, v *view, r *verification) error {
	for _, m := range v.g.missing {
		if m.Off < crc.HeaderSize {
			continue // verifyIndex tells more
		}
		r.violate(m.Off, "%d bytes hold no record that verifies", m.Len)
	}
	progress := s.newProgress("verify", v.end)
	cur := newCursor(v.g, v.end, false).at(v.snap)
	cur.current = func(h uint64, key []byte, _ int64) int64 { return v.snap.find(h, key) }
	more := false
	for {
		items, err := cur.next()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			off := cur.scan.off
			r.violate(off, "record: %v", err)
			found := cur.scan.resync()
			s.found(&CorruptError{Path: s.path, Ranges: []Range{{Off: off, Len: cur.scan.off - off}}, What: err.Error()})
			if !found {
				return nil
			}
			continue
		case len(items) == 0:
			if more {
				r.violate(v.end, "the log ends within a transaction")
			}
			return s.verifyIndex(v, r)
		}
		for i := range items {
			r.count(&items[i])
			more = items[i].more
		}
		progress.at(cur.scan.off)
	}
}

func (r *verification) count(it *item) {
	r.Records++
	if it.entry.Kind == codec.Delete {
		r.Tombstones++
	}
	switch {
	case it.entry.Kind == codec.Put && it.current == 0:
		r.lost[it.hash] = it.off // unless a tombstone follows
	default:
		delete(r.lost, it.hash)
	}
	if it.current > 0 && it.current < it.off {
		r.violate(it.off, "the index still names the older record at %d", it.current)
	}
	if it.live() && it.entry.Kind == codec.Delete {
		r.violate(it.off, "the index names a tombstone")
	}
	if it.live() {
		r.Keys++
		r.LiveBytes += it.size
	} else {
		r.DeadBytes += it.size
	}
}

// verifyIndex compares what was counted in the log with what the index counts.
func (s *Store) verifyIndex(v *view, r *verification) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(v.g.mapped, &err)
	if v.snap.isBroken() {
		return errBroken
	}
	if r.Keys != v.keys {
		r.violate(0, "the index has %d keys, the log %d current records", v.keys, r.Keys)
	}
	if r.LiveBytes != v.live {
		r.violate(0, "%d live bytes are counted, the log has %d", v.live, r.LiveBytes)
	}
	if r.Records != v.count {
		r.violate(0, "%d records are counted, the log has %d", v.count, r.Records)
	}
	for _, off := range r.lost {
		r.violate(off, "the index does not have the key of this record")
	}
	head := v.g.bytes()[:crc.HeaderSize]
	for _, part := range []struct {
		name   string
		at     Range
		decode func([]byte) (crc.Header, error)
	}{{"header", immutablePart, crc.DecodeHeader}, {"copy of the header", copyPart, crc.DecodeCopy}} {
		if h, err := part.decode(head); err != nil || h != v.g.header {
			r.violate(part.at.Off, "the %s is not what it was when the store was opened: %v", part.name, err)
			s.found(&CorruptError{Path: s.path, Ranges: []Range{part.at}, What: "the " + part.name + " has changed"})
		}
	}
	// The mark first: the log may have grown since.
	mark, word := v.g.durableMark(), v.g.tailWord().Load()
	if mark.Off > max(v.g.end.Load(), int64(word&^crc.Superseded)) {
		r.violate(crc.MarkOff(0), "the durable mark, %d, lies beyond the tail", mark.Off)
	}
	ix := v.g.index
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if off := ix.loadAll(); off != 0 {
		return changedAt(-off)
	}
	for _, what := range ix.check() {
		r.violate(0, "%s", what)
	}
	return nil
}

// durableMark reads the mark from the header.
func (g *generation) durableMark() crc.Mark {
	return crc.DecodeMark(g.bytes()[:crc.HeaderSize], &g.header)
}

// WriteTo writes a consistent copy of the store, as it is now, that Open opens:
// a backup. Readers and writers go on. The copy has all that the log has, dead
// records included; each is verified on the way. All of it counts as durable
// there, so that a copy which was cut short or damaged later is refused by Open,
// not mended.
func (s *Store) WriteTo(w io.Writer) (n int64, err error) {
	v, err := s.view()
	if err != nil {
		return 0, s.wrap("write", 0, err)
	}
	v.snap.release() // a log up to a published tail is a store: the index is not needed
	if len(v.g.missing) > 0 {
		return 0, s.wrap("write", 0, &CorruptError{Path: s.path, Ranges: v.g.missing, What: "a salvaged store cannot be copied as it is"})
	}
	n, err = s.writeLog(w, v)
	runtime.KeepAlive(v.g)
	return n, wrapError("write", s.path, n, err) // what is left is w's own, or a fault
}

const copyChunk = 1 << 20 // bytes given to a Writer at once, at least

func (s *Store) writeLog(w io.Writer, v *view) (n int64, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(v.g.mapped, &err)
	head := make([]byte, crc.HeaderSize)
	crc.EncodeHeader(head, &v.g.header)
	putTail(head, uint64(v.end))
	crc.EncodeMark(head[crc.MarkOff(0):], crc.Mark{Off: v.end, Revision: v.revision, Stamp: s.clock.stamp()}, v.g.header.Salt)
	written, err := w.Write(head)
	n = int64(written)
	scan := newScanner(v.g, v.g.bytes()[:v.end])
	for err == nil && scan.off < v.end {
		if _, err = scan.next(); err != nil {
			return n, s.wrapRecord("write", v.g, scan.off, err)
		}
		if scan.off-n >= copyChunk || scan.off == v.end {
			written, err = w.Write(scan.log[n:scan.off])
			n += int64(written)
		}
	}
	return n, err
}
