package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"runtime"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// Event is an entry, or a change, that a watch tells of.
type Event struct {
	Key, Value []byte // the receiver's own
	Revision   uint64 // of the change; see Watch for deletions by Clear
	Deleted    bool
	Expiry     time.Time // from here on the key is absent, without a further event; zero: never
	Missed     uint64    // changes that were passed over since the event before
	Err        error     // why the watch ended; then all else, but Missed, is zero
}

// watchBehind is how many revisions a watch may lie behind and tell of each.
const watchBehind = 1024

// Watch yields the entries whose key begins with prefix (nil: all) as they are now, expired
// ones left out, in the order in which they were written; and then every change to such keys,
// by whatever process, as it happens. It waits for changes until ctx ends, the store is closed,
// or the loop is left; a last event with Err tells of any other reason, such as ErrCorrupt or
// ErrFault. The body may use the store. A loop over what Watch returns is a watch of its own
// each time.
//
// Revisions ascend. The changes of a transaction follow each other, and none is told of before
// all are done. That an entry expires is no event: its Expiry says when. A change whose Expiry
// has passed is told of as it is.
//
// No writer waits for a watch. One that lies more than 1024 changes behind passes over those of
// keys that have been changed once more by then; the next event's Missed counts them. So at
// most the state of each key in between is lost. Where a compaction left such a change behind
// before the watch came to it, nobody knows its key any more: Missed counts it whatever the
// prefix, and is then an upper bound.
//
// After Clear, or where several compactions came while the body ran, a watch tells of each key
// that is gone, with the Revision of the change before, for it is not possible to resume in the
// midst of that; and then of those that were written.
//
// A change arrives some 40 µs after a Put of another process began, where the kernel alone
// takes 12 to 23 to wake a thread (2 busy cores). A Put that has to wake a watch takes 20 µs;
// one behind which the watch does not fall asleep takes no longer than without. A watch that
// sleeps takes 0.02 % of a processor at most, be there one or many of a store.
//
// A ReadOnly handle needs the permission to write the file for that, of which it then changes
// the word that says that somebody waits. Without it, and while no writer has the store open,
// and on macOS and FreeBSD always, it looks for changes instead: first after a millisecond, and
// when nothing happens less and less often, in the end every 20.
func (s *Store) Watch(ctx context.Context, prefix []byte) iter.Seq[Event] {
	return s.watch(ctx, prefix, nil, (*watch).listNow)
}

// WatchFrom is Watch without the entries as they are now: it yields each change with a revision
// above after, which is that of the last event that was dealt with, and goes on with what
// comes. ErrCompacted says that a compaction, or Clear, has left some of these changes behind:
// then Watch, and forget the keys that it does not yield. A revision above the store's is
// fs.ErrInvalid; after a power cut it may be that of a change that was lost, and be given to
// another.
//
// It reads the log from its beginning; or from the last durability point, where after is not
// before that.
func (s *Store) WatchFrom(ctx context.Context, prefix []byte, after uint64) iter.Seq[Event] {
	return s.watch(ctx, prefix, nil, resumeFrom(after))
}

// watch is one on its way.
type watch struct {
	s      *Store
	ctx    context.Context
	prefix []byte
	row    *catalogRow // of the map that the prefix is of; nil: of none
	yield  func(Event) bool

	g      *generation // nil until the beginning is over
	scan   scanner     // of the log of g: what it has passed has been told of
	seen   uint64      // the revision up to which all has been told of, or counted
	missed uint64      // since the last event
	word   uint64      // the tail word of g when news were looked for
}

// errEnded: the watch is to end, and to say nothing.
var errEnded = errors.New("watch ended")

func (s *Store) watch(ctx context.Context, prefix []byte, row *catalogRow, begin func(*watch) error) iter.Seq[Event] {
	prefix = bytes.Clone(prefix)
	return func(yield func(Event) bool) {
		w := &watch{s: s, ctx: ctx, prefix: prefix, row: row, yield: yield}
		s.waiting.join()
		defer s.waiting.leave()
		defer context.AfterFunc(ctx, s.waiting.kick)()
		err := begin(w)
		for err == nil {
			err = w.step()
		}
		if err != errEnded && !w.ended() {
			yield(Event{Missed: w.missed, Err: s.wrap("watch", 0, err)})
		}
	}
}

func (w *watch) ended() bool { return w.ctx.Err() != nil || w.s.closing.Err() != nil }

// tell yields e.
func (w *watch) tell(e Event) error {
	if w.ended() {
		return errEnded
	}
	e.Missed, w.missed = w.missed, 0
	if !w.yield(e) {
		return errEnded
	}
	return nil
}

