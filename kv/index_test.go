package kv

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/internal/invariants"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// openTest opens a new store that is verified and closed when the test ends.
func openTest(t testing.TB, opts *Options) *Store {
	t.Helper()
	return openTestAt(t, filepath.Join(t.TempDir(), "store"), opts)
}

func openTestAt(t testing.TB, path string, opts *Options) *Store {
	t.Helper()
	s, err := Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		mustVerify(t, s)
		if err := s.Close(); err != nil && !errors.Is(err, ErrPoisoned) {
			t.Error(err)
		}
	})
	return s
}

func mustVerify(t testing.TB, s *Store) {
	t.Helper()
	r, err := s.Verify(context.Background())
	if err != nil && !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	for _, v := range r.Violations {
		t.Error(v)
	}
}

func mustPut(t testing.TB, s *Store, key, value string) {
	t.Helper()
	if err := s.Put([]byte(key), []byte(value)); err != nil {
		t.Fatal(err)
	}
}

func mustGet(t testing.TB, s *Store, key, want string) {
	t.Helper()
	if v, err := s.Get([]byte(key)); err != nil || string(v) != want {
		t.Fatalf("Get(%q) = %q, %v, want %q", key, v, err, want)
	}
}

// Goal: keys that all belong into the same few buckets, as an attacker who knows
// the seed chooses them, are kept, found, overwritten, snapshotted and removed,
// in bounded memory. Method: search keys whose hashes agree in the bucket's bits
// and in the first ones of the directory's.
func TestIndexFlooded(t *testing.T) {
	s := openTest(t, nil)
	seed := s.gen.Load().index.hash
	var keys [][]byte
	for i := uint64(0); len(keys) < 400; i++ {
		key := binary.BigEndian.AppendUint64(nil, i)
		if h := seed.sum(key); h&511 == 7 && h>>60 == 5 {
			keys = append(keys, key)
		}
	}
	for i, key := range keys {
		mustPut(t, s, string(key), fmt.Sprint(i))
	}
	ix := s.gen.Load().index
	if ix.over.Load() == nil {
		t.Fatal("nothing overflowed: the test does not test what it should")
	}
	if n := ix.bytes(); n > 1<<20 {
		t.Fatalf("the index of %d keys takes %d bytes", len(keys), n)
	}
	it := s.Iter(nil)
	for i, key := range keys {
		mustGet(t, s, string(key), fmt.Sprint(i))
		mustPut(t, s, string(key), fmt.Sprint(-i))
		if i%2 == 0 {
			if err := s.Delete(key); err != nil {
				t.Fatal(err)
			}
		}
	}
	n := 0
	for k, v := range it.All() {
		if string(v) != fmt.Sprint(n) || string(k) != string(keys[n]) {
			t.Fatalf("snapshot: entry %d is %x = %s", n, k, v)
		}
		n++
	}
	if n != len(keys) || it.Err() != nil {
		t.Fatalf("snapshot: %d of %d keys, %v", n, len(keys), it.Err())
	}
	mustVerify(t, s)
	if _, err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, key := range keys {
		v, err := s.Get(key)
		if i%2 == 0 && err != ErrNotFound || i%2 == 1 && string(v) != fmt.Sprint(-i) {
			t.Fatalf("key %d after compaction: %q, %v", i, v, err)
		}
	}
}

