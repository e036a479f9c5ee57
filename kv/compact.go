package kv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// CompactInfo tells what a compaction did.
type CompactInfo struct {
	Generation    uint64 // the one that it wrote
	Before, After int64  // bytes of the log, header included
	Keys          int64  // live keys copied or written meanwhile
	Took          time.Duration
}

const (
	compactBuf    = 1 << 20   // bytes written, and entered into the index, together
	compactWrite  = 64 << 10  // bytes of them in one call, see flush
	compactLast   = 256 << 10 // bytes that may be left to copy under the write lock
	compactTurns  = 8         // rounds of catching up after which writers are held up, and as many until the rest is copied under the lock
	compactAppend = 4 << 20   // bytes that writers may always append meanwhile
	compactShare  = 32        // they may append a 32nd of the live bytes while all is copied, and as much again until the end
	compactHold   = 1 << 20   // bytes of the log that are dealt with while writers wait
	compactDirty  = 4 << 20   // bytes written after which a sync is begun; with as many again, it is waited for
	compactGC     = 16 << 20  // length of a replaced file that is worth a garbage collection
)

// compactWait is after which time a wait for the device looks at the writers again.
const compactWait = 2 * time.Millisecond

// Compact rewrites the log without its dead records, as the next generation, and
// gives the space back. Readers and writers go on; writers wait while the last few
// records are copied and synced, and, if they append faster than it copies, now and
// then until it has caught up or the device has taken what it wrote. It takes as much
// free disk as the live bytes and what is appended meanwhile need, and 4 bytes of memory
// a key, and fails with ErrFull, having changed nothing, where they are not to be had.
// Cancelling ctx, or Close, ends it early, with nothing changed.
//
// The old file's blocks are free once no reader of this or another process maps
// it any more.
func (s *Store) Compact(ctx context.Context) (CompactInfo, error) {
	return s.nextGeneration(ctx, "compact", false)
}

// Clear removes all keys, at once and for good: the next generation is an empty
// file. Either all keys are gone or none, after a crash too. Typed maps that are open
// stay so; what codecs they have is noted again with their next entry.
func (s *Store) Clear() error {
	_, err := s.nextGeneration(context.Background(), "clear", true)
	return err
}

