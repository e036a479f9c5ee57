package kv

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/crc"
)

// fakeFile is a file whose disk does what a test says.
type fakeFile struct {
	file
	sync     func(off, n int64) error
	syncFile func() error
}

func (f *fakeFile) Sync(off, n int64) error {
	if f.sync != nil {
		if err := f.sync(off, n); err != nil {
			return err
		}
	}
	return f.file.Sync(off, n)
}

func (f *fakeFile) SyncFile() error {
	if f.syncFile != nil {
		if err := f.syncFile(); err != nil {
			return err
		}
	}
	return f.file.SyncFile()
}

// withFake puts a fake in front of the file of s.
func withFake(s *Store) *fakeFile {
	g := s.gen.Load()
	f := &fakeFile{file: g.file}
	g.file = f
	return f
}

// Goal: after a failed sync nothing durable is acknowledged ever again, reads go
// on, and opening again shows everything that is there. Method: one sync of a
// durable put fails, for each way to ask for durability.
func TestPoison(t *testing.T) {
	ways := map[string]func(*Store) error{
		"put": func(s *Store) error { return s.PutDurable([]byte("k"), []byte("2")) },
		"update": func(s *Store) error {
			return s.Update(func(tx *Tx) error { tx.Durable(); return tx.Put([]byte("k"), []byte("2")) })
		},
		"sync": func(s *Store) error {
			if err := s.Put([]byte("k"), []byte("2")); err != nil {
				return fmt.Errorf("put: %w", err)
			}
			return s.Sync()
		},
	}
	for name, write := range ways {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store")
			s, err := Open(path, &Options{Durability: SyncManual})
			if err != nil {
				t.Fatal(err)
			}
			mustPut(t, s, "k", "1")
			fails := true
			withFake(s).sync = func(_, _ int64) error {
				if fails {
					fails = false
					return syscall.EIO
				}
				return nil
			}
			if err := write(s); !errors.Is(err, ErrPoisoned) || !errors.Is(err, syscall.EIO) {
				t.Fatalf("the write with the failed sync: %v", err)
			}
			if s.Stats().DurableRevision != 0 {
				t.Error("something counts as durable")
			}
			mustGet(t, s, "k", "2")
			for name, err := range map[string]error{
				"put": s.Put([]byte("x"), nil), "delete": s.Delete([]byte("k")), "sync": s.Sync(), "clear": s.Clear(),
				"update":  s.Update(func(tx *Tx) error { return tx.Put(nil, nil) }),
				"compute": s.Compute([]byte("k"), func([]byte, bool) ([]byte, Op) { return nil, Write }),
				"close":   s.Close(),
			} {
				if !errors.Is(err, ErrPoisoned) {
					t.Errorf("%s after the failed sync: %v", name, err)
				}
			}
			again := openTestAt(t, path, nil)
			mustGet(t, again, "k", "2")
			mustPut(t, again, "k", "3")
		})
	}
}

// Goal: writers that wait for durability share syncs, and others write meanwhile.
// Method: the first sync is held up until all writers have published.
func TestGroupCommit(t *testing.T) {
	const writers = 32
	s := openTest(t, &Options{Durability: SyncAlways})
	mustPut(t, s, "first", "")
	before := s.gen.Load().revision.Load()
	var syncs atomic.Int32
	held := make(chan struct{})
	withFake(s).sync = func(off, _ int64) error {
		if off >= crc.HeaderSize { // the log's, not the mark's
			syncs.Add(1)
			<-held
		}
		return nil
	}
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			if err := s.Put(fmt.Append(nil, i), nil); err != nil {
				t.Error(err)
			}
		})
	}
	// All are published while the sync lasts: the lock is not held meanwhile.
	for s.gen.Load().revision.Load() < before+writers {
		time.Sleep(time.Millisecond)
	}
	if got := s.Stats().DurableRevision; got != before {
		t.Errorf("revision %d counts as durable before any sync returned, want %d", got, before)
	}
	close(held)
	wg.Wait()
	if n := syncs.Load(); n > 2 {
		t.Errorf("%d syncs for %d writers at once, want the first's and one for the rest", n, writers)
	}
	if got := s.Stats().DurableRevision; got != before+writers {
		t.Errorf("durable up to %d of %d", got, before+writers)
	}
}

// Goal: each periodic or manual sync covers exactly what was written since the
// last one. Method: the ranges that the file is asked to sync.
func TestSyncRanges(t *testing.T) {
	s := openTest(t, &Options{Durability: SyncManual})
	var ranges [][2]int64
	withFake(s).sync = func(off, n int64) error {
		ranges = append(ranges, [2]int64{off, n})
		return nil
	}
	at := int64(crc.HeaderSize)
	for i := range 3 {
		mustPut(t, s, fmt.Sprint(i), "value")
		for range 2 {
			if err := s.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		end := s.Stats().Tail
		if len(ranges) != i+1 || ranges[i] != [2]int64{at, end - at} {
			t.Fatalf("synced %v, want one more, [%d,%d)", ranges, at, end)
		}
		at = end
	}
}

// Goal: a periodic store syncs by itself what was written, and the mark that says
// so, and has no timer running when nothing was. Method: wait for DurableRevision.
func TestPeriodic(t *testing.T) {
	s := openTest(t, &Options{SyncEvery: time.Millisecond})
	for i := range uint64(3) {
		mustPut(t, s, "k", fmt.Sprint(i))
		waitFor(t, "the sync", func() bool { return s.Stats().DurableRevision == i+1 })
		waitFor(t, "the mark", func() bool {
			info, err := Inspect(s.Path())
			if err != nil {
				t.Fatal(err)
			}
			return info.DurableRevision == i+1
		})
		waitFor(t, "rest", func() bool { return !s.tick.armed.Load() })
	}
	s = openTest(t, &Options{SyncEvery: time.Hour, SyncBytes: 1 << 20})
	big := string(make([]byte, 600<<10))
	mustPut(t, s, "a", big)
	mustPut(t, s, "b", big)
	waitFor(t, "the sync after SyncBytes", func() bool { return s.Stats().DurableRevision == 2 })
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}