// Goal: the index agrees with a map while it grows from its smallest to many
// segments, shrinks by deletes and fills again; snapshots taken on the way show
// what was there then. Method: random operations on a store, compared with a map
// and copies of it.
func TestIndexAgainstMap(t *testing.T) {
	const ops, space = 60_000, 20_000
	s := openTest(t, &Options{Durability: SyncManual})
	model := make(map[string]string)
	type shot struct {
		it   *Iter
		then map[string]string
	}
	var shots []shot
	r := rand.New(rand.NewPCG(1, 0))
	for i := range ops {
		key := fmt.Sprintf("%x", r.IntN(space))
		// Waves of more puts and of more deletes.
		if r.IntN(10) < 3+4*(i/10_000%2) {
			if err := s.Delete([]byte(key)); err != nil {
				t.Fatal(err)
			}
			delete(model, key)
		} else {
			value := fmt.Sprint(i)
			mustPut(t, s, key, value)
			model[key] = value
		}
		if i%7_000 == 0 {
			then := make(map[string]string, len(model))
			for k, v := range model {
				then[k] = v
			}
			shots = append(shots, shot{s.Iter(nil), then})
		}
	}
	for n, shot := range shots {
		got := 0
		for k, v := range shot.it.All() {
			if shot.then[string(k)] != string(v) {
				t.Fatalf("snapshot %d: %q is %q, was %q", n, k, v, shot.then[string(k)])
			}
			got++
		}
		if got != len(shot.then) || shot.it.Err() != nil {
			t.Fatalf("snapshot %d: %d keys of %d, %v", n, got, len(shot.then), shot.it.Err())
		}
	}
	if s.Len() != len(model) {
		t.Fatalf("%d keys, want %d", s.Len(), len(model))
	}
	for i := range space {
		key := fmt.Sprintf("%x", i)
		v, err := s.Get([]byte(key))
		if want, ok := model[key]; ok && (err != nil || string(v) != want) || !ok && err != ErrNotFound {
			t.Fatalf("%q = %q, %v, want %q, %v", key, v, err, want, ok)
		}
	}
	ix := s.gen.Load().index
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if len(ix.snapshots) != 0 || len(ix.retired) != 0 {
		t.Errorf("%d snapshots and %d segments are still held", len(ix.snapshots), len(ix.retired))
	}
}

// Goal: the slots take much the same memory a key at any size, rather than twice as
// much after all segments have split. Method: count the segments in use as a store
// grows fourfold.
func TestIndexGrowsEvenly(t *testing.T) {
	s := openTest(t, &Options{Durability: SyncManual})
	ix := s.gen.Load().index
	least, most := 1e9, 0.0
	for i := range 400_000 {
		mustPut(t, s, fmt.Sprint("key-", i), "")
		if i < 100_000 || i%5000 != 0 {
			continue
		}
		ix.mu.Lock()
		perKey := float64(len(ix.segs)-len(ix.free)) * segmentSlots * 8 / float64(i)
		ix.mu.Unlock()
		least, most = min(least, perKey), max(most, perKey)
	}
	if least < 8 || most > 14.5 || most > 1.2*least {
		t.Errorf("between %.1f and %.1f bytes a key", least, most)
	}
}