// step tells of what is new, and waits for more.
func (w *watch) step() (err error) {
	g := w.g
	if w.word, err = g.word(); err != nil { // before the look: what comes later is news
		return err
	}
	now, err := w.s.enter()
	if err != nil {
		return err
	}
	// If g is not the current generation, this is where its log ends for good.
	end := g.end.Load()
	for w.scan.off < end {
		e, ok, err := w.next(end)
		if err != nil {
			return w.s.wrapRecord("watch", g, w.scan.off, err)
		}
		if w.ended() {
			return errEnded
		}
		if ok {
			if err := w.tell(e); err != nil {
				return err
			}
		}
	}
	if now != g {
		return w.moveTo(now)
	}
	w.s.waiting.wait(w)
	if w.ended() {
		return errEnded
	}
	return nil
}

// hasNews tells whether step would find anything new.
func (w *watch) hasNews() bool {
	word, err := w.g.word()
	if err != nil || word != w.word || w.g.end.Load() != w.scan.off || w.s.gen.Load() != w.g {
		return true
	}
	if word&crc.Superseded == 0 {
		return false
	}
	// The rename is about to come, or the writer died before it.
	at, err := w.g.file.IsAt(w.s.path)
	return err != nil || !at
}

// watchStretch is how many records are passed over until somebody asks whether to go on.
const watchStretch = 4096

// next reads on to the next record that is to be told of, or some way towards end.
func (w *watch) next(end int64) (_ Event, ok bool, err error) {
	g := w.g
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	defer runtime.KeepAlive(g)
	w.scan.log = g.bytes()[:end]
	var r logRecord
	for n := 0; n < watchStretch && w.scan.off < end; n++ {
		w.scan.trusted = !w.s.verifies(g, w.scan.off)
		if err := w.scan.read(&r); err != nil {
			return Event{}, false, err
		}
		behind := g.revision.Load() > w.seen+watchBehind
		if r.entry.Revision <= w.seen {
			continue
		}
		w.pass(r.entry.Revision)
		if !bytes.HasPrefix(r.entry.Key, w.prefix) {
			continue
		}
		if behind {
			current, err := g.isCurrent(&r)
			if err != nil {
				return Event{}, false, err
			}
			if !current {
				w.missed++
				continue
			}
		}
		return newEvent(&r.entry), true, w.checkRow(g)
	}
	return Event{}, false, nil
}

// pass counts the changes between the last one and that of revision, which a compaction left behind.
func (w *watch) pass(revision uint64) {
	w.missed += revision - w.seen - 1
	w.seen = revision
}

// isCurrent tells whether nothing has happened to the key of r since.
func (g *generation) isCurrent(r *logRecord) (bool, error) {
	off := g.find(g.index.hash.sum(r.entry.Key), r.entry.Key)
	if off < 0 {
		return false, changedAt(-off)
	}
	if r.entry.Kind == codec.Delete {
		return off == 0, nil
	}
	return off == r.off, nil
}

// checkRow returns an error if what is told of g would be read with the wrong codecs.
func (w *watch) checkRow(g *generation) error {
	if w.row == nil {
		return nil
	}
	if err := w.row.check(g); err != ErrNotFound {
		return err
	}
	return nil // the entries were put by who knows nothing of maps
}

func newEvent(e *codec.Entry) Event {
	own := Event{Key: bytes.Clone(e.Key), Revision: e.Revision, Deleted: e.Kind == codec.Delete}
	if !own.Deleted {
		own.Value = append([]byte{}, e.Value...)
	}
	if e.Expiry != 0 {
		own.Expiry = time.UnixMilli(e.Expiry)
	}
	return own
}

// listNow tells of what is there now.
func (w *watch) listNow() error {
	v, err := w.s.view()
	if err != nil {
		return err
	}
	defer v.snap.release()
	return w.list(v)
}

// list tells of the entries of v that are new, and goes on at its end. Of the beginning, where all
// are, none counts as missed.
func (w *watch) list(v *view) error {
	first := w.g == nil
	err := w.walk(v, func(e *liveEntry) error {
		if first && w.s.clock.expired(e.expiry) {
			return nil // later, it may have replaced what was told of
		}
		own, err := v.g.eventAt(e.off)
		if err != nil || own.Revision <= w.seen {
			return err
		}
		if first {
			w.seen = own.Revision
		} else {
			w.pass(own.Revision)
		}
		return w.tell(own)
	})
	if err != nil {
		return err
	}
	if !first {
		w.missed += v.revision - w.seen
	}
	w.goOn(v.g, v.end, v.revision)
	return nil
}

// goOn makes w read the log of g on from off, where all up to revision has been told of.
func (w *watch) goOn(g *generation, off int64, revision uint64) {
	w.g, w.seen = g, revision
	w.scan = newScanner(g, nil)
	w.scan.off, w.scan.revision = off, revision
}

