package kv

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
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