func (s *Store) nextGeneration(ctx context.Context, op string, empty bool) (info CompactInfo, err error) {
	if _, err := s.writable(); err != nil {
		return info, s.wrap(op, 0, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.closing, func() { cancel(ErrClosed) })()
	g, release, err := s.compactAlone(ctx)
	if err != nil {
		return info, s.wrap(op, 0, err)
	}
	defer release()
	c := &compaction{s: s, ctx: ctx, empty: empty, old: g}
	return c.report(op)
}

// compactAlone waits until nobody compacts, in this process or another, and keeps others from
// it until release is called. It returns the generation that is then to be compacted. While it
// is kept, the store is not closed.
func (s *Store) compactAlone(ctx context.Context) (g *generation, release func(), err error) {
	done := func() { s.compact <- struct{}{} }
	select {
	case <-s.compact:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	case <-s.closing.Done():
		return nil, nil, ErrClosed
	}
	if !s.opts.Shared {
		return s.gen.Load(), done, nil
	}
	if g, err = s.claimCompaction(ctx); err != nil {
		done()
		return nil, nil, err
	}
	return g, func() {
		_ = g.file.UnlockByte(compactLock) // of a file that has been replaced it went with the descriptor
		done()
	}, nil
}

// report runs the compaction and tells everybody who wants to know.
func (c *compaction) report(op string) (info CompactInfo, err error) {
	s := c.s
	start := time.Now()
	err = c.run()
	if err == nil {
		info = CompactInfo{
			Generation: c.next.header.Generation, Before: c.old.end.Load(), After: c.next.end.Load(),
			Keys: c.next.index.keys.Load(), Took: time.Since(start),
		}
		s.compactions.Add(1)
		s.opts.Logger.Info(op, "path", s.path, "generation", info.Generation, "before", info.Before, "after", info.After, "took", info.Took)
	}
	if hook := s.opts.Hooks.Compacted; hook != nil {
		hook(info, err)
	}
	return info, s.wrap(op, 0, err)
}

// compaction is one on its way. Until the rename nothing of it shows.
type compaction struct {
	s     *Store
	ctx   context.Context
	empty bool // copy nothing: Clear

	old  *generation
	next *generation
	temp string
	dir  directory // of the path; open from just before the rename on

	saving     bool  // nobody else takes a checkpoint
	checkpoint file  // a draft of the next generation's; nil: there is none
	covered    int64 // end of what it covers

	from     int64  // offset in the old log up to which records have been dealt with
	revision uint64 // of the last of them
	boundary int64  // end of the old log when the compaction began

	buf     []byte     // records to be written at off
	off     int64      // end of what has been written of the next log
	dirty   int64      // bytes of it that no sync was begun for
	syncing chan error // gets the result of the sync that is under way; nil: none is
	entered []intakeRecord
	fresh   bool // what is entered is of keys that the next index does not have

	paced    bool  // writers go on, and what is written is synced on the way
	insist   bool  // writers are held up however little they append
	at       int64 // offset in the old log that the copying has come to
	holding  bool  // writers wait at the gate, until
	heldFrom int64 // compactHold bytes behind this offset have been dealt with
}

func (c *compaction) run() error {
	if err := c.mayReplace(); err != nil {
		return err // the temporary name, too, is that of the store at the path
	}
	c.temp = c.s.path + nextSuffix
	c.s.disk.Remove(c.temp)
	c.from = crc.HeaderSize
	if !c.empty {
		if err := c.copyMost(); err != nil {
			c.abandon()
			return err
		}
	}
	return c.takeOver()
}

// save writes a checkpoint of what has been copied, so that nobody who comes to the next
// generation reads all of it. It gets its name just before that.
func (c *compaction) save() {
	s, boot := c.s, mmapfile.BootID()
	if s.opts.CheckpointBytes < 0 || boot == 0 || c.off < max(s.opts.CheckpointBytes/closeShare, crc.HeaderSize+1) || !s.checkpointing.CompareAndSwap(false, true) {
		return
	}
	c.saving = true
	if s.opts.Shared {
		if had, err := c.old.file.TryLockByte(checkpointLock, false); err != nil || !had {
			return
		}
	}
	c.next.end.Store(c.off)
	err := guarded(c.next.file, func() error {
		p, _ := c.next.log.payload(c.next.last)
		e, err := codec.Decode(p)
		c.next.revision.Store(max(c.next.header.BaseRevision, e.Revision))
		return err
	})
	if err == nil {
		c.checkpoint, c.covered, err = s.draftCheckpoint(c.next, boot)
	}
	if err != nil {
		s.opts.Logger.Warn("no checkpoint was taken", "path", s.path, "err", err)
	}
}

var errReplaced = fmt.Errorf("the path no longer names this store's file: %w", fs.ErrNotExist)

// mayReplace returns an error if something else than the old generation has come
// to the path: it is not ours to replace. Nor is memory that others may have open.
func (c *compaction) mayReplace() error {
	if c.s.memory().isHanded() {
		return errHanded
	}
	at, err := c.old.file.IsAt(c.s.path)
	if err == nil && !at {
		err = errReplaced
	}
	return err
}

// create makes the file of the next generation, with room for live bytes.
func (c *compaction) create(revision uint64, live int64) error {
	h := c.old.header
	h.Generation++
	h.GenerationCreated = time.Now().UnixNano()
	h.BaseRevision, h.BaseEnd = revision, 0
	h.Compatible = 0 // what a later version said of the old file may not be true of the next
	f, err := c.s.createFile(c.temp, &h, max(minExtent, min(crc.HeaderSize+live, c.s.opts.MaxSize)))
	if err != nil {
		return err
	}
	c.next = newGeneration(f, h)
	c.next.joined = c.s.opts.Shared
	c.next.checkpointAt.Store(c.s.opts.CheckpointBytes)
	c.off = crc.HeaderSize
	return f.mapped().InheritOwner(c.old.file.mapped())
}

// abandon removes what was written.
func (c *compaction) abandon() {
	_ = c.awaitSync() // nobody wants it any more
	if c.checkpoint != nil {
		c.s.dropCheckpoint(c.checkpoint)
	}
	c.saved()
	if c.next != nil {
		c.next.file.Close()
		c.s.disk.Remove(c.temp)
	}
}

// copyMost copies the live records while writers go on, until little is left.
func (c *compaction) copyMost() error {
	defer c.pacing()()
	if err := c.copyLive(); err != nil {
		return err
	}
	// What takes long comes before the last rounds, and at the same time.
	if c.dirty >= compactBuf {
		if err := c.startSync(); err != nil {
			return err
		}
	}
	c.release()
	c.save()
	if err := c.sync(); err != nil {
		return err
	}
	if err := c.copyMore(); err != nil {
		return err
	}
	if err := c.passSync(); err != nil {
		return err
	}
	return c.copyMore()
}

// passSync returns when a sync of the old log that is under way has ended. Whoever takes the
// write lock before that waits for it, and all writers with him.
func (c *compaction) passSync() error {
	passed := make(chan error, 1)
	go func() {
		c.s.sync.lead(0)
		c.s.sync.leave(0)
		passed <- nil
	}()
	return c.await(passed)
}

// copyLive copies what is live when it begins, into a new file.
func (c *compaction) copyLive() error {
	c.s.loadRest(c.ctx, c.old) // which lets others have the index in between, as a view does not
	if err := c.ended(); err != nil {
		return err
	}
	v, err := c.old.view()
	if err != nil {
		return err
	}
	defer v.snap.release()
	// The next generation begins with the revision of the view: a tombstone up to there is
	// left behind, but not what it did to the revision.
	if err := c.create(v.revision, v.live); err != nil {
		return err
	}
	c.boundary, c.fresh = v.end, true
	err = c.copyView(v)
	c.fresh = false
	return err
}

// pacing has writers held up where they append too much, until the returned function is called.
func (c *compaction) pacing() (end func()) {
	c.paced = true
	return func() {
		c.release()
		c.paced = false
	}
}

// copyMore copies what writers have appended, while they go on, until little is left.
func (c *compaction) copyMore() error {
	defer func() { c.insist = false }()
	for turn := range 2 * compactTurns {
		if err := c.takeIn(); err != nil {
			return err
		}
		left := c.old.end.Load() - c.from
		if left <= compactLast {
			break
		}
		c.insist = turn >= compactTurns
		if err := c.catchUp(left); err != nil {
			return err
		}
		// What is synced now need not be under the lock. Writers that are held stay so, but for
		// a few: what they appended in that time would be to be copied and synced in turn.
		if err := c.sync(); err != nil {
			return err
		}
	}
	return nil
}

// catchUp deals with the records that writers appended, of so many bytes. Fewer than the
// index has are looked up one by one, sooner than go through it.
func (c *compaction) catchUp(left int64) error {
	if left < c.old.index.bytes() {
		return c.copyTo(c.old.end.Load())
	}
	c.release() // the writers would wait for all of the index
	v, err := c.old.view()
	if err != nil {
		return err
	}
	defer v.snap.release()
	return c.copyView(v)
}

// pace holds the writers up while the records behind off are dealt with, if they
// append too much.
func (c *compaction) pace(off int64) error {
	if !c.paced || c.holding && off-c.heldFrom < compactHold {
		return nil
	}
	c.release()
	c.at = off
	// The copying does not wait for the last sync if it need not: the writers would go on.
	idle := c.syncing == nil || len(c.syncing) > 0
	if c.dirty >= compactDirty && (idle || c.dirty >= 2*compactDirty) {
		if err := c.startSync(); err != nil {
			return err
		}
	}
	if err := c.takeIn(); err != nil {
		return err
	}
	if c.overdrawn() {
		return c.hold()
	}
	return nil
}

// overdrawn tells whether writers append faster than what they append can be dealt with:
// more than their share of what is live, which grows as the compaction comes on. Else it
// would end late or never, and take all of the disk.
func (c *compaction) overdrawn() bool {
	may := float64(c.old.live.Load()) / compactShare
	if c.fresh {
		may *= float64(c.at) / float64(c.boundary)
	} else {
		may *= 2
	}
	return c.insist || c.old.end.Load()-c.boundary > max(compactAppend, int64(may))
}

// await returns what comes from done. Writers go on meanwhile, until they have appended too
// much; then those that wait at the gate pass it now and then, as long as that is little. Of a
// Shared store they go on, or wait, as they do now: its lock is waited for for a limited time.
func (c *compaction) await(done <-chan error) error {
	held := c.old.end.Load()
	for c.paced && !c.s.opts.Shared {
		select {
		case err := <-done:
			return err
		case <-time.After(compactWait):
		}
		switch {
		case !c.overdrawn():
			continue
		case !c.holding:
			held = c.old.end.Load()
		case c.old.end.Load()-held <= compactLast/4:
			c.release()
		}
		if err := c.hold(); err != nil {
			return errors.Join(err, <-done)
		}
	}
	return <-done
}

// hold has the writers wait, of a Shared store all of them.
func (c *compaction) hold() error {
	if c.holding {
		return nil
	}
	if c.s.opts.Shared {
		if err := c.lock(); err != nil {
			return err
		}
	} else {
		c.s.gate.shut()
	}
	c.holding, c.heldFrom = true, c.at
	return nil
}

// lock takes the write lock of the generation that is being compacted.
func (c *compaction) lock() error {
	g, err := c.s.lockWrites(c.ctx)
	if err == nil && g != c.old {
		c.s.unlockWrites(g)
		err = errReplaced
	}
	return err
}

// takeIn takes in what others have written meanwhile.
func (c *compaction) takeIn() error {
	if !c.s.opts.Shared || c.holding {
		return nil
	}
	g, err := c.s.followed(c.old)
	if err == nil && g != c.old {
		err = errReplaced
	}
	return err
}

// release lets the writers go on.
func (c *compaction) release() {
	if c.holding {
		c.holding = false
		if c.s.opts.Shared {
			c.s.unlockWrites(c.old)
		} else {
			c.s.gate.open()
		}
	}
}

// wrote notes n bytes more of the next file.
func (c *compaction) wrote(n int64) {
	c.off += n
	c.dirty += n
}

// startSync has what was written of the next file synced while the copying goes on,
// once the sync before it has ended.
func (c *compaction) startSync() error {
	if err := c.awaitSync(); err != nil {
		return err
	}
	c.dirty = 0
	done := make(chan error, 1)
	go func() { done <- c.next.file.SyncFile() }()
	c.syncing = done
	return nil
}

// awaitSync waits for the sync that is under way.
func (c *compaction) awaitSync() error {
	if c.syncing == nil {
		return nil
	}
	err := c.await(c.syncing)
	c.syncing = nil
	return err
}

// sync syncs what has been written of the next file. For little it does not look at the writers
// meanwhile.
func (c *compaction) sync() error {
	if c.syncing == nil && c.dirty < compactBuf {
		c.dirty = 0
		return c.next.file.SyncFile()
	}
	if c.dirty > 0 {
		if err := c.startSync(); err != nil {
			return err
		}
	}
	return c.awaitSync()
}

// copyView deals with the records of v that nothing has been done about yet: it copies
// those that are current, in the order of the log, and does not look at dead ones. Of what
// was there when the compaction began, tombstones and expired entries are left behind;
// later ones are copied, for they may replace what has been copied. A transaction loses
// its marks, as the whole next log shows at once.
func (c *compaction) copyView(v *view) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(c.old.mapped, &err)
	var tombstones []int64
	if !c.fresh {
		if tombstones, err = c.tombstones(v.end); err != nil {
			return err
		}
	}
	progress := c.s.newProgress("compact", v.end)
	walk := newLiveWalk(v, nil, false)
	walk.start, walk.thorough = c.from, true
	for entries := range walk.batches() {
		if err := c.ended(); err != nil {
			return err
		}
		for i := range entries {
			e := &entries[i]
			if c.fresh && c.s.clock.expired(e.expiry) {
				continue
			}
			if tombstones, err = c.copyTombstones(tombstones, e.off); err != nil {
				return err
			}
			p, _ := c.old.log.payload(e.off)
			if err := c.copyRecord(p, intakeRecord{key: e.key, kind: codec.Put, mortal: e.expiry != 0}); err != nil {
				return err
			}
		}
		progress.at(walk.off)
		if err := c.pace(walk.off); err != nil {
			return err
		}
	}
	if walk.err != nil {
		return c.s.wrapRecord("compact", c.old, walk.off, walk.err)
	}
	if _, err = c.copyTombstones(tombstones, v.end); err != nil {
		return err
	}
	progress.at(v.end)
	c.from, c.revision = v.end, v.revision
	return c.flush()
}

