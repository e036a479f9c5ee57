package kv

import (
	"bytes"
	"errors"
	"os"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
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
	mapped   *mmapfile.File // whose faults resync passes over
	log      []byte         // the file's bytes from 0 to where the scan ends
	header   *crc.Header    // the file's
	off      int64          // of the next record
	revision uint64         // of the last record
	more     bool           // the last record's transaction goes on

	trusted bool    // look at no sum: the records verified when they were entered
	missing []Range // damaged ranges to pass over
	search  *search // nil: no damage has been met so far
}

func newScanner(g *generation, log []byte) scanner {
	return scanner{mapped: g.mapped, log: log, header: &g.header, off: crc.HeaderSize, missing: g.missing}
}

// next returns the next record. Where none verifies it returns the reason and
// stays where it is.
func (c *scanner) next() (r logRecord, err error) {
	if err = c.read(&r); err != nil {
		return logRecord{}, err
	}
	return r, nil
}

// read is next into r, which without a record has no meaning: a record is much to
// copy from function to function.
func (c *scanner) read(r *logRecord) error {
	for len(c.missing) > 0 && c.missing[0].Off <= c.off {
		c.off = max(c.off, c.missing[0].Off+c.missing[0].Len)
		c.missing = c.missing[1:]
	}
	err := errNoGap
	if next, ok := crc.Gap(c.log, c.off); ok && !c.more {
		err = c.afterGap(next, r)
	}
	if err == errNoGap {
		err = c.at(c.off, r)
	}
	if err != nil {
		return err
	}
	c.off, c.revision, c.more = r.off+r.size, r.entry.Revision, r.more
	return nil
}

// at reads the record at off into r.
func (c *scanner) at(off int64, r *logRecord) (err error) {
	var rec crc.Record
	switch {
	case c.trusted:
		rec, err = crc.Read(c.log, off)
	case c.search != nil:
		rec, err = c.search.verify(c, off)
	default:
		rec, err = crc.Verify(c.log, off, c.header.Salt)
	}
	if err != nil {
		return err
	}
	if r.entry, err = codec.Decode(rec.Payload); err != nil {
		return err
	}
	if !c.follows(r.entry.Revision) {
		return errOrder
	}
	r.off, r.size, r.more, r.payload = off, rec.Size, rec.Flags&crc.FlagMore != 0, rec.Payload
	return nil
}

var errNoGap = errors.New("no gap")

// afterGap reads the record that begins the next page, at next, into r, if no
// mutation lies between: its revision is the very next. So a gap never hides a
// record that was lost.
func (c *scanner) afterGap(next int64, r *logRecord) error {
	err := c.at(next, r)
	want := c.revision + 1
	if c.off == c.header.BaseEnd {
		want = max(want, c.header.BaseRevision+1)
	}
	switch {
	case errors.Is(err, crc.ErrFlags):
		return err // a later version wrote it
	case err != nil || !c.trusted && r.entry.Revision != want:
		return errNoGap
	}
	return nil
}

// follows tells whether the next record may have that revision.
func (c *scanner) follows(revision uint64) bool {
	return revision > c.revision && revision <= maxRevision
}

// resync moves to the next offset at which a record verifies, and tells whether
// there is one. The sum binds each record to its file and its offset, so none is
// found where none was written. Pages that cannot be read are passed over. From
// here on the scanner bounds what it sums in vain.
func (c *scanner) resync() bool {
	if c.search == nil {
		c.search = newSearch(int64(len(c.log)))
	}
	for at := c.off + crc.Align; ; {
		found, err := c.seek(&at)
		fault, ok := err.(*mmapfile.FaultError)
		if !ok {
			c.off = at
			return found
		}
		page, again := c.search.lose(fault.Off)
		switch {
		case page-at < crc.FrameSize: // no frame before the end of the page can be read
			at = max(at+crc.Align, page+int64(os.Getpagesize()))
		case again:
			at += crc.Align
		}
	}
}

// seek steps *at on to where a record verifies, or to the end of the log.
func (c *scanner) seek(at *int64) (found bool, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(c.mapped, &err)
	for ; *at < int64(len(c.log)); *at += crc.Align {
		if crc.Plausible(c.log, *at) {
			if _, err := c.search.verify(c, *at); err == nil {
				return true, nil
			}
		}
	}
	*at = int64(len(c.log))
	return false, nil
}

// writtenEnd returns the end of the last word of the log that is not zero. A page that
// cannot be read counts as written.
func (c *scanner) writtenEnd() (end int64) {
	var fault error
	defer func() {
		if f, ok := fault.(*mmapfile.FaultError); ok {
			end = min(pageOf(f.Off)+int64(os.Getpagesize()), int64(len(c.log)))
		}
	}()
	guard := mmapfile.EnterGuard()
	defer guard.Exit(c.mapped, &fault)
	n := len(bytes.TrimRight(c.log, "\x00"))
	return min(int64(n+crc.Align-1)&^(crc.Align-1), int64(len(c.log)))
}

// gapsBehind counts the gaps between records that verify behind the scan's end: for
// each a sync was begun after the record before it.
func (c *scanner) gapsBehind() (n int) {
	ahead := *c
	for ahead.search = nil; ahead.resync(); {
		for {
			from := ahead.off
			r, err := ahead.next()
			if err != nil {
				break
			}
			if r.off != from {
				n++
			}
		}
	}
	return n
}
