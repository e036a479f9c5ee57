package kv

import (
	"errors"
	"runtime"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// followed returns the generation that a handle reads from which follows others, having
// taken in what is new: one load if nothing is.
func (s *Store) followed(g *generation) (*generation, error) {
	word, err := g.word()
	if err != nil || word <= uint64(g.end.Load()) { // the superseded bit is the highest
		return g, err
	}
	if s.opts.Shared && g.awaitOwn(word) {
		return g, nil
	}
	return s.catchUp()
}

// catchUp takes in what others have published since the handle last
// looked, and returns the generation to read from. Its cost is that of what is
// new; after a compaction, that of opening the store.
func (s *Store) catchUp() (_ *generation, err error) {
	s.follow.Lock()
	defer s.follow.Unlock()
	g := s.gen.Load()
	if g == nil {
		return nil, ErrClosed
	}
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	word := g.tailWord().Load()
	if word&crc.Superseded != 0 {
		// If the path still names the file, the rename is about to come, or the
		// writer died before it: the next read looks again.
		if at, err := g.file.IsAt(s.path); err != nil || !at {
			s.takeRest(g)
			return s.switchOver(g)
		}
	}
	off, err := s.takeIn(g, int64(word&^crc.Superseded))
	torn := errors.Is(err, crc.ErrSum) || errors.Is(err, crc.ErrNoRecord) || errors.Is(err, crc.ErrBounds)
	if torn && s.opts.ReadOnly && g.end.Load() >= g.durableMark().Off && !s.writerLives(g.file) {
		// A power cut left the tail word beyond the records. The next writer will
		// set it right.
		return g, nil
	}
	return g, s.wrapRecord("follow", g, off, err)
}

// takeRest takes in what a generation that has been replaced was given since the last look, if
// anybody watches: its file is about to be closed. Where that fails, the watch sees that it
// does not have all of it.
func (s *Store) takeRest(g *generation) {
	if !s.waiting.any() {
		return
	}
	if word, err := g.word(); err == nil { // after the look at the path: nothing is appended any more
		_, _ = s.takeIn(g, int64(word&^crc.Superseded))
	}
}

// switchOver opens the generation that is at the path now. The caller holds follow.
func (s *Store) switchOver(old *generation) (*generation, error) {
	if s.closing.Err() != nil {
		return nil, ErrClosed
	}
	// Nobody syncs a file that is about to be closed; and what is durable in the new one waits
	// here until its name is.
	s.sync.lead(0)
	defer s.sync.leave(0)
	g, err := s.openToFollow()
	if err != nil {
		return nil, err
	}
	if g.header.StoreID != old.header.StoreID {
		err = errReplaced
	} else if s.opts.Shared {
		err = s.distrust(g)
	}
	if err != nil {
		g.file.Close()
		return nil, err
	}
	s.gen.Store(g)
	s.compactFrom.Store(s.compactFloor()) // what put it off was dead in the old one
	s.finishResume(g)
	old.file.Close()
	return g, nil
}

// takeIn enters the records up to end, which the writer has published. off is where
// it met an error.
func (s *Store) takeIn(g *generation, end int64) (off int64, err error) {
	defer runtime.KeepAlive(g)
	if end > g.file.Size() {
		if err := g.refresh(); err != nil {
			return 0, err
		}
	}
	log := g.bytes()
	if end > int64(len(log)) {
		return g.end.Load(), crc.ErrBounds
	}
	scan := newScanner(g, log[:end])
	scan.off, scan.revision = g.end.Load(), g.revision.Load()
	for scan.off < end {
		if end-scan.off > takeInShort && g.applying.Load() == nil {
			if err := s.takeInSingles(g, &scan); err != nil || scan.off == end {
				return scan.off, err
			}
		}
		from, earlier := scan.off, before{at: make(map[string]int)}
		r, err := scan.next()
		for err == nil && r.more {
			earlier.note(g, r.entry.Key)
			r, err = scan.next()
		}
		if err != nil {
			return scan.off, err
		}
		if len(earlier.off) == 0 {
			err = s.enterRecord(g, &r)
		} else {
			earlier.note(g, r.entry.Key)
			err = s.enterRun(g, scan.log[:scan.off], from, &earlier)
		}
		if err != nil {
			return from, err
		}
	}
	return scan.off, nil
}

// enterRun enters the transaction that lies from off to the end of log, and has been verified.
// Nobody sees a part of it, be it by the index or by where the log ends. Where it fails in the
// middle the screen stays, and the next try begins with the first record again.
func (s *Store) enterRun(g *generation, log []byte, off int64, earlier *before) (err error) {
	g.index.mu.Lock()
	defer g.index.mu.Unlock()
	last, count, mortal := g.last, g.count.Load(), g.mortal.Load()
	defer func() {
		if g.applying.Load() != nil { // a fault too
			g.last = last
			g.count.Store(count)
			g.mortal.Store(mortal)
		}
	}()
	g.applying.Store(earlier)
	scan := scanner{log: log, header: &g.header, off: off, trusted: true}
	for scan.off < int64(len(log)) {
		r, err := scan.next()
		if err == nil {
			s.clock.seen(r.entry.Written)
			err = g.enter(&r.entry, g.index.hash.sum(r.entry.Key), r.off, r.size)
		}
		if err != nil {
			return err
		}
	}
	g.applying.Store(nil) // before the end: who sees that all is taken in reads all of it
	g.end.Store(scan.off)
	g.revision.Store(max(g.header.BaseRevision, scan.revision))
	return nil
}

// takeInShort is how many bytes of the log are entered record by record.
const takeInShort = 32 << 10

// takeInSingles enters records as recovery does, from where scan is up to the next transaction
// of several records, or the end: nobody sees less of one record than of all.
func (s *Store) takeInSingles(g *generation, scan *scanner) (err error) {
	in := s.newIntake(g, scan.off)
	for r := new(logRecord); err == nil && scan.off < int64(len(scan.log)); {
		before := *scan
		if err = scan.read(r); err == nil && r.more {
			*scan = before
			break
		}
		if err == nil {
			_, err = in.add(r) // a record by itself always fits
		}
	}
	if inErr := in.close(); inErr != nil {
		return inErr
	}
	return err
}

// refresh maps what another process has added to the file.
func (g *generation) refresh() error {
	g.growing.Lock()
	defer g.growing.Unlock()
	if err := g.file.Refresh(); err != nil {
		return err
	}
	g.remap()
	return nil
}
