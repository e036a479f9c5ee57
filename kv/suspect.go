package kv

import (
	"bytes"
	"context"
	"iter"
	"os"
	"runtime"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// Suspect is a record that seems to have been in bytes which Options.Salvage passed
// over. Its sum is wrong: nothing vouches for any of it.
type Suspect struct {
	Off      int64  // bytes from the start of the file
	Key      []byte // the caller's
	Revision uint64 // 0: it cannot be read
	Deleted  bool   // it seems to be a tombstone
}

// suspectStep is how many bytes are looked through at once.
const suspectStep = 1 << 20

// Suspects yields what can be told of the records in the missing ranges of a
// salvaged store, in the order of the file: those of which all but the sum makes
// sense, and where a record must have begun, one of which the key can be read. What
// has left no trace is not among them. An error ends the loop.
func (s *Store) Suspects(ctx context.Context) iter.Seq2[Suspect, error] {
	return func(yield func(Suspect, error) bool) {
		g, err := s.enter()
		if err != nil {
			yield(Suspect{}, s.wrap("scan", 0, err))
			return
		}
		for i, r := range g.missing {
			if r.Off < crc.HeaderSize {
				continue
			}
			d := s.newDebris(g, r, g.reached[i])
			for d.off < int64(len(d.log)) {
				found, err := d.next()
				if fault, ok := err.(*mmapfile.FaultError); ok {
					d.passOver(fault.Off)
				}
				if err := ctx.Err(); err != nil {
					yield(Suspect{}, s.wrap("scan", d.off, err))
					return
				}
				if found != nil && !yield(*found, nil) {
					return
				}
			}
			runtime.KeepAlive(g)
		}
	}
}

// debris is a damaged range that is looked through.
type debris struct {
	mapped      *mmapfile.File
	log         []byte // ends with the range
	off         int64
	begin       int64  // where a record must have begun
	after, last uint64 // the revisions in the range are above after and up to last
}

func (s *Store) newDebris(g *generation, r Range, after uint64) *debris {
	log := g.bytes()
	d := &debris{mapped: g.mapped, off: r.Off, begin: r.Off, after: after, last: maxRevision}
	d.log = log[:min(r.Off+r.Len, int64(len(log)))]
	next := newScanner(g, log)
	next.off, next.missing = int64(len(d.log)), nil
	if rec, err := d.read(&next); err == nil {
		d.last = rec.entry.Revision - 1
	}
	return d
}

// passOver goes on behind what met a fault at the byte at off.
func (d *debris) passOver(off int64) {
	if d.off += crc.Align; pageOf(off) < d.off+crc.FrameSize-crc.Align {
		d.off = max(d.off, pageOf(off)+int64(os.Getpagesize())) // not even a frame can be read there
	}
}

// read is the scanner's next under a guard.
func (d *debris) read(scan *scanner) (r logRecord, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(d.mapped, &err)
	return scan.next()
}

// next steps on to the next suspect, or some way.
func (d *debris) next() (found *Suspect, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(d.mapped, &err)
	for end := min(int64(len(d.log)), d.off+suspectStep); d.off < end; d.off += crc.Align {
		rec, err := crc.Read(d.log, d.off)
		if err == nil {
			if isEntry(rec.Payload, d.after, d.last) {
				e, _ := codec.Decode(rec.Payload)
				found = &Suspect{Off: d.off, Key: bytes.Clone(e.Key), Revision: e.Revision, Deleted: e.Kind == codec.Delete}
				d.off += rec.Size
				d.begin = d.off
				return found, nil
			}
		}
		if d.off == d.begin && int64(len(d.log))-d.off > crc.FrameSize {
			if key, ok := codec.Key(d.log[d.off+crc.FrameSize:]); ok && len(key) <= MaxKeySize {
				found = &Suspect{Off: d.off, Key: bytes.Clone(key)}
				d.off += crc.Align
				return found, nil
			}
		}
	}
	return nil, nil
}
