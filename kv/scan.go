package kv

import (
	"errors"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
)

// errOrder: a record that verifies has a revision that is not above the one
// before it, or so high that the store could run out of them.
var errOrder = errors.New("revision out of order")

const maxRevision = 1<<63 - 1

// logRecord is a record that a scan has verified.
type logRecord struct {
	off, size int64
	more      bool // the next record belongs to the same transaction
	payload   []byte
	entry     codec.Entry // decoded from payload
}

// scanner reads the records of a log in order.
type scanner struct {
	log      []byte // the file's bytes from 0 to where the scan ends
	salt     uint64
	base     uint64 // revision of the store when the generation began
	off      int64  // of the next record
	revision uint64 // of the last record
	more     bool   // the last record's transaction goes on

	trusted bool    // look at no sum: the records verified when they were entered
	missing []Range // damaged ranges to pass over
}

func newScanner(g *generation, log []byte) scanner {
	missing := g.missing
	if len(missing) > 0 && missing[0] == immutablePart {
		missing = missing[1:]
	}
	return scanner{log: log, salt: g.header.Salt, base: g.header.BaseRevision, off: crc.HeaderSize, missing: missing}
}

// next returns the next record. Where none verifies it returns the reason and
// stays where it is.
func (c *scanner) next() (r logRecord, err error) {
	if len(c.missing) > 0 && c.missing[0].Off == c.off {
		c.off += c.missing[0].Len
		c.missing = c.missing[1:]
	}
	r, err = c.afterGap()
	if err == errNoGap {
		r, err = c.at(c.off)
	}
	if err != nil {
		return logRecord{}, err
	}
	c.off, c.revision, c.more = r.off+r.size, r.entry.Revision, r.more
	return r, nil
}

// at returns the record at off.
func (c *scanner) at(off int64) (r logRecord, err error) {
	var rec crc.Record
	if c.trusted {
		rec, err = crc.Read(c.log, off)
	} else {
		rec, err = crc.Verify(c.log, off, c.salt)
	}
	if err != nil {
		return r, err
	}
	if r.entry, err = codec.Decode(rec.Payload); err != nil {
		return r, err
	}
	if r.entry.Revision <= c.revision || r.entry.Revision > maxRevision {
		return r, errOrder
	}
	r.off, r.size, r.more, r.payload = off, rec.Size, rec.Flags&crc.FlagMore != 0, rec.Payload
	return r, nil
}

var errNoGap = errors.New("no gap")

// afterGap returns the record that begins the next page, if all that is left of
// this one is zero and no mutation lies between: its revision is the very next. So
// a gap never hides a record that was lost.
func (c *scanner) afterGap() (logRecord, error) {
	next, ok := crc.Gap(c.log, c.off)
	if !ok || c.more {
		return logRecord{}, errNoGap
	}
	r, err := c.at(next)
	switch {
	case errors.Is(err, crc.ErrFlags):
		return r, err // a later version wrote it
	case err != nil || !c.trusted && r.entry.Revision != max(c.base, c.revision)+1:
		return r, errNoGap
	}
	return r, nil
}

// resync moves to the next offset at which a record verifies, and tells whether
// there is one. The sum binds each record to its file and its offset, so none is
// found where none was written. budget bounds the bytes summed on the way, for a
// file may be made of claims.
func (c *scanner) resync(budget *int64) bool {
	for off := c.off + crc.Align; off < int64(len(c.log)); off += crc.Align {
		if !crc.Plausible(c.log, off) {
			continue
		}
		if p, _ := crc.Payload(c.log, off); int64(len(p)) <= *budget {
			*budget -= int64(len(p))
		} else {
			continue
		}
		probe := scanner{log: c.log, salt: c.salt, off: off, revision: c.revision}
		if _, err := probe.next(); err == nil {
			c.off = off
			return true
		}
	}
	c.off = int64(len(c.log))
	return false
}
