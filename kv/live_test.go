package kv

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/mmapkv/mmapkv/crc"
)

// liveShapes are logs whose current entries are looked for.
var liveShapes = []struct {
	name string
	keys int
	fill func(s *Store, r *rand.Rand, key func(i int) []byte, keys int) error
}{
	{"empty", 0, func(*Store, *rand.Rand, func(int) []byte, int) error { return nil }},
	{"each key once", 9000, putEach},
	{"few keys", 40, putEach},
	{"half dead", 9000, func(s *Store, r *rand.Rand, key func(int) []byte, keys int) error {
		err := putEach(s, r, key, keys)
		for _, i := range r.Perm(keys) {
			err = errors.Join(err, s.Put(key(i), fmt.Append(nil, "again ", i)))
		}
		return err
	}},
	{"deleted, but for few", 9000, func(s *Store, r *rand.Rand, key func(int) []byte, keys int) error {
		err := putEach(s, r, key, keys)
		for i := range keys {
			if i%100 != 7 {
				err = errors.Join(err, s.Delete(key(i)))
			}
		}
		return err
	}},
	{"all deleted", 300, func(s *Store, r *rand.Rand, key func(int) []byte, keys int) error {
		err := putEach(s, r, key, keys)
		for i := range keys {
			err = errors.Join(err, s.Delete(key(i)))
		}
		return err
	}},
	{"transactions, and values of any length", 600, func(s *Store, r *rand.Rand, key func(int) []byte, keys int) (err error) {
		for i := 0; i < keys; i += 6 {
			err = errors.Join(err, s.Update(func(tx *Tx) (err error) {
				for j := range 6 {
					err = errors.Join(err, tx.Put(key(i+j), make([]byte, r.IntN(1<<r.IntN(18)))))
				}
				return err
			}))
		}
		return err
	}},
}

func putEach(s *Store, _ *rand.Rand, key func(int) []byte, keys int) (err error) {
	for i := range keys {
		err = errors.Join(err, s.Put(key(i), fmt.Append(nil, "value ", i)))
	}
	return err
}

// strandSome moves every third key of s to the overflow index, as crafted keys go there.
func strandSome(t *testing.T, s *Store, key func(i int) []byte, keys int) {
	t.Helper()
	ix := s.gen.Load().index
	ix.mu.Lock()
	defer ix.mu.Unlock()
	for i := 0; i < keys; i += 3 {
		off, err := ix.remove(ix.hash.sum(key(i)), key(i))
		if err == nil && off != 0 {
			err = ix.overflow(key(i), off)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// entriesOf copies what w finds.
func entriesOf(w *liveWalk) (entries []string, err error) {
	for batch := range w.batches() {
		for _, e := range batch {
			entries = append(entries, fmt.Sprintf("%s=%s", e.key, e.value))
		}
	}
	return entries, w.err
}

// liveRecords copies the current entries as Records, which looks up each record of the log,
// tells of them.
func liveRecords(t *testing.T, s *Store, prefix []byte) (entries []string) {
	t.Helper()
	for r, err := range s.Records(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Live && bytes.HasPrefix(r.Key, prefix) {
			entries = append(entries, fmt.Sprintf("%s=%s", r.Key, r.Value))
		}
	}
	return entries
}

// slotsOf counts the slots of a snapshot.
func slotsOf(t *testing.T, s *Store) (n int) {
	t.Helper()
	v, err := s.view()
	if err != nil {
		t.Fatal(err)
	}
	defer v.snap.release()
	for slots := range v.snap.slots() {
		for _, slot := range slots {
			if slot > marker {
				n++
			}
		}
	}
	return n
}

// Goal: an iteration yields each current entry once, in the order of the log, whatever
// share of the log is dead, wherever the slots lie and the windows end. Method: compared
// with a look at each record; windows of one stretch, of a few, and of all.
func TestIterWindows(t *testing.T) {
	key := func(i int) []byte { return fmt.Appendf(nil, "%c key %d", 'a'+i%5, i) }
	for _, shape := range liveShapes {
		for _, over := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, overflow %v", shape.name, over), func(t *testing.T) {
				s := openTest(t, &Options{Durability: SyncManual, CompactAt: -1})
				if err := shape.fill(s, rand.New(rand.NewPCG(1, 2)), key, shape.keys); err != nil {
					t.Fatal(err)
				}
				if over {
					strandSome(t, s, key, shape.keys)
				}
				if n, keys := slotsOf(t, s), s.Len(); n != keys {
					t.Errorf("%d slots of %d keys", n, keys)
				}
				for _, prefix := range [][]byte{nil, []byte("c key"), []byte("none")} {
					want := liveRecords(t, s, prefix)
					for _, window := range []int64{stretchLen, 3 * stretchLen, liveWindow} {
						for _, trusted := range []bool{true, false} {
							v, err := s.view()
							if err != nil {
								t.Fatal(err)
							}
							w := newLiveWalk(v, prefix, trusted)
							w.window = window
							got, err := entriesOf(w)
							v.snap.release()
							if err != nil || !slices.Equal(got, want) {
								t.Errorf("prefix %q, windows of %d, trusted %v: %d entries, %v, want %d in their order", prefix, window, trusted, len(got), err, len(want))
							}
						}
					}
				}
			})
		}
	}
}

