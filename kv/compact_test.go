package kv

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// Goal: a compaction that cannot make its file changes nothing, and poisons
// nothing. Method: a directory that is not empty is in the file's place.
func TestCompactWithoutItsFile(t *testing.T) {
	s := openTest(t, nil)
	mustPut(t, s, "k", "1")
	if err := os.MkdirAll(s.Path()+nextSuffix+"/x", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Compact(t.Context()); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("compacted into a directory: %v", err)
	}
	if err := s.Clear(); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("cleared into a directory: %v", err)
	}
	mustGet(t, s, "k", "1")
	mustPut(t, s, "k", "2")
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
}

// Goal: a compaction that cannot sync the next generation changes nothing. Method:
// the directory's sync is the only one that may come after the rename; the file's
// fails before.
func TestCompactWithoutSync(t *testing.T) {
	s := openTest(t, nil)
	mustPut(t, s, "k", "1")
	<-s.compact
	c := &compaction{s: s, ctx: t.Context(), old: s.gen.Load(), temp: s.path + nextSuffix, from: crc.HeaderSize, boundary: s.gen.Load().end.Load()}
	if err := c.copyMost(); err != nil {
		t.Fatal(err)
	}
	c.next.file = &fakeFile{file: c.next.file, syncFile: func() error { return syscall.EIO }}
	if err := c.takeOver(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("took over without a sync: %v", err)
	}
	s.compact <- struct{}{}
	if _, err := os.Stat(c.temp); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file that was not synced is still there: %v", err)
	}
	mustGet(t, s, "k", "1")
	mustPut(t, s, "k", "2")
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
}

// Goal: a compaction replaces its own store's file and no other. Method: the file
// is moved away and another store made at its path.
func TestCompactWhereAnotherStoreIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	a := openTestAt(t, path, nil)
	mustPut(t, a, "a", "1")
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	b := openTestAt(t, path, nil)
	mustPut(t, b, "b", "2")
	if _, err := a.Compact(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("compacted: %v", err)
	}
	mustGet(t, a, "a", "1")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	mustGet(t, openTestAt(t, path, nil), "b", "2")
}

