package kv

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"runtime"
	"slices"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// recover rebuilds the index of g from its log, or brings one that a checkpoint gave
// up to date. The first record that does not
// verify ends the log. At or beyond the durable mark that is a torn write, which
// was never promised to anybody; before it, it is corruption: refused, or with
// Options.Salvage passed over. recover changes nothing on disk.
func (s *Store) recover(g *generation, h *head) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	defer runtime.KeepAlive(g)
	mark := h.mark
	s.clock.seen(mark.Stamp)
	promised := mark.Off
	log := g.bytes()
	byRecords := false // as far as there are any, though a writer may come meanwhile
	if (s.opts.ReadOnly || h.shared) && !h.unreadable {
		lives := h.shared || s.writerLives(g.file)
		byRecords = !lives
		// A writer may have added to the file since it was mapped.
		word := g.tailWord().Load()
		if err := g.refresh(); err != nil {
			return err
		}
		log = g.bytes()
		log = log[:min(int64(len(log)), g.file.Size())] // who wrote it may have cut it since, and closed it
		if lives {
			// Behind the tail of a writer that lives are records which it has not
			// published, and may not. Without one, a tail word that a power cut left
			// says nothing: the records do.
			tail := int64(word &^ crc.Superseded)
			switch ok := tail >= mark.Off && tail <= int64(len(log)) && tail%crc.Align == 0; {
			case ok:
				log, promised = log[:tail], tail
			case !s.opts.Salvage:
				return &CorruptError{Path: s.path, Ranges: []Range{{crc.TailOff, 8}}, What: "the tail word is not where a log can end"}
			}
		}
	}

	scan := newScanner(g, log[:min(int64(len(log)), maxFileSize)])
	resumed := g.unverified.Load() > 0
	if resumed {
		scan.off, scan.revision = g.end.Load(), g.revision.Load()
	}
	run, why, err := s.replay(g, &scan)
	if byRecords {
		if g.end.Load() > int64(g.tailWord().Load()&^crc.Superseded) && s.writerLives(g.file) {
			return errCame
		}
		if fault, ok := why.(*mmapfile.FaultError); ok {
			if err := g.refresh(); err != nil {
				return err
			}
			if size := g.file.Size(); fault.Off >= size {
				// Who came, and may have gone again, has cut off what it had no use for.
				why, scan.log = crc.ErrBounds, scan.log[:max(scan.off, size)]
			}
		}
	}
	if h.unmarked && (!s.opts.SyncAligned || scan.gapsBehind() > 1) {
		// Torn or damaged, nobody can tell: nothing is dropped. With no log at all,
		// nobody can tell that there was none. With Options.SyncAligned the page of the
		// marks may have been in flight, and with it what a sync was to cover and what was
		// written meanwhile. There is one gap between them.
		promised = max(promised, scan.writtenEnd(), crc.HeaderSize+crc.Align)
	}
	_, unreadable := why.(*mmapfile.FaultError)
	if err != nil || errors.Is(why, crc.ErrFlags) || unreadable && !s.opts.Salvage {
		return errors.Join(err, why)
	}
	g.synced.Store(min(mark.Off, g.end.Load()))
	// A record that was sealed as it is, and makes no sense, is no torn write.
	sealed := errors.Is(why, codec.ErrEntry) || why == errOrder
	if g.end.Load() >= promised && !sealed && !s.opts.Salvage {
		return nil
	}
	if resumed {
		return errDoubt
	}
	if sealed || g.end.Load() < promised {
		// What is missing, of the record's sense or of its transaction, is missing
		// here, though all bytes up to here may verify.
		promised = max(promised, scan.off+crc.Align)
	}
	damaged := scan.off
	if err := s.salvage(g, &scan, run, why, promised); err != nil || len(g.missing) == 0 {
		return err
	}
	corrupt := &CorruptError{Path: s.path, Ranges: slices.Clone(g.missing), What: cmp.Or(h.damage, why).Error()}
	if s.opts.Salvage {
		s.found(corrupt)
		return nil
	}
	return s.wrap("open", damaged, corrupt)
}

// errCame: a writer came while a log was read as far as there are records. The last ones may be
// its own, stored and not published.
var errCame = errors.New("a writer came")

// replay enters into the index of g what scan finds, run by run. It returns where
// the run begins of which the end was not found, and why the scan ended: a fault
// too, if it is one in what was to be scanned next. err is for want of memory.
func (s *Store) replay(g *generation, scan *scanner) (run int64, why, err error) {
	in := s.newIntake(g, scan.off)
	defer func() {
		if inErr := in.close(); err == nil {
			err = inErr
		}
	}()
	defer func() {
		if fault, ok := err.(*mmapfile.FaultError); ok && fault.Off >= scan.off && !in.hasFailed() {
			why, err = fault, nil
		}
	}()
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	progress := s.newProgress("recover", int64(len(scan.log)))
	r := new(logRecord)
	for {
		run = scan.off
		for fits, more := true, true; more; more = r.more {
			if why := scan.read(r); why != nil {
				return run, why, nil
			}
			if fits {
				if fits, err = in.add(r); err != nil {
					return run, nil, err
				}
			}
			if !fits && !r.more {
				// The run may be longer than memory: it was read once to see its end, and
				// is read again to enter it.
				if err := in.addSpan(scan.log, run, scan.off); err != nil {
					return run, nil, err
				}
			}
		}
		progress.at(scan.off)
	}
}