// Goal: the words of a stretch are sorted, one of each record. Method: random words, some
// of them twice, against slices.Sort.
func TestSortStretch(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var table [stretchUnits]uint32
	for _, n := range []int{0, 1, 2, 63, 64, 65, 1000, stretchUnits} {
		var want, words []uint32
		for i, unit := range r.Perm(stretchUnits)[:n] {
			word := uint32(unit)<<wordTagBits | r.Uint32()&wordTagMask
			want = append(want, word)
			for range 1 + i%3/2 {
				words = append(words, word)
			}
		}
		slices.Sort(want)
		r.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
		if got := sortStretch(words, &table); !slices.Equal(got, want) {
			t.Errorf("of %d records there are %d, or not in their order", n, len(got))
		}
	}
}

// Goal: a key that is changed beneath ends the loop in an error, never in its absence nor
// in another key, wherever the record lies, with a prefix too; what lies before has been
// yielded. Method: bits of keys, lengths and values' places flipped through another
// descriptor, among the first records, in the middle and last, in both indices.
func TestIterKeyChangedBeneath(t *testing.T) {
	const keys = 5000
	key := func(i int) []byte { return fmt.Appendf(nil, "key %04d", i) }
	for _, over := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "store")
		s := openTestAt(t, path, &Options{Durability: SyncManual, CompactAt: -1})
		if err := putEach(s, nil, key, keys); err != nil {
			t.Fatal(err)
		}
		if over {
			strandSome(t, s, key, keys)
		}
		for _, i := range []int{0, 1, keys / 2, keys/2 + 1, keys - 2, keys - 1} {
			r := recordOf(t, s, string(key(i)))
			rec := s.gen.Load().bytes()[r.Off : r.Off+r.Len]
			for _, d := range []struct {
				name string
				at   int
			}{
				{"length", crc.FrameSize - 8},
				{"key's tag", crc.FrameSize},
				{"key's length", crc.FrameSize + 1},
				{"key", bytes.Index(rec, key(i)) + 7},
				{"value's length", bytes.Index(rec, []byte("value")) - 1},
			} {
				for _, prefix := range [][]byte{nil, key(i)[:5], []byte("none")} {
					undo := harm(t, path, r.Off+int64(d.at), flip, 1)
					it, n := s.Iter(prefix), 0
					for k := range it.All() {
						if n++; len(prefix) == 0 && n <= i && !bytes.Equal(k, key(n-1)) || !bytes.HasPrefix(k, []byte("key ")) {
							t.Errorf("entry %d is %q", n, k)
						}
					}
					undo()
					what := fmt.Sprintf("overflow %v, %s of key %d, prefix %q", over, d.name, i, prefix)
					if !errors.Is(it.Err(), ErrCorrupt) {
						t.Errorf("%s: %v after %d entries", what, it.Err(), n)
					}
					// Where the first records end, an absent key shows at the end.
					var e *Error
					if i >= keys/2 && (!errors.As(it.Err(), &e) || e.Offset != r.Off) {
						t.Errorf("%s: %v, the record is at %d", what, it.Err(), r.Off)
					}
					if i >= keys/2 && len(prefix) == 0 && n != i {
						t.Errorf("%s: %d entries were yielded", what, n)
					}
				}
			}
		}
	}
}

