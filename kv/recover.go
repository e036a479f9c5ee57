package kv

import (
	"errors"
	"os"
	"runtime"
	"slices"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// recover rebuilds the index of g from its log. The first record that does not
// verify ends the log. At or beyond the durable mark that is a torn write, which
// was never promised to anybody; before it, it is corruption: refused, or with
// Options.Salvage passed over. recover changes nothing on disk.
func (s *Store) recover(g *generation, mark crc.Mark) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	log := g.bytes()
	defer runtime.KeepAlive(g)
	s.clock.advance(mark.Stamp)
	promised := mark.Off
	if s.opts.ReadOnly {
		word := g.tailWord().Load()
		g.seen.Store(word)
		if tail := int64(word &^ crc.Superseded); tail <= int64(len(log)) && liveHolder(g.log.current.Load()) != 0 {
			// Behind the tail of a writer that lives are records which it has not
			// published, and may not. Without one, a tail word that a power cut left
			// says nothing: the records do.
			log, promised = log[:tail], tail
		}
	}

	scan := newScanner(g, log)
	why := s.replay(g, &scan)
	end := g.end.Load()
	g.synced.Store(min(mark.Off, end))
	switch {
	case errors.Is(why, crc.ErrFlags):
		return why
	case errors.Is(why, codec.ErrEntry), why == errOrder: // sealed as it is: no torn write
	case end >= promised && !s.opts.Salvage:
		return nil
	}
	if err := s.salvage(g, &scan, promised); err != nil {
		return err
	}
	if len(g.missing) == 0 {
		return nil
	}
	corrupt := &CorruptError{Path: s.path, Ranges: slices.Clone(g.missing), What: why.Error()}
	s.opts.Logger.Error("store is corrupt", "path", s.path, "salvage", s.opts.Salvage, "err", corrupt)
	if s.opts.Salvage {
		return nil
	}
	return &Error{Op: "open", Path: s.path, Offset: end, Err: corrupt}
}

// replay enters into the index of g every record that scan finds, and leaves out
// a transaction of which the end is missing. It returns why the scan ended.
func (s *Store) replay(g *generation, scan *scanner) error {
	var run []logRecord // of the transaction under way
	progress := s.newProgress("recover", int64(len(scan.log)))
	g.index.mu.Lock()
	defer g.index.mu.Unlock()
	for {
		r, err := scan.next()
		if err != nil {
			if len(run) > 0 {
				scan.off, scan.revision = run[0].off, run[0].entry.Revision-1
			}
			return err
		}
		progress.at(scan.off)
		if run = append(run, r); r.more {
			continue
		}
		for i := range run {
			if err := s.replayOne(g, &run[i]); err != nil {
				return err
			}
		}
		run = run[:0]
		g.end.Store(scan.off)
		g.revision.Store(max(g.header.BaseRevision, scan.revision))
	}
}

func (s *Store) replayOne(g *generation, r *logRecord) error {
	s.clock.advance(r.entry.Written)
	return g.enter(&r.entry, g.index.hash.sum(r.entry.Key), r.off, r.size)
}

// salvage goes on behind the place where replay ended: it notes the damaged
// ranges in g.missing, and enters what verifies after them.
func (s *Store) salvage(g *generation, scan *scanner, durable int64) error {
	budget := 4*int64(len(scan.log)) + 64<<20
	g.index.mu.Lock()
	defer g.index.mu.Unlock()
	for {
		from := scan.off
		found := scan.resync(&budget)
		switch {
		case found:
			g.missing = append(g.missing, Range{Off: from, Len: scan.off - from})
		case from < durable:
			g.missing = append(g.missing, Range{Off: from, Len: durable - from})
			return nil
		default:
			return nil // a torn tail, or slack
		}
		for {
			r, err := scan.next()
			if err != nil {
				break
			}
			if err := s.replayOne(g, &r); err != nil {
				return err
			}
			g.end.Store(scan.off)
			g.revision.Store(max(g.header.BaseRevision, scan.revision))
		}
	}
}

// settle makes the disk agree with what recovery shows, before anything new is
// written, let alone acknowledged.
func (s *Store) settle(g *generation) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	end := g.end.Load()
	from := g.synced.Load()
	size := g.file.Size()
	if from != end || size != end || g.tailWord().Load() != uint64(end) {
		s.opts.Logger.Info("recovered", "path", s.path, "records", g.count.Load(), "keys", g.index.keys.Load(),
			"end", end, "durable", from, "cut", size-end)
		if err := s.settleTail(g, from, end); err != nil {
			return err
		}
	}
	// Only now can readers believe the tail word.
	g.log.current.Load().Word(crc.BootOff).Store(mmapfile.BootID())
	return nil
}

func (s *Store) settleTail(g *generation, from, end int64) error {
	if g.file.Size() > end {
		// What may lie behind a torn record must never follow a new one. A crash
		// here leaves the same torn tail, or none.
		if err := g.file.Truncate(end); err != nil {
			return err
		}
		if err := g.file.SyncFile(); err != nil {
			return err
		}
	}
	// After a kill the page cache shows records that never reached the disk, and
	// after a failed sync it calls such pages clean. A page that is stored to is
	// dirty again, so that this sync writes it.
	m := g.log.current.Load()
	page := int64(os.Getpagesize())
	for off := from &^ (page - 1); off < end; off += page {
		m.Word(off).Add(0)
	}
	if err := g.file.Sync(from, end-from); err != nil {
		return err
	}
	g.tailWord().Store(uint64(end))
	if err := s.mark(g, end, g.revision.Load()); err != nil {
		return err
	}
	return s.syncMark(g)
}