// enterSpan enters the records of [from, end), which have been verified.
func (s *Store) enterSpan(g *generation, log []byte, from, end int64) error {
	scan := scanner{log: log[:end], header: &g.header, off: from, trusted: true}
	for scan.off < end {
		r, err := scan.next()
		if err == nil {
			err = s.enterRecord(g, &r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// enterRecord enters a record that lies at the end of the log.
func (s *Store) enterRecord(g *generation, r *logRecord) error {
	g.index.mu.Lock()
	defer g.index.mu.Unlock()
	s.clock.seen(r.entry.Written)
	if err := g.enter(&r.entry, g.index.hash.sum(r.entry.Key), r.off, r.size); err != nil {
		return err
	}
	g.end.Store(r.off + r.size)
	g.revision.Store(max(g.header.BaseRevision, r.entry.Revision))
	return nil
}

// salvage goes on where replay ended, for the reason why, within a run that begins
// at run: it notes the damaged ranges in g.missing, and enters what verifies, be it
// a part of a transaction. Damage at or beyond durable with nothing behind it is a
// torn tail, unless it is a page that cannot be read: nobody knows what that holds.
func (s *Store) salvage(g *generation, scan *scanner, run int64, why error, durable int64) (err error) {
	for {
		from := scan.off
		found := scan.resync()
		if fault, ok := why.(*mmapfile.FaultError); ok {
			scan.search.lose(fault.Off)
		}
		end := max(durable, min(scan.search.lostEnd(), int64(len(scan.log))))
		if !found && from >= end {
			return nil
		}
		if err := s.enterSpan(g, scan.log, run, from); err != nil {
			return err
		}
		g.reached = append(g.reached, scan.revision)
		if !found {
			g.missing = append(g.missing, Range{Off: from, Len: end - from})
			return nil
		}
		g.missing = append(g.missing, Range{Off: from, Len: scan.off - from})
		if run, why, err = s.replay(g, scan); err != nil {
			return err
		}
	}
}

// settle makes the disk agree with what recovery shows, before anything new is
// written, let alone acknowledged. died says that the last holder did not close.
func (s *Store) settle(g *generation, died bool) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	end := g.end.Load()
	from := g.synced.Load()
	size := g.file.Size()
	length, err := s.trimmed(g)
	if err != nil {
		return err
	}
	g.seal(s.opts.SyncAligned)
	boot := g.log.current.Load().Word(crc.BootOff).Load()
	first := boot == 0 || boot != mmapfile.BootID() // since the machine started
	// A recovery that did not come to its end may have cut a torn tail off, of which
	// nothing can be seen, without syncing that.
	doubt := first || died
	b := g.bytes()
	original, copied := b[:crc.ImmutableSize], b[crc.CopyOff:crc.HeaderSize]
	lost := !bytes.Equal(original, copied)
	if lost {
		s.found(&CorruptError{Path: s.path, Ranges: []Range{copyPart}, What: "the copy of the header is not one; it is written again"})
		copy(copied, original)
	}
	if from != end || size != length || lost || g.tailWord().Load() != uint64(end) {
		s.opts.Logger.Info("recovered", "path", s.path, "records", g.count.Load(),
			"end", end, "durable", from, "cut", size-length)
		if err := s.settleTail(g, from, end, length, first, doubt); err != nil {
			return err
		}
	} else if doubt {
		if err := g.file.SyncFile(); err != nil {
			return err
		}
	}
	// Only now can readers believe the tail word.
	g.log.current.Load().Word(crc.BootOff).Store(mmapfile.BootID())
	return nil
}

func (s *Store) settleTail(g *generation, from, end, length int64, first, doubt bool) error {
	cut := g.file.Size() > length
	if cut {
		// What may lie behind a torn record must never follow a new one. A crash
		// here leaves the same torn tail, or none.
		if err := g.file.Truncate(length); err != nil {
			return err
		}
	}
	if cut || doubt {
		if err := g.file.SyncFile(); err != nil {
			return err
		}
	}
	// After a kill the page cache shows records that never reached the disk, and
	// after a failed sync it calls such pages clean. A page that is stored to is
	// dirty again, so that this sync writes it.
	//
	// With Options.SyncAligned a page that may hold durable records is left alone where
	// that can be told: what a gap follows was synced before, and what was found when
	// the machine started came from the device.
	redo := from
	if s.opts.SyncAligned {
		if next, ok := crc.Gap(g.bytes(), from); ok {
			redo = min(next, end)
		}
		if first {
			redo = end
		}
	}
	g.storeAgain(redo, end)
	if err := g.file.Sync(redo, end-redo); err != nil {
		return err
	}
	g.tailWord().Store(uint64(end))
	g.wake()
	if err := s.mark(g, end, g.revision.Load()); err != nil {
		return err
	}
	return s.syncMark(g)
}

// storeAgain makes the pages that hold [from, end) dirty.
func (g *generation) storeAgain(from, end int64) {
	m := g.log.current.Load()
	page := int64(os.Getpagesize())
	for off := from &^ (page - 1); off < end && from < end; off += page {
		m.Word(off).Add(0)
	}
}
