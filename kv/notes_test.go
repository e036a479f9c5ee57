package kv

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/internal/invariants"
	"github.com/mmapkv/mmapkv/mmapfile"
)

var notesFlag = flag.Int("notes", 20, "stores to kill in TestNotesAgree; -seed is the first seed")

// killed is the store as a kill leaves it after do has written behind the checkpoint.
func (a *atlas) killed(t *testing.T, do func(s *Store, want contents)) *atlas {
	t.Helper()
	k := *a
	k.want = maps.Clone(a.want)
	from := a.copyTo(t, nil)
	s := a.open(t, from, false)
	do(s, k.want)
	k.path = copyKilled(t, from)
	return &k
}

// copyKilled copies an open store as a kill would leave it.
func copyKilled(t *testing.T, from string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "store")
	for _, suffix := range []string{"", indexSuffix} {
		b, err := os.ReadFile(from + suffix)
		if err == nil && suffix == "" {
			bury(b)
		}
		if err == nil {
			err = os.WriteFile(path+suffix, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// writeBehind writes what notes can be of: keys that the checkpoint has and others, put,
// deleted, put again after it, deleted after it, by themselves and in transactions; and one
// key so often that its segment has no more room for notes.
func writeBehind(t *testing.T, s *Store, want contents) {
	t.Helper()
	del := func(key string) {
		if err := s.Delete([]byte(key)); err != nil {
			t.Fatal(err)
		}
		delete(want, key)
	}
	for i := range 400 {
		old, fresh := fmt.Sprint("key ", i*31), fmt.Sprint("behind ", i)
		for _, key := range []string{old, fresh} {
			switch i % 8 {
			case 0:
				want.put(t, s, key, fmt.Sprint("put ", i))
			case 1:
				want.put(t, s, key, "once")
				want.put(t, s, key, fmt.Sprint("twice ", i))
			case 2:
				del(key)
			case 3:
				del(key)
				want.put(t, s, key, fmt.Sprint("again ", i))
			case 4:
				want.put(t, s, key, "for a moment")
				del(key)
			case 5:
				del(key)
				want.put(t, s, key, "for a moment")
				del(key)
			case 6:
				if err := s.PutTTL([]byte(key), fmt.Append(nil, "until late ", i), time.Hour); err != nil {
					t.Fatal(err)
				}
				want[key] = fmt.Sprint("until late ", i)
			}
		}
		if i%8 != 7 {
			continue
		}
		err := s.Update(func(tx *Tx) error {
			return errors.Join(tx.Put([]byte(old), fmt.Append(nil, "tx ", i)), tx.Delete(fmt.Append(nil, "key ", i*31+1)), tx.Put([]byte(fresh), nil))
		})
		if err != nil {
			t.Fatal(err)
		}
		want[old], want[fresh] = fmt.Sprint("tx ", i), ""
		delete(want, fmt.Sprint("key ", i*31+1))
	}
	for i := range 3 * maxNotes {
		want.put(t, s, "again and again", fmt.Sprint(i))
	}
}

// loaded returns how many segments of s have been loaded, and how many there were.
func loaded(s *Store) (n, of int) {
	ix := s.gen.Load().index
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if ix.saved == nil {
		return len(ix.segs), len(ix.segs)
	}
	return len(ix.saved.Segments) - ix.saved.left, len(ix.saved.Segments)
}

// Goal: Open loads no segment for the records behind the checkpoint, but one of which
// there are too many; a read loads its own; Len and Stats load those with notes, and no
// others, and are exact. Method: two keys in each of ten segments, and one key very
// often, written behind a checkpoint of more segments.
func TestNotesLoadLittle(t *testing.T) {
	a := atlasOf(t, 60_000)
	often := "again and again"
	k := a.killed(t, func(s *Store, want contents) {
		for i := range 10 {
			for _, key := range a.keysIn([]int{i}, 2) {
				want.put(t, s, key, "behind")
			}
		}
		for i := range 4 * maxNotes {
			want.put(t, s, often, fmt.Sprint(i))
		}
	})
	touched := map[int]bool{k.segmentOf(often): true}
	for i := range 10 {
		touched[i] = true
	}
	for _, tc := range []struct {
		name string
		meet func(s *Store) int // returns how many segments are loaded after it
	}{
		{"nothing", func(*Store) int { return 1 }},
		{"a read of another segment", func(s *Store) int {
			other := len(k.head.Segments) - 1
			if other == k.segmentOf(often) {
				other--
			}
			key := k.keysIn([]int{other}, 1)[0]
			mustGet(t, s, key, k.want[key])
			return 2
		}},
		{"a read", func(s *Store) int {
			at := (k.segmentOf(often) + 1) % 10
			for _, key := range a.keysIn([]int{at}, 1<<30) {
				mustGet(t, s, key, k.want[key])
			}
			return 2
		}},
		{"Len", func(s *Store) int {
			if n := s.Len(); n != len(k.want) {
				t.Errorf("Len is %d, of %d", n, len(k.want))
			}
			return len(touched)
		}},
		{"Stats", func(s *Store) int {
			if st := s.Stats(); st.Keys != int64(len(k.want)) || st.LiveBytes+st.DeadBytes+crc.HeaderSize != st.Tail {
				t.Errorf("%+v of %d keys", st, len(k.want))
			}
			return len(touched)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := k.open(t, k.copyTo(t, nil), false)
			want := tc.meet(s)
			if n, of := loaded(s); n != want || of < 2*len(touched) {
				t.Errorf("%d segments of %d are loaded, want %d", n, of, want)
			}
			k.want.must(t, s)
		})
	}
}

// crowd returns new keys of segment into, all of one home bucket, of which there are more than
// a segment can have, and not so many that half of one cannot.
func (a *atlas) crowd(into int) (keys []string) {
	buckets, seg := uint64(a.head.SlotCount)/bucketSlots, a.head.Segments[into]
	there := make([]int, buckets)
	for key := range a.want {
		if a.segmentOf(key) == into {
			there[a.index.hash.sum([]byte(key))&(buckets-1)]++
		}
	}
	home := uint64(slices.Index(there, slices.Min(there)))
	half := uint64(1) << (63 - seg.Depth) // the bit of the hash that tells the halves apart
	if a.head.SlotCount < segmentSlots {
		half = buckets
	}
	const most = maxProbe * bucketSlots // slots for the keys of a bucket
	left := [2]int{most*3/4 - 1, most*3/4 - 1}
	for i := 0; left != [2]int{}; i++ {
		key := fmt.Sprint("crowd ", i)
		h, side := a.index.hash.sum([]byte(key)), 0
		if h&half != 0 {
			side = 1
		}
		if h&(buckets-1) == home && left[side] > 0 && a.segmentOf(key) == into {
			keys = append(keys, key)
			left[side]--
		}
	}
	return keys
}

// Goal: a segment that has no room for what was noted for it splits, or, as the only and
// small one, grows, before anybody sees it; and no key comes into the overflow for that.
// Method: stores of one segment, of any number of keys, and one of many; behind the
// checkpoint more keys of one home bucket than fit around it, or more than there are slots.
func TestNotesSplit(t *testing.T) {
	for _, tc := range []struct {
		name   string
		keys   int
		behind func(a *atlas, into int) []string
	}{
		{"a few keys", 10, (*atlas).many},
		{"fifty keys", 50, (*atlas).many},
		{"one small segment", 600, (*atlas).crowd},
		{"one that leaves the heap", 1300, (*atlas).crowd},
		{"one that splits", 2500, (*atlas).crowd},
		{"one of many", 30_000, (*atlas).crowd},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, into := atlasOf(t, tc.keys), 0
			for i, seg := range a.head.Segments {
				if seg.Used > a.head.Segments[into].Used {
					into = i
				}
			}
			behind := tc.behind(a, into)
			k := a.killed(t, func(s *Store, want contents) {
				for _, key := range behind {
					want.put(t, s, key, "behind the checkpoint")
				}
			})
			s := k.open(t, k.copyTo(t, nil), false)
			ix := s.gen.Load().index
			segments, slots := len(ix.segs), len(ix.table.Load().slots(0))
			if n, _ := loaded(s); n != 0 {
				t.Fatalf("%d segments are loaded", n)
			}
			for key := range k.want {
				if k.segmentOf(key) == into {
					mustGet(t, s, key, k.want[key])
				}
			}
			if n, _ := loaded(s); n != 1 && len(k.head.Segments) > 1 {
				t.Errorf("%d segments are loaded", n)
			}
			if len(ix.segs) == segments && len(ix.table.Load().slots(0)) == slots {
				t.Error("it took them in as it is")
			}
			k.want.must(t, s)
			if ix.over.Load() != nil {
				t.Error("there is overflow")
			}
			takeCheckpoint(t, s)
			s = k.open(t, copyKilled(t, s.Path()), true)
			k.want.must(t, s)
		})
	}
}

// many returns as many new keys as a segment can have notes. There is one segment.
func (a *atlas) many(int) (keys []string) {
	for i := range maxNotes {
		keys = append(keys, fmt.Sprint("behind ", i))
	}
	return keys
}

// Goal: a segment that splits while notes are entered stays hidden, whole: else a reader would
// see it without those that are still to come. Method: the split of a segment that counts
// as not loaded; the directory then, and after it.
func TestSplitStaysHidden(t *testing.T) {
	for _, keys := range []int{50, 30_000} {
		a := atlasOf(t, keys)
		s := a.open(t, a.copyTo(t, nil), false)
		ix := s.gen.Load().index
		ix.mu.Lock()
		entries := func() (hidden int) {
			dir := ix.table.Load().dir
			for i := range dir {
				if dir[i].Load()&unloaded != 0 {
					hidden++
				}
			}
			return len(dir) - hidden
		}
		ix.saved.entering = true
		if _, err := ix.relieve(0); err != nil {
			t.Fatal(err)
		}
		if n := entries(); n != 0 {
			t.Errorf("%d keys: %d entries of the directory show a segment that is not there", keys, n)
		}
		ix.saved.entering = false
		ix.mu.Unlock()
	}
}

// Goal: with notes, all is counted as without: keys, records, bytes that are live and that
// have a deadline, the last record; whatever meets the segments first, and in whatever
// order. Method: random stores and random writes behind a checkpoint, of few keys so that
// they meet each other, half of them with the log cut off anywhere behind it; each opened by
// the checkpoint, and by its log alone.
func TestNotesAgree(t *testing.T) {
	runs := *notesFlag
	if invariants.Enabled {
		runs = (runs + 3) / 4
	}
	for seed := *seedFlag; seed < *seedFlag+uint64(runs); seed++ {
		if dir, err := notesAgree(t, seed); err != nil {
			t.Fatalf("%v\nthe store: %s\nreplay: go test ./kv -run TestNotesAgree -notes 1 -seed %d", err, keepStore(t, dir), seed)
		}
	}
}

// keepStore moves the store at path to a place that outlives the test.
func keepStore(t *testing.T, path string) string {
	dir, err := os.MkdirTemp("", "mmapkv-notes-")
	for _, suffix := range []string{"", indexSuffix} {
		err = errors.Join(err, os.Rename(path+suffix, filepath.Join(dir, "store"+suffix)))
	}
	if err != nil {
		t.Error(err)
	}
	return filepath.Join(dir, "store")
}

// notesAgree is TestNotesAgree for one seed. It returns the store that was killed.
func notesAgree(t *testing.T, seed uint64) (path string, err error) {
	rng := rand.New(rand.NewPCG(seed, 7))
	keys := []int{20, 300, 5000, 20_000}[rng.IntN(4)]
	from := filepath.Join(t.TempDir(), "store")
	s, err := openOn(copiedDisk, from, &Options{Durability: SyncManual, CheckpointBytes: 1, CompactAt: -1, SyncEvery: time.Hour})
	if err != nil {
		return from, err
	}
	defer func() { s.Close() }()
	s.checkpointing.Store(true)
	want := contents{}
	var ops []string
	write := func(n int) {
		for i := 0; i < n && err == nil; i++ {
			key, value := fmt.Sprint("key ", rng.IntN(keys)), strings.Repeat("v", rng.IntN(60))
			put := func(how string, put func(key, value []byte) error) {
				want[key] = value
				ops = append(ops, fmt.Sprint(how, " ", key, " ", len(value)))
				err = put([]byte(key), []byte(value))
			}
			switch rng.IntN(8) {
			case 0, 1:
				delete(want, key)
				ops = append(ops, "delete "+key)
				err = s.Delete([]byte(key))
			case 2:
				put("until late", func(key, value []byte) error { return s.PutTTL(key, value, time.Hour) })
			case 3:
				err = s.Update(func(tx *Tx) (err error) {
					for range rng.IntN(5) {
						key := fmt.Sprint("key ", rng.IntN(keys))
						if rng.IntN(3) == 0 {
							delete(want, key)
							ops = append(ops, "tx delete "+key)
							err = errors.Join(err, tx.Delete([]byte(key)))
						} else {
							want[key] = value
							ops = append(ops, fmt.Sprint("tx put ", key, " ", len(value)))
							err = errors.Join(err, tx.Put([]byte(key), []byte(value)))
						}
					}
					return err
				})
			default:
				put("put", s.Put)
			}
		}
	}
	write(keys + rng.IntN(keys))
	if err == nil {
		var f file
		if f, err = s.writeCheckpoint(s.gen.Load(), mmapfile.BootID()); err == nil {
			err = f.Close()
		}
	}
	ops = nil
	write(rng.IntN(min(2*keys, 3000)) + 1)
	if err != nil {
		return from, err
	}
	path = copyKilled(t, from)
	covered, end, cut := s.gen.Load().checkpoint.Load(), s.gen.Load().end.Load(), int64(-1)
	if rng.IntN(2) == 0 {
		cut = covered + rng.Int64N(end-covered)
		err = os.Truncate(path, cut)
	}
	log, err2 := os.ReadFile(path)
	alone := filepath.Join(t.TempDir(), "alone")
	if err = errors.Join(err, err2, os.WriteFile(alone, log, 0o600)); err != nil {
		return path, err
	}
	agree := func() error {
		ref, err := openStill(alone, true)
		if err != nil {
			return err
		}
		defer ref.Close()
		got, err := openStill(path, true)
		if err != nil {
			return err
		}
		defer got.Close()
		if !byCheckpoint(got) || byCheckpoint(ref) {
			return errors.New("not opened by its checkpoint, or not by its log")
		}
		if cut >= 0 {
			clear(want)
			for key, value := range ref.Iter(nil).All() {
				want[string(key)] = string(value)
			}
		}
		g, all := got.gen.Load(), viewOf(ref.gen.Load())
		if g.dead() < 0 || g.live.Load() < all.live {
			return fmt.Errorf("with notes, %d bytes are live and %d dead; without, %d are live", g.live.Load(), g.dead(), all.live)
		}
		switch rng.IntN(4) {
		case 0:
			got.loadRest(t.Context(), g)
		case 1:
			if n := got.Len(); n != len(want) {
				return fmt.Errorf("Len is %d, want %d", n, len(want))
			}
		case 2:
			if st := got.Stats(); st.Keys != all.keys || st.LiveBytes != all.live {
				return fmt.Errorf("Stats has %d keys and %d live bytes, want %d and %d", st.Keys, st.LiveBytes, all.keys, all.live)
			}
		}
		if err := want.exactly(got); err != nil {
			return err
		}
		if now := viewOf(g); now != all {
			return fmt.Errorf("it counts %+v, want %+v", now, all)
		}
		return nil
	}
	if err = agree(); err != nil {
		return path, fmt.Errorf("%w\nbehind the checkpoint of %d keys, the log being cut at %d:\n\t%s", err, keys, cut, strings.Join(ops, "\n\t"))
	}
	return path, nil
}

// counted is what a generation counts.
type counted struct {
	end, last, keys, live, count, mortal int64
	revision                             uint64
}

func viewOf(g *generation) counted {
	return counted{
		end: g.end.Load(), last: g.last, keys: g.index.keys.Load(), live: g.live.Load(), count: g.count.Load(), mortal: g.mortal.Load(),
		revision: g.revision.Load(),
	}
}

// oneNoted returns a store of n keys, and what a kill left of it after 20 keys of the segment
// in its middle were written behind the checkpoint: all put, the fourth deleted again.
func oneNoted(t *testing.T, n int) (a, k *atlas, into int, keys []string) {
	t.Helper()
	a = atlasOf(t, n)
	into = len(a.head.Segments) / 2
	keys = a.keysIn([]int{into}, 20)
	return a, a.killed(t, func(s *Store, want contents) {
		for _, key := range keys {
			want.put(t, s, key, "behind the checkpoint")
		}
		if err := s.Delete([]byte(keys[3])); err != nil {
			t.Fatal(err)
		}
		delete(want, keys[3])
	}), into, keys
}

// Goal: where a note cannot be entered, because its record was changed beneath, or cannot be
// read, or there is no memory, the keys of its segment are ErrCorrupt, to read and to
// write, and all others go on; Len and Stats say nothing; nothing is poisoned; and once
// the cause is gone, the note is still there. Method: each cause is brought about in an
// open store that has loaded nothing, and ended.
func TestNotesCannotBeEntered(t *testing.T) {
	_, k, into, keys := oneNoted(t, 60_000)
	change := func(at int) func(s *Store) (undo func()) {
		return func(s *Store) func() {
			g := s.gen.Load()
			g.index.mu.Lock()
			notes := g.index.saved.notes[into]
			g.index.mu.Unlock()
			off := notes[len(notes)/2].off
			part := partsOfNote[at]
			harmUnseen(t, s.Path(), off+part.at, part.change, 8)
			return func() { harmUnseen(t, s.Path(), off+part.at, part.change, 8) }
		}
	}
	for _, tc := range []struct {
		name  string
		cause func(s *Store) (undo func())
	}{
		{"another key", change(0)},
		{"no record", change(1)},
		{"no memory", func(s *Store) func() {
			ix := s.gen.Load().index
			ix.mu.Lock()
			defer ix.mu.Unlock()
			for ix.spare() > 0 {
				if _, err := ix.allocate(); err != nil {
					t.Fatal(err)
				}
			}
			more := ix.more
			ix.more = func(bool) (chunk, error) { return chunk{}, mmapfile.ErrNoSpace }
			return func() { ix.mu.Lock(); defer ix.mu.Unlock(); ix.more = more }
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := k.open(t, k.copyTo(t, nil), false)
			undo := tc.cause(s)
			before := viewOf(s.gen.Load())
			for range 2 {
				for _, key := range k.keysIn([]int{into}, 50) {
					if v, err := s.Get([]byte(key)); !errors.Is(err, ErrCorrupt) {
						t.Fatalf("%q is %q, %v", key, v, err)
					}
				}
				for name, err := range map[string]error{
					"Get of a deleted one": func() error { _, err := s.Get([]byte(keys[3])); return err }(),
					"Put":                  s.Put([]byte(keys[0]), nil),
					"Delete":               s.Delete([]byte(keys[1])),
					"Update":               s.Update(func(tx *Tx) error { return tx.Put([]byte(keys[2]), nil) }),
					"Iter":                 s.Iter(nil).Err(),
					"Compact":              func() error { _, err := s.Compact(t.Context()); return err }(),
				} {
					if !errors.Is(err, ErrCorrupt) {
						t.Errorf("%s: %v", name, err)
					}
				}
				if n, st := s.Len(), s.Stats(); n != 0 || st.Keys != 0 {
					t.Errorf("Len is %d, Stats %+v", n, st)
				}
			}
			for key, value := range k.want {
				if k.segmentOf(key) != into {
					mustGet(t, s, key, value)
				}
			}
			if after := viewOf(s.gen.Load()); after != before || s.poisoned() != nil {
				t.Errorf("before %+v, after %+v, %v", before, after, s.poisoned())
			}
			undo()
			k.want.must(t, s)
			want := maps.Clone(k.want)
			want.put(t, s, keys[0], "after it")
			want.must(t, s)
		})
	}
}

// partsOfNote are where the record of a note can be changed, and changed back.
var partsOfNote = []struct {
	at     int64
	change func(b []byte)
}{
	{crc.FrameSize + 4, func(b []byte) { b[0] ^= 1 }},
	{8, func(b []byte) { binary.LittleEndian.PutUint64(b, ^binary.LittleEndian.Uint64(b)) }},
}

// Goal: what breaks off the entering of notes is no wrong answer either: all that is not
// loaded is ErrCorrupt from then on, and the rest goes on. Method: what is needed last
// before they are entered, memory, is what changes a record.
func TestNotesBrokenOff(t *testing.T) {
	_, k, into, _ := oneNoted(t, 60_000)
	s := k.open(t, k.copyTo(t, nil), false)
	g := s.gen.Load()
	early := k.keysIn([]int{0}, 1<<30)
	mustGet(t, s, early[0], k.want[early[0]])
	ix := g.index
	ix.mu.Lock()
	off := ix.saved.notes[into][10].off
	for ix.spare() > 0 {
		if _, err := ix.allocate(); err != nil {
			t.Fatal(err)
		}
	}
	more := ix.more
	ix.more = func(huge bool) (chunk, error) {
		harmUnseen(t, s.Path(), off+partsOfNote[0].at, partsOfNote[0].change, 8)
		return more(huge)
	}
	ix.mu.Unlock()
	for range 2 {
		for key, value := range k.want {
			switch v, err := s.Get([]byte(key)); {
			case k.segmentOf(key) == into && !errors.Is(err, ErrCorrupt):
				t.Fatalf("%q is %q, %v", key, v, err)
			case err == nil && string(v) != value || err != nil && !errors.Is(err, ErrCorrupt):
				t.Fatalf("%q of another segment is %q, %v", key, v, err)
			}
		}
		for _, key := range early {
			mustGet(t, s, key, k.want[key])
		}
	}
	if !ix.saved.gone || s.Len() != 0 {
		t.Errorf("gone: %v, Len is %d", ix.saved.gone, s.Len())
	}
	if err := errors.Join(s.Put([]byte(early[0]), nil), s.poisoned(), s.Close()); err != nil {
		t.Error(err)
	}
}

// Goal: a write that finds no space compacts if that promises some, be what is dead known
// from notes alone. Method: a store of several segments, and of a few large values, which are
// overwritten behind its checkpoint until it is full.
func TestNotesPromiseSpace(t *testing.T) {
	from := filepath.Join(t.TempDir(), "store")
	opts := Options{Durability: SyncManual, CheckpointBytes: 1, CompactAt: -1, SyncEvery: time.Hour, MaxSize: 2 << 20}
	s, err := openOn(copiedDisk, from, &opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.checkpointing.Store(true)
	want := contents{}
	for i := range 15_000 {
		want.put(t, s, fmt.Sprint("key ", i), "")
	}
	for i := range 40 {
		want.put(t, s, fmt.Sprint("large ", i), strings.Repeat("a", 16<<10))
	}
	takeCheckpoint(t, s)
	for i := 0; ; i++ {
		key, value := fmt.Sprint("large ", i%40), strings.Repeat(string(rune('b'+i/40)), 16<<10)
		if err := s.Put([]byte(key), []byte(value)); errors.Is(err, ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		want[key] = value
	}
	opts.CompactAt = 0.99
	s, err = openOn(copiedDisk, copyKilled(t, from), &opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.checkpointing.Store(true)
	if n, of := loaded(s); n != 0 || of < 4 || !byCheckpoint(s) {
		t.Fatalf("%d segments of %d are loaded", n, of)
	}
	want.put(t, s, "one more", strings.Repeat("z", 20<<10))
	want.must(t, s)
	if s.Stats().Compactions == 0 {
		t.Error("there was space without a compaction")
	}
}