// tombstones returns the offsets of those that nothing has been done about yet, up to end.
func (c *compaction) tombstones(end int64) (offs []int64, err error) {
	scan := newScanner(c.old, c.old.bytes()[:end])
	scan.off, scan.revision, scan.trusted = c.from, c.revision, true
	for scan.off < end {
		want := scan.revision + 1 // what was appended has one after the other: none is passed over
		r, err := scan.next()
		if err == nil && r.entry.Revision != want {
			err = errOrder
		}
		if err != nil {
			return nil, c.s.wrapRecord("compact", c.old, scan.off, err)
		}
		if want%4096 == 0 {
			if err := c.ended(); err != nil {
				return nil, err
			}
		}
		if r.entry.Kind == codec.Delete {
			offs = append(offs, r.off)
		}
	}
	return offs, nil
}

// copyTombstones copies those before end, and returns the rest.
func (c *compaction) copyTombstones(offs []int64, end int64) (rest []int64, err error) {
	for len(offs) > 0 && offs[0] < end {
		if len(offs)%cursorBatch == 0 {
			if err := errors.Join(c.ended(), c.pace(offs[0])); err != nil {
				return nil, err
			}
		}
		rec, err := crc.Verify(c.old.bytes(), offs[0], c.old.header.Salt)
		if err != nil {
			return nil, c.s.wrapRecord("compact", c.old, offs[0], err)
		}
		key, _ := codec.Key(rec.Payload)
		if err := c.copyRecord(rec.Payload, intakeRecord{key: key, kind: codec.Delete}); err != nil {
			return nil, err
		}
		offs = offs[1:]
	}
	return offs, nil
}

