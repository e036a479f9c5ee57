package kvtest_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/mmapkv/mmapkv/kv/kvtest"
)

// stage is a test that looks on, and runs its cleanups when it is told to.
type stage struct {
	testing.TB
	errs     []string
	cleanups []func()
}

func (s *stage) Helper()                   {}
func (s *stage) Cleanup(f func())          { s.cleanups = append(s.cleanups, f) }
func (s *stage) Fatalf(f string, a ...any) { s.Errorf(f, a...) } // and goes on
func (s *stage) Errorf(f string, a ...any) { s.errs = append(s.errs, fmt.Sprintf(f, a...)) }

// end runs the cleanups, the last first, as testing does.
func (s *stage) end() []string {
	for i := len(s.cleanups) - 1; i >= 0; i-- {
		s.cleanups[i]()
	}
	return s.errs
}

// Goal: a test that leaves a sound store passes, be the store open, closed or removed; one that
// leaves a damaged one fails. Method: each, on a stage, and the store used after its end.
func TestOpen(t *testing.T) {
	for _, tc := range []struct {
		name  string
		leave func(*testing.T, *kv.Store)
		fails bool
	}{
		{"open", func(*testing.T, *kv.Store) {}, false},
		{"closed", func(t *testing.T, s *kv.Store) { must(t, s.Close()) }, false},
		{"removed", func(t *testing.T, s *kv.Store) { must(t, s.Close()); must(t, os.Remove(s.Path())) }, false},
		{"damaged", func(t *testing.T, s *kv.Store) { must(t, s.Close()); flip(t, s.Path(), "needle") }, true},
		{"damaged while it is open", func(t *testing.T, s *kv.Store) { must(t, s.Sync()); flip(t, s.Path(), "needle") }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			on := &stage{TB: t}
			s := kvtest.Open(on, nil)
			must(t, s.Put([]byte("key"), []byte("needle")))
			must(t, s.Put([]byte("another"), []byte("value")))
			tc.leave(t, s)
			if errs := on.end(); len(errs) > 0 != tc.fails {
				t.Errorf("the test ended with %q", errs)
			}
			if err := s.Put([]byte("key"), nil); !errors.Is(err, kv.ErrClosed) {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}

// flip changes a byte of what the file at path holds.
func flip(t *testing.T, path, what string) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	for i := range len(b) - len(what) {
		if string(b[i:i+len(what)]) == what {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteAt([]byte{^what[0]}, int64(i))
			must(t, err)
			must(t, f.Close())
			return
		}
	}
	t.Fatalf("%s does not hold %q", path, what)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Goal: a fault strikes the call that it is ordered for, so often as it is, and what the user
// sees is what a real disk would show. Method: one store a fault.
func TestFaults(t *testing.T) {
	key := []byte("key")
	big := make([]byte, 1<<20)
	t.Run("a full disk", func(t *testing.T) {
		d := kvtest.NewDisk(t)
		s := d.Open("store", nil)
		must(t, s.Put(key, []byte("old")))
		d.Fail(kvtest.OpAnyWrite, syscall.ENOSPC)
		if err := s.Put(key, big); !errors.Is(err, kv.ErrFull) || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("put: %v", err)
		}
		if got, err := s.Get(key); err != nil || string(got) != "old" {
			t.Errorf("after it: %q, %v", got, err)
		}
		d.Mend()
		must(t, s.Put(key, big))
		if d.Struck() == 0 {
			t.Error("no call failed")
		}
	})
	t.Run("a sync, once", func(t *testing.T) {
		d := kvtest.NewDisk(t)
		s := d.Open("store", nil)
		must(t, s.PutDurable(key, nil))
		d.FailNext(kvtest.OpSync, syscall.EIO)
		if err := s.PutDurable(key, []byte("v")); !errors.Is(err, syscall.EIO) {
			t.Errorf("durable put: %v", err)
		}
		if err := s.Put(key, nil); !errors.Is(err, kv.ErrPoisoned) {
			t.Errorf("put after a failed sync: %v", err)
		}
		if n := d.Struck(); n != 1 {
			t.Errorf("%d calls failed, want 1", n)
		}
		s.Close()
		must(t, d.Open("store", nil).PutDurable(key, nil))
	})
	t.Run("a new store", func(t *testing.T) {
		d := kvtest.NewDisk(t)
		d.FailNext(kvtest.OpCreate, syscall.EDQUOT)
		if s, err := kv.Open(d.Path("store"), nil); !errors.Is(err, kv.ErrFull) {
			t.Errorf("open: %v, %v", s, err)
		}
		must(t, d.Open("store", nil).Put(key, nil))
	})
	t.Run("another directory", func(t *testing.T) {
		kvtest.NewDisk(t).Fail(kvtest.OpAnyWrite, syscall.EIO)
		must(t, kvtest.Open(t, nil).PutDurable(key, big))
	})
}

// Goal: a power cut keeps what was acknowledged as durable, and with no luck nothing else.
// Method: durable and other writes; then cuts without luck, and with some.
func TestCut(t *testing.T) {
	d := kvtest.NewDisk(t)
	s := d.Open("store", &kv.Options{Durability: kv.SyncManual})
	must(t, s.PutDurable([]byte("durable"), []byte("yes")))
	must(t, s.Put([]byte("later"), []byte("perhaps")))
	has := func(d *kvtest.Disk, key string) bool {
		t.Helper()
		s, err := kv.Open(d.Path("store"), nil)
		must(t, err)
		defer s.Close()
		ok, err := s.Has([]byte(key))
		must(t, err)
		return ok
	}
	bare := d.Cut(nil)
	if !has(bare, "durable") || has(bare, "later") {
		t.Errorf("of bare luck: durable %t, later %t", has(bare, "durable"), has(bare, "later"))
	}
	lasted := 0
	const cuts = 40
	for seed := range uint64(cuts) {
		after := d.Cut(rand.New(rand.NewPCG(seed, 0)))
		store := after.Open("store", nil)
		if got, err := store.Get([]byte("durable")); err != nil || string(got) != "yes" {
			t.Fatalf("seed %d: %q, %v", seed, got, err)
		}
		if ok, err := store.Has([]byte("later")); err != nil {
			t.Fatal(err)
		} else if ok {
			lasted++
		}
		must(t, store.Close())
	}
	if lasted == 0 || lasted == cuts {
		t.Errorf("what was not synced lasted in %d cuts of %d", lasted, cuts)
	}
	// The first disk went on, and what it does now is durable in its turn.
	must(t, s.Sync())
	if !has(d.Cut(nil), "later") {
		t.Error("a sync did not last")
	}
}

// Goal: whenever the power fails, what was acknowledged is there, through growth and compaction.
// Method: writers that put counters durably, and cuts of the disk meanwhile; what each had
// acknowledged before the cut must be in what is left.
func TestCutWhileWriting(t *testing.T) {
	d := kvtest.NewDisk(t)
	s := d.Open("store", &kv.Options{CompactAt: -1})
	const writers, cuts = 2, 8
	var mu sync.Mutex
	acked := make([]byte, writers)
	stop := make(chan struct{})
	var done sync.WaitGroup
	for w := range writers {
		done.Go(func() {
			value := make([]byte, 4000)
			for i := byte(1); i < 200; i++ {
				select {
				case <-stop:
					return
				default:
				}
				value[0] = i
				if err := s.PutDurable([]byte{byte(w)}, value); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acked[w] = i
				mu.Unlock()
			}
		})
	}
	for seed := range uint64(cuts) {
		if seed == cuts/2 {
			_, err := s.Compact(t.Context())
			must(t, err)
		}
		mu.Lock()
		before := append([]byte(nil), acked...)
		mu.Unlock()
		after := d.Cut(rand.New(rand.NewPCG(seed, 1))).Open("store", nil)
		for w, i := range before {
			if i == 0 {
				continue
			}
			if got, err := after.Get([]byte{byte(w)}); err != nil || got[0] < i {
				t.Errorf("seed %d, writer %d: %v, %v; acknowledged %d", seed, w, got[:min(1, len(got))], err, i)
			}
		}
		must(t, after.Close())
	}
	close(stop)
	done.Wait()
}

// Goal: a cut without luck has nothing that was not durable when it was made, also beside syncs.
// Method: a writer; of each cut where the log ends, against what the store says before and after it.
func TestCutNoMore(t *testing.T) {
	d := kvtest.NewDisk(t)
	s := d.Open("store", &kv.Options{Durability: kv.SyncManual, CompactAt: -1})
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for n := byte(0); ; n++ {
			select {
			case <-stop:
				return
			default:
				if err := s.Put([]byte{n}, []byte{n}); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Microsecond)
			}
		}
	})
	for range 40 {
		must(t, s.Sync())
		before := s.Stats().DurableTail
		cut := d.Cut(nil)
		after := s.Stats().DurableTail
		left, err := kv.Open(cut.Path("store"), nil)
		must(t, err)
		if end := left.Stats().Tail; end < before || end > after {
			t.Errorf("the log of a cut ends at %d; durable was %d before it and %d after", end, before, after)
		}
		must(t, left.Close())
	}
	close(stop)
	writer.Wait()
}