// Goal: a store whose keys are overwritten, or expire, for ever stays within its
// MaxSize, however small that is. Method: 200 times its size of each kind of write.
func TestCompactForSpace(t *testing.T) {
	s := openTest(t, &Options{MaxSize: 256 << 10, Durability: SyncManual})
	value := string(make([]byte, 1000))
	for i := range 50_000 {
		key := fmt.Append(nil, i%20)
		var err error
		switch i / 10_000 {
		case 0:
			err = s.Put(key, []byte(value))
		case 1:
			err = s.Update(func(tx *Tx) error { return tx.Put(key, []byte(value)) })
		case 2:
			err = s.Compute(key, func([]byte, bool) ([]byte, Op) { return []byte(value), Write })
		case 3:
			err = s.PutUntil(fmt.Append(nil, i), []byte(value), time.Now())
		case 4:
			_, err = s.CompareAndSwap(key, []byte(value), []byte(value))
		}
		if err != nil {
			t.Fatal(i, err)
		}
	}
	for i := range 20 {
		if err := s.Delete(fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if st := s.Stats(); st.FileBytes > 256<<10 || st.Keys != 0 {
		t.Errorf("%d bytes, %d keys", st.FileBytes, st.Keys)
	}
	// Where everything is alive it is full, and stays as it is.
	n := 0
	var err error
	for ; err == nil; n++ {
		err = s.Put(fmt.Append(nil, "k", n), []byte(value))
	}
	if !errors.Is(err, ErrFull) || s.Len() != n-1 {
		t.Errorf("after %d puts %d keys: %v", n, s.Len(), err)
	}
}

// Goal: what has expired is given back although nothing overwrites it. Method: fresh
// keys with a deadline that has passed, ten times the size that may be left.
func TestExpiredIsGivenBack(t *testing.T) {
	s := openTest(t, &Options{Durability: SyncManual})
	value := make([]byte, 1000)
	for i := range 60_000 {
		if err := s.PutUntil(fmt.Append(nil, i), value, time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "a compaction", func() bool { return s.Stats().Compactions > 0 && !s.compactKicked.Load() })
	mustPut(t, s, "k", "v") // looks again
	waitFor(t, "a small log", func() bool { return s.Stats().Tail < 45<<20 })
}

// Goal: Verify finds nothing wrong while somebody writes and syncs. Method: a
// durable put each time that Verify reports progress.
func TestVerifyNextToWriter(t *testing.T) {
	var s *Store
	s = openTest(t, &Options{Hooks: &Hooks{Progress: func(string, int64, int64) {
		if err := s.PutDurable([]byte("k"), []byte("v")); err != nil {
			t.Error(err)
		}
	}}})
	mustPut(t, s, "a", "1")
	mustVerify(t, s)
	if s.Stats().Revision < 2 {
		t.Error("nothing was written meanwhile")
	}
}

// openLate opens a read-only handle, and calls between after the file has been
// opened and before anything in it is read.
func openLate(t *testing.T, path string, between func()) *Store {
	t.Helper()
	s := openTestAt(t, path, &Options{ReadOnly: true})
	f, err := s.disk.Open(s.path, mmapfile.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	between()
	g, err := s.load(f, mmapfile.Identity{}, false)
	if err != nil {
		t.Fatalf("opening meanwhile: %v", err)
	}
	s.gen.Swap(g).file.Close()
	return s
}

// Goal: a handle that opens while the writer grows, syncs or compacts the store
// sees what was written. Method: it is stopped between open and load.
func TestFollowerOpensMeanwhile(t *testing.T) {
	for name, between := range map[string]func(w *Store){
		"compaction": func(w *Store) {
			if _, err := w.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		"growth": func(w *Store) { mustPut(t, w, "big", string(make([]byte, 3<<20))) },
		"growth, synced": func(w *Store) {
			mustPut(t, w, "big", string(make([]byte, 3<<20)))
			if err := w.Sync(); err != nil {
				t.Fatal(err)
			}
		},
		"clear": func(w *Store) {
			if err := w.Clear(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := openTest(t, &Options{Durability: SyncManual})
			mustPut(t, w, "a", "1")
			r := openLate(t, w.Path(), func() {
				between(w)
				mustPut(t, w, "b", "2")
			})
			mustGet(t, r, "b", "2")
			mustPut(t, w, "c", "3")
			mustGet(t, r, "c", "3")
		})
	}
}

// Goal: a follower that finds its file superseded while the path still names it
// goes on with it. Method: the bit is set as by a writer that dies before the
// rename; the next writer takes it back.
func TestFollowerSupersededOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	w, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, w, "a", "1")
	r := openTestAt(t, path, &Options{ReadOnly: true})
	if err := w.gen.Load().supersede(true); err != nil {
		t.Fatal(err)
	}
	mustGet(t, r, "a", "1")
	// The writer dies: its descriptor and its lock are gone, and nothing else.
	w.gen.Load().file.Close()
	mustGet(t, r, "a", "1")
	w2 := openTestAt(t, path, nil)
	mustPut(t, w2, "b", "2")
	mustGet(t, r, "b", "2")
	if _, err := w2.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustPut(t, w2, "c", "3")
	mustGet(t, r, "c", "3")
}

// Goal: what has expired stays so when the clock is set back, within a process and
// after it. Method: the store's clock is ahead of the machine's.
func TestClockSetBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	s, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PutTTL([]byte("k"), []byte("v"), time.Minute); err != nil {
		t.Fatal(err)
	}
	mustGet(t, s, "k", "v")
	s.clock.advance(time.Now().Add(time.Hour).UnixMilli())
	if _, err := s.Get([]byte("k")); err != ErrNotFound {
		t.Fatalf("after an hour: %v", err)
	}
	if err := s.PutTTL([]byte("l"), []byte("v"), time.Minute); err != nil {
		t.Fatal(err)
	}
	mustGet(t, s, "l", "v")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTestAt(t, path, nil)
	if _, err := s.Get([]byte("k")); err != ErrNotFound {
		t.Fatalf("after an hour, and the clock set back: %v", err)
	}
	mustGet(t, s, "l", "v")
}

// Goal: a write that found no space is tried again if a compaction came between, little
// as is dead then; and not for ever. Method: the compaction made in between by hand.
func TestRetryAfterCompaction(t *testing.T) {
	s := openTestAt(t, filepath.Join(t.TempDir(), "store"), &Options{CompactAt: 0.9})
	if err := s.Put([]byte("k"), []byte("v")); err != nil {
		t.Fatal(err)
	}
	again := s.retry()
	if again.withSpace(ErrFull) {
		t.Error("nothing is dead, and yet it is worth another try")
	}
	tries := 0
	for ; tries < 10; tries++ {
		if _, err := s.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !again.withSpace(ErrFull) {
			break
		}
	}
	if tries != 3 {
		t.Errorf("%d tries, want 3", tries)
	}
}

// Goal: writers that append faster than a compaction copies are held up, a while at a
// time, and no others. Method: the pace is asked at offsets of a log of which so much was
// written since the compaction began.
func TestCompactPace(t *testing.T) {
	s := openTest(t, nil)
	g := s.gen.Load()
	const mib = 1 << 20
	const half = 1024 * mib / compactShare / 2
	for _, c := range []struct {
		name     string
		appended int64 // since it began
		live     int64
		off      int64 // of 1024 MiB
		fresh    bool
		insist   bool
		held     bool
	}{
		{"nobody writes", 0, 1024 * mib, 512 * mib, true, false, false},
		{"a little", compactAppend, 1024 * mib, 0, true, false, false},
		{"more, at the start", compactAppend + 1, 1024 * mib, 0, true, false, true},
		{"half of the share, half-way", half, 1024 * mib, 512 * mib, true, false, false},
		{"more than that", half + 1, 1024 * mib, 512 * mib, true, false, true},
		{"more than that later", half + mib, 1024 * mib, 600 * mib, true, false, false},
		{"little is live", compactAppend + 1, mib, 512 * mib, true, false, true},
		{"all that was live is copied", 4 * half, 1024 * mib, 1024 * mib, false, false, false},
		{"more than that then", 4*half + 1, 1024 * mib, 1024 * mib, false, false, true},
		{"it insists", 0, 1024 * mib, 512 * mib, false, true, true},
	} {
		end, live := g.end.Load(), g.live.Load()
		pacing := &compaction{s: s, old: g, paced: true, fresh: c.fresh, insist: c.insist, boundary: 1024 * mib}
		g.end.Store(pacing.boundary + c.appended)
		g.live.Store(c.live)
		err := pacing.pace(c.off)
		g.end.Store(end)
		g.live.Store(live)
		wait := s.gate.wait.Load()
		if err != nil || (wait != nil) != c.held {
			t.Errorf("%s: held %v, want %v (%v)", c.name, wait != nil, c.held, err)
		}
		if wait == nil {
			continue
		}
		written := make(chan error)
		go func() { written <- s.Put([]byte("key"), nil) }()
		if err := pacing.pace(c.off + compactHold - 1); err != nil || s.gate.wait.Load() != wait {
			t.Fatalf("%s: let go at once: %v", c.name, err)
		}
		if err := pacing.pace(c.off + compactHold); err != nil || s.gate.wait.Load() == wait {
			t.Fatalf("%s: never let go: %v", c.name, err)
		}
		pacing.release() // for the writer may have come late
		if err := <-written; err != nil {
			t.Errorf("%s: the writer that was held: %v", c.name, err)
		}
	}
}

// Goal: a compaction ends while writers go on as fast as they can, and nothing of what
// they wrote is lost. Method: goroutines write until it has ended; each knows its keys.
func TestCompactWhileWriting(t *testing.T) {
	s := openTest(t, &Options{CompactAt: -1})
	fillStore(t, s, 100_000)
	var over atomic.Bool
	var wg sync.WaitGroup
	last := make([]int, 2)
	for w := range last {
		wg.Go(func() {
			for i := 0; !over.Load(); i++ {
				if err := s.Put(fmt.Append(nil, "writer-", w, "-", i%1000), fmt.Append(nil, i)); err != nil {
					t.Error(err)
					return
				}
				last[w] = i
			}
		})
	}
	_, err := s.Compact(t.Context())
	over.Store(true)
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	for w, n := range last {
		for i := max(0, n-999); i <= n; i++ {
			mustGet(t, s, fmt.Sprint("writer-", w, "-", i%1000), fmt.Sprint(i))
		}
	}
}

// writeFile is a file that tells of its writes.
type writeFile struct {
	file
	wrote func(n int64)
}

func (f writeFile) WriteAt(p []byte, off int64) (int, error) {
	f.wrote(int64(len(p)))
	return f.file.WriteAt(p, off)
}

// Goal: what is appended while a compaction writes its checkpoint, which takes long for many
// keys, is not copied under the write lock, where all writers wait.
// Method: so much is put at the first write of the checkpoint.
func TestCompactCopiesLittleUnderLock(t *testing.T) {
	var s *Store
	var locked int64 // bytes written to the next file under the lock
	behind := 8 * compactLast
	d := wrapDisk{osDisk{}, func(path string, f file) file {
		switch {
		case strings.HasSuffix(path, nextSuffix):
			return writeFile{f, func(n int64) {
				if !s.mu.TryLock() {
					locked += n
					return
				}
				s.mu.Unlock()
			}}
		case strings.HasSuffix(path, newIndexSuffix):
			return writeFile{f, func(int64) {
				for ; behind > 0; behind -= 1000 {
					mustPut(t, s, fmt.Sprint(behind), string(make([]byte, 1000)))
				}
			}}
		}
		return f
	}}
	s, err := openOn(d, filepath.Join(t.TempDir(), "store"), &Options{CompactAt: -1, CheckpointBytes: 1, Durability: SyncManual, SyncEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for !s.checkpointing.CompareAndSwap(false, true) {
		time.Sleep(time.Millisecond)
	}
	s.checkpointFrom = time.Now().Add(time.Hour) // so that the background takes none, be it late
	s.checkpointing.Store(false)
	fillStore(t, s, 10_000)
	if _, err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if behind > 0 || locked > compactLast {
		t.Errorf("%d bytes were written under the lock; to be put yet: %d", locked, behind)
	}
	mustVerify(t, s)
}

// syncFile is a file whose next sync ends when it may.
type syncFile struct {
	file
	armed        *atomic.Bool
	entered, may chan struct{}
}

func (f syncFile) Sync(off, n int64) error {
	if f.armed.CompareAndSwap(true, false) {
		close(f.entered)
		<-f.may
	}
	return f.file.Sync(off, n)
}

// Goal: writers go on while a compaction waits for the end of a sync. Method: one that does not
// end before a put has.
func TestCompactAwaitsSyncUnlocked(t *testing.T) {
	slow := syncFile{armed: new(atomic.Bool), entered: make(chan struct{}), may: make(chan struct{})}
	d := wrapDisk{osDisk{}, func(_ string, f file) file { return syncFile{f, slow.armed, slow.entered, slow.may} }}
	s, err := openOn(d, filepath.Join(t.TempDir(), "store"), &Options{Durability: SyncManual, SyncEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mustPut(t, s, "key", "before")
	slow.armed.Store(true)
	results := make(chan error, 2)
	go func() { results <- s.Sync() }()
	<-slow.entered
	go func() {
		_, err := s.Compact(t.Context())
		results <- err
	}()
	waitFor(t, "the compaction to the sync", func() bool {
		s.sync.mu.Lock()
		defer s.sync.mu.Unlock()
		return s.sync.waited
	})
	put := make(chan error, 1)
	go func() { put <- s.Put([]byte("key"), []byte("meanwhile")) }()
	select {
	case err := <-put:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the put waits for the sync")
	}
	close(slow.may)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	mustGet(t, s, "key", "meanwhile")
	mustVerify(t, s)
}

// Goal: a transaction may wait for a sync while a compaction waits for the transaction. Method:
// it does, once the compaction has had the time to come to that.
func TestCompactBesideSyncInUpdate(t *testing.T) {
	s := openTest(t, &Options{Durability: SyncManual})
	mustPut(t, s, "key", "value")
	compacted := make(chan error, 1)
	updated := make(chan error, 1)
	go func() {
		updated <- s.Update(func(*Tx) error {
			go func() {
				_, err := s.Compact(t.Context())
				compacted <- err
			}()
			time.Sleep(50 * time.Millisecond)
			return s.Sync()
		})
	}()
	waitFor(t, "the end of both", func() bool { return len(updated) == 1 && len(compacted) == 1 })
	if err := errors.Join(<-updated, <-compacted); err != nil {
		t.Error(err)
	}
}

// Goal: a write that hashed its key before a compaction finds it in the index behind it,
// which hashes with another seed. Method: hash, compact, and look at the hash.
func TestHashAcrossCompaction(t *testing.T) {
	s := openTest(t, nil)
	mustPut(t, s, "key", "value")
	key := []byte("key")
	kh := s.warm(key)
	if g := s.gen.Load(); kh.in(g, key) != g.index.hash.sum(key) {
		t.Error("the hash differs in the index that it was made for")
	}
	if _, err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if g := s.gen.Load(); kh.in(g, key) == kh.h || kh.in(g, key) != g.index.hash.sum(key) {
		t.Error("the hash is that of the index before")
	}
}

// Goal: whoever follows goes over to the next generation by its checkpoint, and reads of the
// log only what lies behind that. Method: a store that is long enough for one, compacted again
// and again under a follower and a Shared handle; each time the index must have come from a
// checkpoint of most of the log.
func TestCompactLeavesCheckpoint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	s := openTestAt(t, path, &Options{CompactAt: -1})
	follower := openTestAt(t, path, &Options{ReadOnly: true})
	value := make([]byte, 1000)
	for round := range 3 {
		for i := range 1000 {
			if err := s.Put(fmt.Appendf(nil, "key %d", i), value); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, err := follower.Get([]byte("key 7")); err != nil || len(got) != len(value) {
			t.Fatalf("round %d: %d bytes, %v", round, len(got), err)
		}
		g := follower.gen.Load()
		if covered, end := g.checkpoint.Load(), g.end.Load(); covered < end/2 || covered > end {
			t.Errorf("round %d: the checkpoint that was used covers %d of %d", round, covered, end)
		}
		if _, err := os.Stat(path + newIndexSuffix); err == nil {
			t.Errorf("round %d: a draft was left", round)
		}
	}
}