// ended returns why the compaction is to go no further.
func (c *compaction) ended() error {
	if c.s.closing.Err() != nil {
		return ErrClosed
	}
	return c.ctx.Err()
}

// copyTo is copyView up to end, of what is current when it comes to it: whatever replaces
// that lies further on. It looks each record up.
func (c *compaction) copyTo(end int64) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(c.old.mapped, &err)
	defer runtime.KeepAlive(c.old)
	cur := newCursor(c.old, end, false).now()
	cur.scan.off, cur.scan.revision = c.from, c.revision
	progress := c.s.newProgress("compact", end)
	for {
		items, err := cur.next()
		if err != nil {
			return c.s.wrapRecord("compact", c.old, cur.scan.off, err)
		}
		if len(items) == 0 {
			break
		}
		if err := c.ended(); err != nil {
			return err
		}
		for i := range items {
			it := &items[i]
			if it.current < 0 {
				return c.s.wrapRecord("compact", c.old, it.off, errChanged)
			}
			e := &it.entry
			if !it.live() && e.Kind != codec.Delete && !c.s.clock.expired(e.Expiry) {
				continue
			}
			if err := c.copyRecord(it.payload, intakeRecord{key: e.Key, kind: e.Kind, mortal: e.Expiry != 0}); err != nil {
				return err
			}
		}
		progress.at(cur.scan.off)
		if err := c.pace(cur.scan.off); err != nil {
			return err
		}
	}
	c.from, c.revision = end, cur.scan.revision
	return c.flush()
}