// Goal: a disk keeps nothing of files that are gone. Method: compactions; what the process has open.
func TestDiskForgets(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("what a process has open is told on Linux")
	}
	d := kvtest.NewDisk(t)
	s := d.Open("store", nil)
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(entries)
	}
	before := 0
	for n := range 20 {
		must(t, s.Put([]byte("key"), make([]byte, 100_000)))
		_, err := s.Compact(t.Context())
		must(t, err)
		if n == 4 {
			runtime.GC() // unmaps what nobody reads any more
			before = open()
		}
	}
	runtime.GC()
	if after := open(); after > before+3 {
		t.Errorf("%d files are open after 15 compactions more, where %d were", after, before)
	}
	must(t, s.PutDurable([]byte("key"), []byte("last")))
	left := d.Cut(nil).Open("store", nil)
	if got, err := left.Get([]byte("key")); err != nil || string(got) != "last" {
		t.Errorf("after a cut: %q, %v", got, err)
	}
}

// Goal: a store of which the disk would hear nothing fails the test. Method: names that lead
// elsewhere.
func TestPath(t *testing.T) {
	for _, name := range []string{"sub/store", "../store", "/store", "", ".", ".."} {
		on := &stage{TB: t}
		kvtest.NewDisk(on).Path(name)
		if len(on.end()) == 0 {
			t.Errorf("%q is a path on the disk", name)
		}
	}
}

// Goal: what the documentation shows passes.
func TestExampleOfDisk(t *testing.T) { testOrders(t) }
