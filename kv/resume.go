package kv

import (
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"math/bits"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// saved is a checkpoint that an index is loaded from, segment by segment, each when
// it is needed first or by loadRest.
type saved struct {
	crc.Checkpoint
	file file // closed; its mapping is read
	g    *generation
	left int    // guarded by index.mu: segments not loaded yet
	buf  []byte // guarded by index.mu: of one segment
	lost int64  // guarded by index.mu: the record because of which damaged segments cannot be rebuilt, negated
	gone bool   // guarded by index.mu: nor can the others be had any more

	notes    [][]note // guarded by index.mu: by segment
	entering bool     // guarded by index.mu: notes are being entered, into a segment that counts as loaded for that
}

// errDoubt: the checkpoint and the log may not belong together.
var errDoubt = errors.New("the checkpoint is in doubt")

// resume returns a generation of f whose index comes from the checkpoint and, for
// what was written since, from the log; or nil, if there is any doubt: then the log
// tells all.
func (s *Store) resume(f file, h *head) (*generation, error) {
	if s.opts.Salvage || s.opts.CheckpointBytes < 0 || h.damage != nil || h.unmarked {
		return nil, nil
	}
	idx, err := s.disk.Open(s.path+indexSuffix, s.mode())
	if err != nil {
		return nil, nil
	}
	defer idx.Close() // its mapping stays
	g := s.newGeneration(f, h)
	v := &saved{file: idx, g: g}
	if err = v.open(f, h); err == nil && v.Boot != 0 {
		err = g.verifyUnsynced(h.mark, v.End)
	}
	if err == nil && !s.opts.ReadOnly && !h.shared {
		// From here on the file may change.
		_, err = idx.WriteAt(make([]byte, crc.CloseMarkSize), crc.CloseMarkOff)
	}
	if err == nil {
		g.index, err = newSavedIndex(v)
	}
	if err != nil {
		s.opts.Logger.Info("the checkpoint is not used", "path", s.path, "why", err)
		return nil, nil
	}
	g.end.Store(v.End)
	g.last = v.Last
	g.revision.Store(v.Revision)
	g.count.Store(v.Records)
	g.live.Store(v.Live)
	g.mortal.Store(v.Mortal)
	g.unverified.Store(v.End)
	g.checkpoint.Store(v.End)
	g.checkpointAt.Store(v.End + s.opts.CheckpointBytes)
	g.checkpointSynced = v.Boot == 0
	s.clock.seen(v.Stamp)
	err = s.recover(g, h)
	if err == errDoubt || err == errCame || errors.Is(err, ErrCorrupt) {
		return nil, nil // damage that the whole log tells more of
	}
	return g, err
}

// open reads the head of the checkpoint, and returns why it is not that of the log f.
func (v *saved) open(f file, h *head) error {
	err := guarded(v.file, func() (err error) {
		b := v.file.Mapping().Bytes()
		if v.Checkpoint, err = crc.DecodeCheckpoint(b); err != nil {
			return err
		}
		mark, closed, err := crc.DecodeCloseMark(b, h.Salt)
		if err != nil {
			return err
		}
		if closed && (mark != crc.CloseMark{Length: h.identity.Length, Modified: h.identity.Modified}) {
			return errDoubt // somebody has written to the log since
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case v.Generation != h.Generation || v.Salt != h.Salt || v.StoreID != h.StoreID || v.File != h.identity.Inode,
		v.Boot != 0 && (v.Boot != h.boot || v.Boot != mmapfile.BootID()),
		v.End%crc.Align != 0 || v.End < crc.HeaderSize || v.End > f.Size(),
		!v.counts() || !v.tiles():
		return errDoubt
	}
	return guarded(f, func() error {
		log := f.Mapping().Bytes()[:v.End]
		if v.TailSum != crc.TailSum(log, v.Last, v.End) || v.Revision > maxRevision {
			return errDoubt
		}
		if v.Last == 0 && v.Revision == h.BaseRevision {
			return nil
		}
		rec, err := crc.Read(log, v.Last)
		if err != nil || rec.Size != v.End-v.Last || rec.Flags&crc.FlagMore != 0 {
			return errDoubt
		}
		if e, err := codec.Decode(rec.Payload); err != nil || v.Revision != max(h.BaseRevision, e.Revision) {
			return errDoubt
		}
		return nil
	})
}

// counts tells whether what the head counts can be: none of it is above what the log
// has room for.
func (v *saved) counts() bool {
	room := v.End - crc.HeaderSize
	in := func(n, most int64) bool { return n >= 0 && n <= most }
	last := v.Last%crc.Align == 0 && v.Last >= crc.HeaderSize && v.Last < v.End-crc.FrameSize
	return (last || v.Last == 0 && room == 0) && in(v.Live, room) && in(v.Mortal, room) && in(v.Records, room/crc.FrameSize)
}

// verifyUnsynced verifies the records from the durable mark to end. Those may be gone
// though the machine has run on: with a device that was taken away, or because their
// sync failed. Without them, the log ends before.
func (g *generation) verifyUnsynced(mark crc.Mark, end int64) error {
	scan := newScanner(g, g.bytes()[:end])
	if mark.Off > crc.HeaderSize {
		scan.off, scan.revision = mark.Off, mark.Revision
	}
	return scan.verifyTo(end)
}

// tiles tells whether the segments make an index: together they have every hash, each
// once.
func (v *saved) tiles() bool {
	slots := int(v.SlotCount)
	if bits.OnesCount(uint(slots)) != 1 || slots < smallestSlots || slots > segmentSlots || slots < segmentSlots && len(v.Segments) > 1 {
		return false
	}
	at := 0
	for _, seg := range v.Segments {
		// relieve bounds the directory by the keys; segments stay when those go.
		if seg.Depth > maxDepth || 1<<seg.Depth > 128*(1+len(v.Segments)) {
			return false
		}
		if at%(1<<(maxDepth-seg.Depth)) != 0 || int(seg.Used)+int(seg.Marks) > slots {
			return false
		}
		at += 1 << (maxDepth - seg.Depth)
	}
	return at == 1<<maxDepth
}

// unloaded is the bit of a directory entry whose segment lies in the checkpoint.
const unloaded = 1 << 31

// newSavedIndex makes an index whose segments, all of them, lie in the checkpoint.
func newSavedIndex(v *saved) (*index, error) {
	ix := newIndex(&v.g.log, v.g.index.hash)
	count, slots, depth := len(v.Segments), int(v.SlotCount), uint8(0)
	var chunks []chunk
	if slots < segmentSlots {
		chunks = []chunk{{words: make([]uint64, slots)}}
	} else {
		n := (count + chunkSegments - 1) / chunkSegments
		const words = chunkSegments * segmentSlots
		// The first touch of a huge page takes milliseconds, for which a reader would
		// wait. See makeHuge.
		region, err := mmapfile.NewRegion(n*words, false)
		if err != nil {
			return nil, err
		}
		for i := range n {
			chunks = append(chunks, chunk{region.Words[i*words : (i+1)*words], region})
		}
	}
	ix.segs = make([]segment, count)
	keys := int64(0)
	for i, seg := range v.Segments {
		depth = max(depth, seg.Depth)
		keys += int64(seg.Used)
		ix.segs[i] = segment{depth: seg.Depth, used: int32(seg.Used), marks: int32(seg.Marks), epoch: ix.epoch}
	}
	ix.keys.Store(keys)
	t := newTable(uint(depth), slots, chunks)
	at := 0
	for i, seg := range v.Segments {
		for end := at + 1<<(depth-seg.Depth); at < end; at++ {
			t.dir[at].Store(unloaded | uint64(i))
		}
	}
	ix.table.Store(t)
	ix.noteSpare()
	v.left, v.buf, v.notes = count, make([]byte, slots*8), make([][]note, count)
	ix.saved = v
	return ix, nil
}

// ensure is load for those who do not hold mu.
func (ix *index) ensure(h uint64) (off int64) {
	t := ix.table.Load()
	if t.dir[h>>t.shift].Load()&unloaded == 0 {
		return 0
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	return ix.load(h)
}

// load sees to it that the segment of h is there, as the log has it. If it cannot be had, it returns
// what find does for a record that cannot be read. The caller holds mu.
func (ix *index) load(h uint64) (off int64) {
	t := ix.table.Load()
	entry := t.dir[h>>t.shift].Load()
	if entry&unloaded == 0 || ix.saved.entering {
		return 0
	}
	v, id := ix.saved, segmentID(entry)
	depth := ix.segs[id].depth
	switch {
	case v.gone:
		return v.lost
	case v.read(t.slots(uint64(id)), id, h) == nil:
	case v.lost != 0:
		return v.lost
	default:
		return ix.rebuild()
	}
	if off := ix.enterNotes(id); off != 0 {
		return off
	}
	publish(ix.table.Load().entries(h, depth))
	if v.left--; v.left == 0 {
		ix.saved = nil
	}
	return 0
}

// publish makes the entries of a directory say that their segments are loaded: a reader
// that sees one of them sees the slots.
func publish(entries []atomic.Uint64) {
	for i := range entries {
		if entry := entries[i].Load(); entry&unloaded != 0 {
			entries[i].Store((entry>>32+1)<<32 | uint64(segmentID(entry)))
		}
	}
}

// loadAll is load of all segments. The caller holds mu.
func (ix *index) loadAll() (off int64) {
	for i := 0; ix.saved != nil; i++ {
		if off := ix.load(uint64(i) << ix.table.Load().shift); off != 0 {
			return off
		}
	}
	return 0
}

// read copies the slots of segment id, that of h, from the file, and returns why they
// are not what was saved.
func (v *saved) read(dst []uint64, id uint32, h uint64) error {
	off := crc.SlotsOff(len(v.Segments), int(id), v.SlotCount)
	err := guarded(v.file, func() error {
		copy(v.buf, v.file.Mapping().Bytes()[off:])
		return nil
	})
	runtime.KeepAlive(v.file)
	if err != nil {
		return err
	}
	seg := &v.Segments[id]
	if crc.SegmentSum(v.buf, int(id), v.Salt) != seg.Sum {
		return errDoubt
	}
	var used, marks uint16
	var room [segmentSlots / bucketSlots]bool  // buckets with an empty slot
	var far [segmentSlots / bucketSlots]uint64 // the farthest from home that a slot of the bucket is
	prefix, most := h>>(64-seg.Depth), uint64(v.Last)>>3
	for bucket := range len(dst) / bucketSlots {
		for i := bucket * bucketSlots; i < (bucket+1)*bucketSlots; i++ {
			slot := binary.LittleEndian.Uint64(v.buf[8*i:])
			switch {
			case slot == 0:
				room[bucket] = true
			case slot == marker:
				marks++
			default:
				used++
				if at := slot & offMask; slot>>(64-seg.Depth) != prefix || at < crc.HeaderSize>>3 || at > most {
					return errDoubt
				}
				far[bucket] = max(far[bucket], slot>>dispShift&3)
			}
			atomic.StoreUint64(&dst[i], slot)
		}
	}
	if used != seg.Used || marks != seg.Marks {
		return errDoubt
	}
	mask := len(dst)/bucketSlots - 1
	for bucket := range len(dst) / bucketSlots {
		for back := int(far[bucket]); back > 0; back-- {
			if room[(bucket-back)&mask] {
				return errDoubt // a lookup would not come by it
			}
		}
	}
	return nil
}

// rebuild fills the segments that are not loaded yet from the log, and from their notes: the
// checkpoint is not what was saved. The caller holds mu, and with it everybody up who needs one of
// them.
func (ix *index) rebuild() (off int64) {
	v := ix.saved
	fail := func(off int64) int64 {
		v.lost = -off
		return v.lost
	}
	v.g.checkpointDamaged.Store(true)
	t := ix.table.Load()
	missing := newIndex(ix.log, ix.hash)
	off, err := v.g.replayInto(v.End, func(r *logRecord) (err error) {
		h := ix.hash.sum(r.entry.Key)
		switch {
		case t.dir[h>>t.shift].Load()&unloaded == 0:
		default:
			_, err = missing.apply(r.entry.Kind, h, r.entry.Key, r.off)
		}
		return err
	})
	if err != nil {
		return fail(off)
	}
	replaced := int64(0) // by what was noted for these segments: the others have none left
	for _, notes := range v.notes {
		n, off := v.enter(missing, notes)
		if off != 0 {
			return fail(off)
		}
		replaced += n
	}
	v.gone = true // unless all goes well
	cleared := int64(0)
	for i := range t.dir {
		if entry := t.dir[i].Load(); entry&unloaded != 0 {
			id := segmentID(entry)
			clear(t.slots(uint64(id)))
			cleared += int64(ix.segs[id].used)
			ix.segs[id].used, ix.segs[id].marks = 0, 0
		}
	}
	// Not before all are in are they shown.
	for off := range missing.all() {
		key, ok := ix.log.key(off)
		if !ok {
			return fail(off)
		}
		if err := ix.add(ix.hash.sum(key), key, off); err != nil {
			return fail(off)
		}
	}
	publish(ix.table.Load().dir)
	ix.added -= cleared // not before: the directory may grow with the keys
	ix.count()
	v.g.live.Add(-replaced)
	ix.noted.Store(0)
	ix.saved = nil
	return 0
}

// all yields the offsets of all records that the index names, overflow included.
// Nobody else has the index.
func (ix *index) all() iter.Seq[int64] {
	return func(yield func(off int64) bool) {
		t := ix.table.Load()
		for i := 0; i < len(t.dir); {
			entry := t.dir[i].Load()
			for _, slot := range t.slots(entry) {
				if slot > marker && !yield(int64(slot&offMask)<<3) {
					return
				}
			}
			i += len(t.dir) >> ix.segs[uint32(entry)].depth
		}
		if over := ix.over.Load(); over != nil {
			over.all()(yield)
		}
	}
}

// replayInto calls fn with the records before end, each verified. off is where it
// met an error.
func (g *generation) replayInto(end int64, fn func(r *logRecord) error) (off int64, err error) {
	off = crc.HeaderSize
	defer runtime.KeepAlive(g)
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	for scan := newScanner(g, g.bytes()[:end]); scan.off < end; {
		off = scan.off
		r, err := scan.next()
		if err == nil {
			err = fn(&r)
		}
		if err != nil {
			return off, err
		}
	}
	return off, nil
}

// finishResume does in the background what Open has left: it loads the rest of the
// index, and verifies the records that it covers.
func (s *Store) finishResume(g *generation) {
	if g.unverified.Load() == 0 {
		return
	}
	s.spawn(func() {
		s.loadRest(s.closing, g)
		s.makeHuge(g)
		s.verifyRest(g)
	})
}

// makeHuge puts the memory that the index was loaded into in huge pages, as the index
// of a store that was filled has: a Get then takes 8 % less. Where the kernel does it,
// readers of 2 MiB wait for those: so with pauses, as loadRest.
func (s *Store) makeHuge(g *generation) {
	region := g.index.table.Load().chunks[0].region
	if region == nil {
		return
	}
	last := time.Now()
	region.MakeHuge(func() bool {
		time.Sleep(time.Since(last))
		last = time.Now()
		return s.closing.Err() == nil && s.gen.Load() == g
	})
}

// loadRest loads one segment after the other, with pauses in which those get the lock
// who cannot wait for theirs, until ctx ends or the store is closed. Who needs a segment that
// is lost will hear of it.
func (s *Store) loadRest(ctx context.Context, g *generation) {
	ix := g.index
	for i := uint64(0); ctx.Err() == nil && s.closing.Err() == nil; i++ {
		start := time.Now()
		ix.mu.Lock()
		t := ix.table.Load()
		over := i >= uint64(len(t.dir)) || ix.saved == nil
		if !over {
			ix.load(i << t.shift)
		}
		ix.mu.Unlock()
		if over {
			return
		}
		time.Sleep(time.Since(start))
	}
}

const verifyStep = 1 << 20 // bytes verified at once

// verifyRest verifies the records that came into the index with a checkpoint, at half
// the speed that it could, for it has time. Until it is through, and for ever if
// there is damage, reads verify those records one by one.
func (s *Store) verifyRest(g *generation) {
	end := g.unverified.Load()
	scan := newScanner(g, g.bytes()[:end])
	sound := true
	for scan.off < end {
		if s.closing.Err() != nil || s.gen.Load() != g {
			return
		}
		start := time.Now()
		err := scan.verifyTo(min(scan.off+verifyStep, end))
		if err != nil {
			sound = false
			off := scan.off
			scan.resync()
			s.found(&CorruptError{Ranges: []Range{{Off: off, Len: scan.off - off}}, What: err.Error()})
		}
		time.Sleep(time.Since(start))
	}
	runtime.KeepAlive(g)
	if sound {
		g.unverified.Store(0)
	}
}

// verifyTo verifies records until the scan has come to end.
func (c *scanner) verifyTo(end int64) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(c.mapped, &err)
	for c.off < end {
		if _, err := c.next(); err != nil {
			return err
		}
	}
	return nil
}