// copyRecord appends a record with payload p, sealed for its new place, and notes what the
// next index wants to know of it. The payload is copied as it is, fields that a later
// version wrote included.
func (c *compaction) copyRecord(p []byte, r intakeRecord) error {
	r.size = crc.RecordSize(len(p))
	if int64(len(c.buf))+r.size > compactBuf {
		if err := c.flush(); err != nil {
			return err
		}
	}
	if r.size > compactBuf {
		return c.copyLarge(p, r)
	}
	at := len(c.buf)
	c.buf = slices.Grow(c.buf, int(r.size))[:at+int(r.size)]
	r.off = c.off + int64(at)
	c.seal(c.buf[at:], p, r)
	return nil
}

// seal makes rec the record of payload p that the next index is to know as r.
func (c *compaction) seal(rec, p []byte, r intakeRecord) {
	copy(rec[crc.FrameSize:], p)
	crc.Seal(rec, len(p), 0, c.next.header.Salt, r.off)
	r.hash = c.next.index.hash.sum(r.key)
	c.entered = append(c.entered, r)
}

// copyLarge copies a record that is larger than the buffer, which is empty, by
// way of the mapping.
func (c *compaction) copyLarge(p []byte, r intakeRecord) (err error) {
	if err := c.reserve(r.size); err != nil {
		return err
	}
	guard := mmapfile.EnterGuard()
	defer guard.Exit(c.next.mapped, &err)
	r.off = c.off
	c.seal(c.next.bytes()[r.off:r.off+r.size], p, r)
	c.wrote(r.size)
	return c.enter()
}

