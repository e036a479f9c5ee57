package kv

import (
	"encoding/binary"
	"errors"
	"runtime"
	"time"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// A checkpoint is the index, saved beside the store, so that the next Open need
// not read the log. It may be deleted at any time without loss: whatever about it
// is in doubt, the index is rebuilt from the log instead.
//
// One that Close leaves is synced, and says what the file was like after the last
// write. One that is taken in between, in the background, is not synced, for all
// of it is there as long as the machine does not stop: it serves for the boot that
// it names, after a kill. So it costs the device nothing if the next one comes soon.
const (
	indexSuffix    = ownSuffix + "index"     // the checkpoint
	newIndexSuffix = ownSuffix + "index-new" // one on its way

	// closeShare of CheckpointBytes is how long a log must be for Close to take a
	// checkpoint: shorter ones are scanned as fast.
	closeShare = 128
	// checkpointRest is how many times the duration of a checkpoint passes, at least,
	// until the next one begins. With 4, filling 10 M keys took a seventh longer for them.
	checkpointRest = 32

	checkpointBuf = 1 << 20 // bytes written at once
)

// What the Logger hears of each checkpoint.
const (
	checkpointBegins = "a checkpoint begins"
	checkpointTaken  = "a checkpoint was taken"
)

// errOverflow: an index with overflow is not saved. It hashes with a seed of this
// process, and only crafted keys bring it about.
var errOverflow = errors.New("the index has overflow")

// checkpointIfDue takes a checkpoint in the background if enough has been written
// since the last. It returns true if it is due and only too early after that.
func (s *Store) checkpointIfDue(g *generation) (early bool) {
	boot := mmapfile.BootID() // 0: nobody could tell later whether the machine has stopped since
	if s.opts.CheckpointBytes < 0 || s.opts.ReadOnly || boot == 0 || g.end.Load() < g.checkpointAt.Load() || !s.checkpointing.CompareAndSwap(false, true) {
		return false
	}
	if time.Now().Before(s.checkpointFrom) {
		s.checkpointing.Store(false)
		return true
	}
	s.spawn(func() {
		defer s.checkpointing.Store(false)
		s.loadRest(s.closing, g) // which lets others have the index in between, as a view does not
		start, end := time.Now(), g.end.Load()
		f, err := s.writeCheckpoint(g, boot)
		if err == nil {
			err = f.Close()
		}
		if err != nil && err != errCheckpointing && s.closing.Err() == nil {
			s.opts.Logger.Warn("no checkpoint was taken", "path", s.path, "err", err)
		}
		g.checkpointAt.Store(end + s.opts.CheckpointBytes)
		s.checkpointFrom = time.Now().Add(checkpointRest * time.Since(start))
	})
	return false
}

// lastCheckpoint leaves a checkpoint of g, which is synced and will not change any
// more. It returns its file, or nil: the store is whole without one.
func (s *Store) lastCheckpoint(g *generation) file {
	f, err := file(nil), error(nil)
	switch end := g.end.Load(); {
	case s.opts.CheckpointBytes < 0 || end < s.opts.CheckpointBytes/closeShare || s.corruptions.count.Load() > 0:
		// What is known to be damaged, the next Open shall read whole, and refuse.
		s.disk.Remove(s.path + indexSuffix)
		return nil
	case g.checkpoint.Load() == end && g.checkpointSynced && !g.checkpointDamaged.Load():
		f, err = s.disk.Open(s.path+indexSuffix, mmapfile.ReadWrite)
	default:
		f, err = s.writeCheckpoint(g, 0)
	}
	if err != nil {
		s.opts.Logger.Warn("no checkpoint was taken", "path", s.path, "err", err)
		return nil
	}
	return f
}

// markClosed notes in the checkpoint f what the log's file is like. Nobody writes to
// that any more.
func markClosed(f file, g *generation) error {
	id, err := g.file.Identity()
	if err != nil {
		return err
	}
	mark := make([]byte, crc.CloseMarkSize)
	crc.EncodeCloseMark(mark, crc.CloseMark{Length: id.Length, Modified: id.Modified}, g.header.Salt)
	_, err = f.WriteAt(mark, crc.CloseMarkOff)
	return err
}

// errCheckpointing: another process is taking a checkpoint of the same store.
var errCheckpointing = errors.New("another process is at it")

// writeCheckpoint saves the index of g as it is now, and puts it in the place of the
// last checkpoint. With boot 0 it is synced; what it covers of the log has been.
func (s *Store) writeCheckpoint(g *generation, boot uint64) (file, error) {
	if s.opts.Shared {
		had, err := g.file.TryLockByte(checkpointLock, false)
		if err == nil && !had {
			err = errCheckpointing
		}
		if err != nil {
			return nil, err
		}
		defer g.file.UnlockByte(checkpointLock)
	}
	f, end, err := s.draftCheckpoint(g, boot)
	if err != nil {
		return nil, err
	}
	if err := s.placeCheckpoint(f, g, boot); err != nil {
		s.dropCheckpoint(f)
		return nil, err
	}
	s.opts.Logger.Debug(checkpointTaken, "path", s.path, "end", end)
	g.checkpoint.Store(end)
	g.checkpointSynced = boot == 0
	return f, nil
}

// draftCheckpoint writes a checkpoint of g that has not got its name yet. It returns which end of the
// log it covers.
func (s *Store) draftCheckpoint(g *generation, boot uint64) (f file, end int64, err error) {
	v, err := g.view()
	if err != nil {
		return nil, 0, err
	}
	defer v.snap.release()
	if v.snap.over != nil {
		return nil, 0, errOverflow
	}
	s.opts.Logger.Debug(checkpointBegins, "path", s.path, "end", v.end, "synced", boot == 0)
	id, err := g.file.Identity()
	if err != nil {
		return nil, 0, err
	}
	head := crc.Checkpoint{
		Generation: g.header.Generation, Salt: g.header.Salt, StoreID: g.header.StoreID, Boot: boot, File: id.Inode,
		Last: v.last, End: v.end, Revision: v.revision, Stamp: s.clock.stamp(), Records: v.count, Live: v.live, Mortal: v.mortal,
		SlotCount: uint32(v.snap.t.mask+1) * bucketSlots, Segments: v.snap.segments(),
	}
	err = guarded(g.file, func() error { head.TailSum = crc.TailSum(g.bytes(), v.last, v.end); return nil })
	runtime.KeepAlive(g)
	if err != nil {
		return nil, 0, err
	}
	temp, count := s.path+newIndexSuffix, len(head.Segments)
	s.disk.Remove(temp)
	f, err = s.disk.Create(temp, s.opts.Perm, crc.SlotsOff(count, count, head.SlotCount))
	if err != nil {
		return nil, 0, err
	}
	if err = s.fillCheckpoint(f, v, &head); err != nil {
		s.dropCheckpoint(f)
		return nil, 0, err
	}
	return f, v.end, nil
}

// dropCheckpoint removes a draft.
func (s *Store) dropCheckpoint(f file) {
	f.Close()
	s.disk.Remove(s.path + newIndexSuffix)
}

// fillCheckpoint writes the segments of v to f, and then the head.
func (s *Store) fillCheckpoint(f file, v *view, head *crc.Checkpoint) error {
	if err := f.mapped().InheritOwner(v.g.mapped); err != nil {
		return err
	}
	buf := make([]byte, 0, checkpointBuf)
	off := crc.SlotsOff(len(head.Segments), 0, head.SlotCount)
	at := 0 // in the directory
	for i := range head.Segments {
		if head.Boot != 0 && s.closing.Err() != nil {
			return ErrClosed // which takes one itself
		}
		seg := &head.Segments[i]
		from := len(buf)
		for _, slot := range v.snap.t.slots(v.snap.dir[at]) {
			buf = binary.LittleEndian.AppendUint64(buf, slot)
			switch {
			case slot > marker:
				seg.Used++
			case slot == marker:
				seg.Marks++
			}
		}
		seg.Sum = crc.SegmentSum(buf[from:], i, head.Salt)
		at += len(v.snap.dir) >> seg.Depth
		if len(buf) == cap(buf) || i == len(head.Segments)-1 {
			if _, err := f.WriteAt(buf, off); err != nil {
				return err
			}
			off += int64(len(buf))
			buf = buf[:0]
		}
	}
	if v.snap.isBroken() {
		return errBroken
	}
	_, err := f.WriteAt(crc.EncodeCheckpoint(head), 0)
	return err
}

// placeCheckpoint gives the checkpoint its name. A crash before that leaves the last
// one, or none; so does a power cut for a while after it, as the directory is not
// synced: each of them is right.
func (s *Store) placeCheckpoint(f file, g *generation, boot uint64) error {
	if boot == 0 {
		if err := f.SyncFile(); err != nil {
			return err
		}
	} else {
		// To rename over another file makes some file systems write the new one out.
		s.disk.Remove(s.path + indexSuffix)
	}
	if s.gen.Load() != g {
		return ErrClosed // compacted meanwhile: nobody would read it
	}
	return s.disk.Rename(s.path+newIndexSuffix, s.path+indexSuffix)
}
