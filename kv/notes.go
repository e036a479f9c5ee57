package kv

import (
	"runtime"

	"github.com/mmapkv/mmapkv/codec"
)

// note is of a record behind the end of a checkpoint, which the segment of its key is to
// get when it is loaded, by whoever does that. A few thousand records meet nearly every
// segment of a large index: Open reads and verifies them, and loads none of those.
type note struct {
	hash uint64 // of the key
	off  int64  // of the record
	kind codec.Kind
}

// maxNotes is how many notes a segment has at most. They take less than a fifth of the
// segment's own memory; whoever meets it first waits two to three times as long as without;
// and where more records meet it, its loading is little beside theirs.
const maxNotes = segmentSlots / 16

// note notes r if its segment has not been loaded, and has room for the note. Else r is to
// be entered at once. The caller holds mu, and has all records noted or entered in their order.
func (ix *index) note(r *intakeRecord) bool {
	if ix.saved == nil {
		return false
	}
	t := ix.table.Load()
	entry := t.dir[r.hash>>t.shift].Load()
	if entry&unloaded == 0 {
		return false
	}
	notes := &ix.saved.notes[segmentID(entry)]
	switch len(*notes) {
	case maxNotes:
		return false
	case 0:
		ix.noted.Add(1)
	}
	*notes = append(*notes, note{r.hash, r.off, r.kind})
	return true
}

// loadNoted is load of the segments that have notes: the keys and the live bytes are
// counted exactly after it. Others get the lock in between. The caller does not hold mu.
func (ix *index) loadNoted() (off int64) {
	next := func(id int) int64 {
		ix.mu.Lock()
		defer ix.mu.Unlock()
		if v := ix.saved; v != nil && len(v.notes[id]) > 0 {
			return ix.load(v.notes[id][0].hash)
		}
		return 0
	}
	for id := 0; off == 0 && ix.noted.Load() > 0; id++ { // Open alone adds notes
		off = next(id)
	}
	return off
}

// enterNotes enters the notes of segment id, whose slots are those of the checkpoint. If
// they cannot be entered, it returns what find does for a record that cannot be read. The
// caller holds mu. The segment may split, as any other, for until the caller publishes them
// nobody else sees it or its parts.
func (ix *index) enterNotes(id uint32) (off int64) {
	v := ix.saved
	if len(v.notes[id]) == 0 {
		return 0
	}
	// What can fail is tried before anything has changed, so that a later load may succeed.
	if off := v.try(id); off != 0 {
		return -off
	}
	v.entering = true
	replaced, off := v.enter(ix, v.notes[id])
	v.entering = false
	if off != 0 {
		v.lost, v.gone = -off, true
		return v.lost
	}
	v.notes[id] = nil
	ix.noted.Add(-1)
	v.g.live.Add(-replaced)
	return 0
}

// try reads what enter will read of the notes of segment id, and gets the memory that it
// may need. It returns the offset of the record at which that failed.
func (v *saved) try(id uint32) (off int64) {
	ix := v.g.index
	err := guarded(v.g.file, func() error {
		t := ix.table.Load()
		for _, n := range v.notes[id] {
			off = n.off
			if _, err := v.key(n); err != nil { // in a pass of its own, whose misses overlap
				return err
			}
		}
		for _, n := range v.notes[id] {
			off = n.off
			key, _ := v.g.log.key(off)
			ix.probe(t, t.slots(uint64(id)), n.hash, key)
		}
		return ix.reserveLocked(1) // chance splits a segment once for so few keys
	})
	runtime.KeepAlive(v.g)
	if err == nil {
		off = 0
	}
	return off
}

// enter makes ix, which is the log's index or a part of it, agree with the notes. It returns
// how many bytes of records they replaced, or the offset of the record at which it failed.
func (v *saved) enter(ix *index, notes []note) (replaced, off int64) {
	err := guarded(v.g.file, func() error {
		for _, n := range notes {
			off = n.off
			key, err := v.key(n)
			if err != nil {
				return err
			}
			size, err := ix.apply(n.kind, n.hash, key, n.off)
			if err != nil {
				return err
			}
			replaced += size
		}
		return nil
	})
	ix.count()
	runtime.KeepAlive(v.g)
	if err == nil {
		off = 0
	}
	return replaced, off
}

// key returns the key of the record of n, which verified when it was noted.
func (v *saved) key(n note) ([]byte, error) {
	key, ok := v.g.log.key(n.off)
	if !ok || v.g.index.hash.sum(key) != n.hash {
		return nil, errChanged
	}
	return key, nil
}