// Goal: an iteration shows one moment while others write, and ends its snapshot as soon
// as it needs it no more, also if it is left early. Method: a writer that replaces and
// deletes all, beside loops over windows of one stretch; the list of snapshots.
func TestIterBesideWriters(t *testing.T) {
	const keys = 6000
	key := func(i int) []byte { return fmt.Append(nil, "key ", i) }
	s := openTest(t, &Options{Durability: SyncManual, CompactAt: -1})
	if err := putEach(s, nil, key, keys); err != nil {
		t.Fatal(err)
	}
	ix := s.gen.Load().index
	snapshots := func() int {
		ix.mu.Lock()
		defer ix.mu.Unlock()
		return len(ix.snapshots)
	}
	n := 0
	for range s.Iter(nil).All() {
		if n++; n == 1 && snapshots() != 1 {
			t.Errorf("%d snapshots at the first entry", snapshots())
		}
		if n == keys/2 && snapshots() != 0 {
			t.Errorf("%d snapshots half way through", snapshots())
		}
	}
	for _, leave := range []int{1, keys / 2} {
		n := 0
		for range s.Iter(nil).All() {
			if n++; n == leave {
				break
			}
		}
		if snapshots() != 0 {
			t.Errorf("%d snapshots after a loop that was left at entry %d", snapshots(), leave)
		}
	}
	done := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		r := rand.New(rand.NewPCG(5, 6))
		for {
			select {
			case <-done:
				return
			default:
			}
			i := r.IntN(keys)
			// In pairs, of which a snapshot has both or none.
			err := s.Update(func(tx *Tx) error {
				if r.IntN(3) == 0 {
					return errors.Join(tx.Delete(key(i)), tx.Delete(fmt.Append(nil, "twin ", i)))
				}
				value := fmt.Append(nil, r.Uint64())
				return errors.Join(tx.Put(key(i), value), tx.Put(fmt.Append(nil, "twin ", i), value))
			})
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	for round := range 20 {
		v, err := s.view()
		if err != nil {
			t.Fatal(err)
		}
		w := newLiveWalk(v, nil, round%2 == 0)
		w.window = stretchLen
		seen := make(map[string]string)
		for batch := range w.batches() {
			for _, e := range batch {
				if old, twice := seen[string(e.key)]; twice {
					t.Fatalf("%q has %q and %q", e.key, old, e.value)
				}
				seen[string(e.key)] = string(e.value)
			}
		}
		v.snap.release()
		if w.err != nil || len(seen) != int(v.keys) {
			t.Fatalf("%d of %d entries, %v", len(seen), v.keys, w.err)
		}
		for k, value := range seen {
			var i int
			if _, err := fmt.Sscanf(k, "twin %d", &i); err == nil && seen[string(key(i))] != value {
				t.Fatalf("%q has %q, its twin %q", k, value, seen[string(key(i))])
			}
		}
	}
	close(done)
	writer.Wait()
}

// Goal: a snapshot that there was no memory to keep ends the loop in an error, whatever
// the slots are then. Method: an index that gets no more memory, and a writer that
// changes each segment within the loop: at once, and at the last entry that is looked
// up, so that all slots are taken after it.
func TestIterBrokenSnapshot(t *testing.T) {
	const keys = 300_000
	const first = (keys/firstShare/cursorBatch + 1) * cursorBatch
	key := func(i int) []byte { return fmt.Append(nil, "key ", i) }
	for _, at := range []int{1, first} {
		s := openTest(t, &Options{Durability: SyncManual, CompactAt: -1, CheckpointBytes: -1})
		if err := putEach(s, nil, key, keys); err != nil {
			t.Fatal(err)
		}
		ix := s.gen.Load().index
		ix.mu.Lock()
		ix.more = func(bool) (chunk, error) { return chunk{}, errors.New("no memory") }
		ix.mu.Unlock()
		it, n := s.Iter(nil), 0
		for range it.All() {
			if n++; n != at {
				continue
			}
			for i := 0; i < keys; i += 16 { // in each segment some
				// A put is refused before that: this is what one does that found memory and
				// then, as others took it, did not.
				if s.Put(key(i), []byte("again")) != nil {
					ix.mu.Lock()
					ix.own(ix.hash.sum(key(i)))
					ix.mu.Unlock()
				}
			}
		}
		if !errors.Is(it.Err(), ErrFull) || n > max(at, cursorBatch) {
			t.Errorf("broken at %d: %d of %d entries, %v", at, n, keys, it.Err())
		}
	}
}