// walk calls fn with the entries of v under the prefix, in the order of the log.
func (w *watch) walk(v *view, fn func(e *liveEntry) error) error {
	walk := newLiveWalk(v, w.prefix, !w.s.verifies(v.g, crc.HeaderSize))
	walk.thorough = true // so that the snapshot soon ends, however long fn takes
	for entries := range walk.batches() {
		if err := w.checkRow(v.g); err != nil {
			return err
		}
		for i := range entries {
			if err := fn(&entries[i]); err != nil {
				return err
			}
		}
		runtime.KeepAlive(v.g)
	}
	if walk.err != nil {
		return w.s.wrapRecord("watch", v.g, walk.off, walk.err)
	}
	return nil
}

// eventAt is newEvent of the record at off, which has been read.
func (g *generation) eventAt(off int64) (own Event, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	p, _ := g.log.payload(off)
	e, err := codec.Decode(p)
	if err != nil {
		return Event{}, changedAt(off)
	}
	return newEvent(&e), nil
}

// resumeFrom returns how a watch begins that resumes behind the revision after.
func resumeFrom(after uint64) func(*watch) error {
	return func(w *watch) error { return w.resume(after) }
}

func (w *watch) resume(after uint64) error {
	g, err := w.s.enter()
	if err != nil {
		return err
	}
	g.index.mu.Lock()
	end, now := g.end.Load(), g.revision.Load()
	g.index.mu.Unlock()
	if after < g.header.BaseRevision {
		return ErrCompacted
	}
	if after > now {
		return fmt.Errorf("%w: revision %d is above the store's, %d", fs.ErrInvalid, after, now)
	}
	w.goOn(g, crc.HeaderSize, 0)
	// The mark's revision may be that of a record well before its offset: so what counts is
	// the next one.
	if mark, err := w.s.durable(g); err == nil && mark.Off <= end {
		scan := newScanner(g, g.bytes()[:end])
		scan.off, scan.revision, scan.trusted = mark.Off, mark.Revision, !w.s.verifies(g, mark.Off)
		next := now + 1
		if mark.Off < end {
			next, err = scan.peek()
		}
		if err == nil && next <= after+1 {
			w.goOn(g, mark.Off, next-1)
		}
	}
	w.seen = after
	return nil
}

// peek returns the revision of the next record.
func (c *scanner) peek() (revision uint64, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(c.mapped, &err)
	ahead := *c
	r, err := ahead.next()
	return r.entry.Revision, err
}

// moveTo goes on in a later generation, the log of w.g having been told of.
func (w *watch) moveTo(next *generation) error {
	word, err := w.g.word()
	whole := err == nil && int64(word&^crc.Superseded) == w.g.end.Load()
	if !whole || next.header.Generation != w.g.header.Generation+1 {
		return w.compare()
	}
	// What was copied has been told of.
	from, revision := max(next.header.BaseEnd, crc.HeaderSize), w.seen
	if base := next.header.BaseRevision; base > revision { // Clear has this revision; a compaction begins with an earlier one
		if err := w.tellGone(func([]byte) (bool, error) { return true, nil }); err != nil {
			return err
		}
		revision = base
	}
	w.goOn(next, from, revision)
	return nil
}

// compare goes on in the current generation, which is not the one after w.g: it tells how
// the two differ.
func (w *watch) compare() error {
	v, err := w.s.view()
	if err != nil {
		return err
	}
	defer v.snap.release()
	if v.revision < w.seen {
		return ErrCompacted // an earlier state of the store has been put at its path
	}
	err = w.tellGone(func(key []byte) (bool, error) {
		off, err := v.find(key)
		return off == 0, err
	})
	if err != nil {
		return err
	}
	return w.list(v)
}

// tellGone tells of the keys of w.g that gone says are there no more, unless they have expired.
func (w *watch) tellGone(gone func(key []byte) (bool, error)) error {
	old, err := w.g.view()
	if err != nil {
		return err
	}
	defer old.snap.release()
	return w.walk(old, func(e *liveEntry) error {
		if w.s.clock.expired(e.expiry) {
			return nil
		}
		key, err := old.g.keyAt(e.off)
		if err != nil {
			return err
		}
		if yes, err := gone(key); !yes || err != nil {
			return err
		}
		return w.tell(Event{Key: key, Revision: w.seen, Deleted: true})
	})
}

// keyAt returns a copy of the key of the record at off, which has been read.
func (g *generation) keyAt(off int64) (key []byte, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	key, ok := g.log.key(off)
	if !ok {
		return nil, changedAt(off)
	}
	return bytes.Clone(key), nil
}

// find returns where the current record of key was, or 0.
func (v *view) find(key []byte) (off int64, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(v.g.mapped, &err)
	off = v.snap.find(v.g.index.hash.sum(key), key)
	switch {
	case v.snap.isBroken():
		return 0, errBroken
	case off < 0:
		return 0, changedAt(-off)
	}
	return off, nil
}