// reserve makes the next file long enough for n more bytes.
func (c *compaction) reserve(n int64) error {
	return c.s.grow(c.next, c.off, n)
}

// flush writes the buffer and enters its records into the next index. It does so by short
// writes: the page cache takes a long one in folios as long, and where a hypervisor keeps
// shadow page tables, a mapped file of these is read at half the speed.
func (c *compaction) flush() error {
	if len(c.buf) == 0 {
		return nil
	}
	if err := c.reserve(int64(len(c.buf))); err != nil {
		return err
	}
	for piece := range slices.Chunk(c.buf, compactWrite) {
		if _, err := c.next.file.WriteAt(piece, c.off); err != nil {
			return err
		}
		c.wrote(int64(len(piece)))
	}
	c.buf = c.buf[:0]
	return c.enter()
}

// enter brings the next index up to date with what has been written.
func (c *compaction) enter() (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(c.next.mapped, &err)
	c.next.index.mu.Lock()
	defer c.next.index.mu.Unlock()
	enter := c.next.enterAll
	if c.fresh {
		enter = c.next.enterNew
	}
	if err := enter(c.entered); err != nil {
		return err
	}
	clear(c.entered)
	c.entered = c.entered[:0]
	return nil
}

// saved lets others take checkpoints again.
func (c *compaction) saved() {
	if !c.saving {
		return
	}
	c.saving = false
	if c.s.opts.Shared {
		_ = c.old.file.UnlockByte(checkpointLock) // else it goes with the descriptor
	}
	c.s.checkpointing.Store(false)
}

// placeCheckpoint gives the draft its name. Until the log is renamed it is of no use, and of no
// harm, to anybody.
func (c *compaction) placeCheckpoint() {
	s := c.s
	s.disk.Remove(s.path + indexSuffix) // of the old log
	f := c.checkpoint
	if f == nil {
		return
	}
	c.checkpoint = nil
	if err := s.disk.Rename(s.path+newIndexSuffix, s.path+indexSuffix); err != nil {
		s.opts.Logger.Warn("no checkpoint was taken", "path", s.path, "err", err)
		s.dropCheckpoint(f)
		return
	}
	f.Close()
	c.next.checkpoint.Store(c.covered)
	c.next.checkpointAt.Store(c.covered + s.opts.CheckpointBytes)
}