// Goal: a key that is there the whole time is found, whatever slots move meanwhile.
// Method: one segment is filled up to its split and emptied again, over and over,
// while readers look for keys that stay.
func TestSlotsMoveUnderReaders(t *testing.T) {
	s := openTest(t, &Options{Durability: SyncManual})
	const stay = 200
	for i := range stay {
		mustPut(t, s, fmt.Sprint("stays-", i), "here")
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				if ok, err := s.Has(fmt.Append(nil, "stays-", i%stay)); !ok || err != nil {
					t.Errorf("stays-%d: %v, %v", i%stay, ok, err)
					return
				}
			}
		})
	}
	rounds := 20
	if invariants.Enabled {
		rounds = 5
	}
	for round := range rounds {
		for i := range segmentSlots {
			mustPut(t, s, fmt.Sprint("goes-", round, "-", i), "")
		}
		for i := range segmentSlots {
			if err := s.Delete(fmt.Append(nil, "goes-", round, "-", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(done)
	readers.Wait()
}

// Goal: a transaction for whose keys there is no index memory is refused, with
// nothing changed; the same one succeeds once there is. Method: the index gets no
// more memory while the transaction, small and large, is committed, into an empty
// store and into one that has left the heap.
func TestNoIndexMemory(t *testing.T) {
	for _, before := range []int{0, 900, 3000, 100_000} {
		for _, n := range []int{3000, 20_000} {
			t.Run(fmt.Sprint(before, "+", n), func(t *testing.T) {
				s := openTest(t, &Options{Durability: SyncManual})
				fillStore(t, s, before)
				was := s.Stats()
				s.gen.Load().index.more = func(bool) (chunk, error) { return chunk{}, mmapfile.ErrNoAddressSpace }
				add := func(tx *Tx) error {
					for i := range n {
						if err := tx.Put(fmt.Append(nil, "new", i), nil); err != nil {
							return err
						}
					}
					return nil
				}
				err := s.Update(add)
				if err == nil && before > 1000 {
					return // what there was sufficed
				}
				if !errors.Is(err, ErrFull) || errors.Is(err, ErrPoisoned) {
					t.Fatalf("without memory: %v", err)
				}
				if now := s.Stats(); now.Revision != was.Revision || now.Tail != was.Tail || now.Poisoned != nil {
					t.Fatalf("the store was %+v and is %+v", was, now)
				}
				s.gen.Load().index.more = newChunk
				if err := s.Update(add); err != nil {
					t.Fatal(err)
				}
				if s.Len() != before+n {
					t.Errorf("%d keys, want %d", s.Len(), before+n)
				}
			})
		}
	}
}

// Goal: Verify sees an index that is wrong, a header that is, and a mark that is.
// Method: each is made so by hand.
func TestVerifySees(t *testing.T) {
	for name, breakIt := range map[string]func(t *testing.T, s *Store, g *generation){
		"a slot lost with its counts": func(t *testing.T, s *Store, g *generation) {
			g.index.mu.Lock()
			defer g.index.mu.Unlock()
			h := g.index.hash.sum([]byte("b"))
			off, err := g.index.remove(h, []byte("b"))
			if err != nil || off == 0 {
				t.Fatal(off, err)
			}
			p, _ := g.log.payload(off)
			g.live.Add(-crc.RecordSize(len(p)))
		},
		"a slot that names an older record": func(t *testing.T, s *Store, g *generation) {
			first := g.index.find(g.index.hash.sum([]byte("a")), []byte("a"))
			mustPut(t, s, "a", "2")
			g.index.mu.Lock()
			defer g.index.mu.Unlock()
			if _, err := g.index.put(g.index.hash.sum([]byte("a")), []byte("a"), first); err != nil {
				t.Fatal(err)
			}
		},
		"live bytes":  func(_ *testing.T, _ *Store, g *generation) { g.live.Add(8) },
		"records":     func(_ *testing.T, _ *Store, g *generation) { g.count.Add(1) },
		"the header":  func(_ *testing.T, _ *Store, g *generation) { g.bytes()[80]++ },
		"a record":    func(_ *testing.T, _ *Store, g *generation) { g.bytes()[crc.HeaderSize+20]++ },
		"the segment": func(_ *testing.T, _ *Store, g *generation) { g.index.segs[0].used++ },
		"the mark": func(_ *testing.T, s *Store, g *generation) {
			crc.EncodeMark(g.bytes()[crc.MarkOff(0):], crc.Mark{Off: 1 << 20, Revision: 100}, g.header.Salt)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(filepath.Join(t.TempDir(), "store"), &Options{Durability: SyncManual})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for _, key := range []string{"a", "b", "c"} {
				mustPut(t, s, key, "1")
			}
			if err := s.Delete([]byte("c")); err != nil {
				t.Fatal(err)
			}
			mustVerify(t, s)
			breakIt(t, s, s.gen.Load())
			r, err := s.Verify(t.Context())
			if err != nil || len(r.Violations) == 0 {
				t.Errorf("nothing is wrong: %+v, %v", r, err)
			}
		})
	}
}

// Goal: a reader that was stopped between two loads finds memory for every segment that
// its table names, however the index grew meanwhile. Method: each table that there was is
// kept, and looked at in the end.
func TestOldTables(t *testing.T) {
	s := openTest(t, &Options{Durability: SyncManual})
	ix := s.gen.Load().index
	tables := []*table{ix.table.Load()}
	var key []byte
	for i := uint64(0); len(tables[len(tables)-1].chunks) < 4; i++ {
		key = benchKey(key, i)
		if err := s.Put(key, nil); err != nil {
			t.Fatal(err)
		}
		if now := ix.table.Load(); now != tables[len(tables)-1] {
			tables = append(tables, now)
		}
	}
	for n, old := range tables {
		for i := range old.dir {
			if id := uint32(old.dir[i].Load()); int(id/chunkSegments) >= len(old.chunks) {
				t.Fatalf("table %d of %d names segment %d, and has memory for %d", n, len(tables), id, len(old.chunks)*chunkSegments)
			}
		}
	}
}