// takeOver copies the rest under the write lock and puts the next generation in
// the place of the old one.
func (c *compaction) takeOver() error {
	s := c.s
	if err := c.lock(); err != nil {
		c.abandon()
		return err
	}
	s.follow.Lock() // no reader opens the next generation as if it were somebody else's
	s.sync.lead(0)
	durable, err := c.replace()
	s.follow.Unlock()
	s.unlockWrites(c.old)
	if err == nil {
		// Until the directory is synced, a power cut may bring the old file back. It
		// has all that was durable; what becomes durable in the new one waits here,
		// for the lead.
		if err = c.dir.Sync(); err != nil {
			durable, err = 0, s.setPoison(err)
		}
	}
	if c.dir != nil {
		c.dir.Close()
	}
	s.sync.leave(durable)
	if s.gen.Load() == c.old {
		c.abandon()
		return err
	}
	c.saved()
	s.checkpointIfDue(c.next)
	length := c.old.file.Size()
	letGo(c.old.file, 0)
	if length >= compactGC {
		go runtime.GC() // its blocks are free once it is unmapped
	}
	return err
}

// replace makes the next generation whole and durable and renames it over the
// old one. The caller holds mu and leads.
func (c *compaction) replace() (durable uint64, err error) {
	s, revision := c.s, c.old.revision.Load()
	if _, err := s.writable(); err != nil {
		return 0, err
	}
	if c.empty && revision == maxRevision {
		return 0, errRevisions
	}
	if c.empty {
		revision++ // to clear is a mutation
		err = c.create(revision, 0)
	} else {
		err = c.copyTo(c.old.end.Load())
	}
	if err != nil {
		return 0, err
	}
	if err := c.finish(revision); err != nil {
		return 0, err
	}
	if err := c.mayReplace(); err != nil {
		return 0, err
	}
	// Before the rename, for after it the want of a descriptor would poison.
	dir, err := s.disk.OpenDir(filepath.Dir(s.path))
	if err != nil {
		return 0, err
	}
	c.dir = dir
	c.placeCheckpoint()
	// First the word and then the rename: a follower that sees the word looks at
	// the path until that names another file, so that a crash here does it no harm.
	// The other way round it would follow the old file for ever.
	c.old.supersede(true)
	if err := s.disk.Rename(c.temp, s.path); err != nil {
		if at, atErr := c.old.file.IsAt(s.path); at && atErr == nil {
			c.old.supersede(false)
			return 0, err
		}
		// It failed, and may have happened: then what went to the old file would be
		// gone with this process.
		c.install()
		return 0, s.setPoison(err)
	}
	// A crash here leaves one of the two, either of which has all that is durable.
	c.install()
	return revision, nil
}

// install makes the next generation the current one, and tells those who wait for the old one
// to change. A fault in that is theirs alone.
func (c *compaction) install() {
	c.s.gen.Store(c.next)
	var fault error
	guard := mmapfile.EnterGuard()
	defer guard.Exit(c.old.mapped, &fault)
	c.old.wake()
}

// finish publishes the log of the next generation, whose path nobody knows yet,
// and makes it durable.
func (c *compaction) finish(revision uint64) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(c.next.mapped, &err)
	if err := c.writeBaseEnd(); err != nil {
		return err
	}
	c.next.publish(c.off, revision)
	if err := c.s.mark(c.next, c.off, revision); err != nil {
		return err
	}
	c.next.marksSynced = c.next.marks.Load()
	c.next.seal(c.s.opts.SyncAligned)
	return c.next.file.SyncFile()
}

// writeBaseEnd notes in the header where the copied records end, as is known only now.
func (c *compaction) writeBaseEnd() error {
	if c.off == crc.HeaderSize {
		return nil
	}
	c.next.header.BaseEnd = c.off
	page := make([]byte, crc.HeaderSize)
	crc.EncodeHeader(page, &c.next.header)
	for _, part := range []Range{immutablePart, copyPart} {
		if _, err := c.next.file.WriteAt(page[part.Off:part.Off+part.Len], part.Off); err != nil {
			return err
		}
	}
	return nil
}

// supersede tells the followers of g to look whether the path names another file,
// or not to. A fault in it is theirs alone.
func (g *generation) supersede(yes bool) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	word := uint64(g.end.Load())
	if yes {
		word |= crc.Superseded
	}
	g.tailWord().Store(word)
	return nil
}
