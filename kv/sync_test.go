package kv

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
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
					return &fs.PathError{Op: "msync", Path: path, Err: syscall.EIO} // as mmapfile says it
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

// Goal: a sync for SyncBytes leaves the end of the log out, which writers are storing
// into, where it is most of it otherwise; what it then says to be durable is what it
// synced; and what it left out the tick syncs. Method: what the disk is asked for,
// compared with the records.
func TestSyncBehind(t *testing.T) {
	const stretch = 1 << 10
	var ends []int64 // of the syncs of the log
	s := openTest(t, &Options{SyncEvery: time.Hour, SyncBytes: 32 * stretch})
	withFake(s).sync = func(off, n int64) error {
		if off >= crc.HeaderSize {
			ends = append(ends, off+n)
		}
		return nil
	}
	g, running := s.gen.Load(), s.closing
	s.closing = halted // the sync is not begun by itself
	for i := 0; !s.tick.kicked.Load(); i++ {
		mustPut(t, s, fmt.Sprint(i%10), string(make([]byte, i%300)))
	}
	s.closing = running
	if err := s.syncForBytes(g); err != nil {
		t.Fatal(err)
	}
	tail := g.end.Load()
	if len(ends) != 1 || tail-ends[0] < stretch || tail-ends[0] > 3*stretch {
		t.Fatalf("synced up to %v, the tail is %d", ends, tail)
	}
	revision := uint64(0)
	for r, err := range s.Records(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Off+r.Len == ends[0] {
			revision = r.Revision
		}
	}
	mark := g.durableMark()
	if got := s.Stats().DurableRevision; revision == 0 || got != revision || mark.Off != ends[0] || mark.Revision != revision {
		t.Errorf("durable are revision %d and the mark %+v, the records up to %d end with %d", got, mark, ends[0], revision)
	}
	s.onTick()
	if got := s.Stats(); got.DurableRevision != got.Revision || ends[len(ends)-1] != tail {
		t.Errorf("after the tick revision %d of %d is durable, synced up to %v of %d", got.DurableRevision, got.Revision, ends, tail)
	}
	s.tick.kicked.Store(false)
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}

// Goal: of the writers that share a sync which fails, none is told that its write is
// durable, nor is anybody after it. Method: many write until the n-th sync fails;
// what the earlier ones wrote is kept, and opened. The same with the fault planted
// that the leader's failure acknowledges those who wait: it must be found.
func TestFailedGroupCommit(t *testing.T) {
	for _, planted := range []bool{false, true} {
		t.Run(fmt.Sprint("planted=", planted), func(t *testing.T) {
			lost := 0
			for nth := 1; nth <= 20; nth++ {
				lost += failGroupCommit(t, nth, planted)
			}
			if (lost > 0) != planted {
				t.Errorf("%d acknowledged writes are lost", lost)
			}
		})
	}
}

// failGroupCommit has the n-th sync fail among writers, and returns how many writes
// were acknowledged and are lost.
func failGroupCommit(t *testing.T, nth int, planted bool) (lost int) {
	const writers = 8
	s := openTest(t, &Options{Durability: SyncAlways, SyncEvery: time.Hour})
	var durable []byte
	syncs := 0 // of the leaders, of whom there is one at a time
	withFake(s).sync = func(off, n int64) error {
		if syncs++; syncs >= nth {
			// The others wait by now, or come and are told.
			waitFor(t, "all writers", func() bool { return s.gen.Load().revision.Load() >= s.sync.durable+writers })
			if planted {
				s.sync.mu.Lock()
				s.sync.durable = s.gen.Load().revision.Load()
				s.sync.mu.Unlock()
			}
			return syscall.EIO
		}
		b, err := os.ReadFile(s.Path())
		if err == nil {
			durable = b[:off+n]
		}
		return err
	}
	acknowledged := make([][]string, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprint(w, " ", i)
				if err := s.Put([]byte(key), []byte("v")); err != nil {
					if !errors.Is(err, ErrPoisoned) || !errors.Is(err, syscall.EIO) {
						t.Error(err)
					}
					return
				}
				acknowledged[w] = append(acknowledged[w], key)
			}
		})
	}
	wg.Wait()
	path := filepath.Join(t.TempDir(), "durable")
	if durable == nil { // the creation alone
		durable = make([]byte, crc.HeaderSize)
		copy(durable, s.gen.Load().bytes())
	}
	if err := (image{"durable": durable}).write(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	left := openTestAt(t, path, nil)
	for _, keys := range acknowledged {
		for _, key := range keys {
			if has, err := left.Has([]byte(key)); err != nil {
				t.Error(err)
			} else if !has {
				lost++
			}
		}
	}
	return lost
}

// Goal: a write for which there is no space compacts if that promises some, and
// otherwise, or where the compaction fails too, is ErrFull and changes nothing; an
// error that is not for want of space compacts nothing. Method: a log that is mostly
// dead comes to the end of its extent, on disks that fail to grow.
func TestFailedGrowth(t *testing.T) {
	for _, tc := range []struct {
		name        string
		faults      []fault
		want        error // nil: the write succeeds
		compactions uint64
	}{
		{"no space to grow, ever", []fault{{kind: "Grow", nth: 1, forever: true, errno: syscall.ENOSPC}}, nil, 1},
		{"no quota to grow, ever", []fault{{kind: "Grow", nth: 1, forever: true, errno: syscall.EDQUOT}}, nil, 1},
		{"no space for the extent", []fault{{kind: "Grow", nth: 1, errno: syscall.ENOSPC}}, nil, 0},
		{"no space for a compaction either", []fault{
			{kind: "Grow", nth: 1, forever: true, errno: syscall.ENOSPC}, {kind: "Create", nth: 2, forever: true, errno: syscall.ENOSPC},
		}, ErrFull, 0},
		{"and the compaction cannot be synced", []fault{
			{kind: "Grow", nth: 1, forever: true, errno: syscall.EDQUOT}, {kind: "SyncFile", nth: 2, errno: syscall.EIO},
		}, ErrFull, 0},
		{"and the compaction cannot be renamed", []fault{
			{kind: "Grow", nth: 1, forever: true, errno: syscall.EFBIG}, {kind: "Rename", nth: 1, errno: syscall.ENOSPC},
		}, ErrFull, 0},
		{"the disk fails", []fault{{kind: "Grow", nth: 1, errno: syscall.EIO}}, syscall.EIO, 0},
		{"no address space", []fault{{kind: "Grow", nth: 1, errno: syscall.ENOMEM}}, ErrFull, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var on disk = osDisk{}
			for i := range tc.faults {
				on = newFailingDisk(on, &tc.faults[i])
			}
			path := filepath.Join(t.TempDir(), "store")
			s, err := openOn(on, path, &Options{Durability: SyncManual})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			value := string(make([]byte, 5000))
			for s.Stats().FileBytes-s.Stats().Tail > int64(len(value))+100 {
				// Nothing looks ahead: the write that needs the space asks for it.
				s.gen.Load().aheadAt.Store(math.MaxInt64)
				mustPut(t, s, "k", value)
			}
			before := s.Stats()
			last := string(bytes.Repeat([]byte("x"), 5000))
			err = s.Put([]byte("k"), []byte(last))
			after := s.Stats()
			if after.Compactions != tc.compactions || after.Poisoned != nil || !errors.Is(err, tc.want) {
				t.Errorf("%v after %d compactions, poisoned: %v; want %v after %d", err, after.Compactions, after.Poisoned, tc.want, tc.compactions)
			}
			if err != nil {
				last = value
				if after.Revision != before.Revision || after.Tail != before.Tail {
					t.Errorf("before %+v, after %+v", before, after)
				}
			}
			mustGet(t, s, "k", last)
			for d, ok := on.(*failingDisk); ok; d, ok = d.disk.(*failingDisk) {
				d.lift()
			}
			mustPut(t, s, "l", value)
			if names, _ := filepath.Glob(path + "*"); len(names) != 1 {
				t.Errorf("there are %v", names)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			again := openTestAt(t, path, nil)
			mustGet(t, again, "k", last)
			mustGet(t, again, "l", value)
		})
	}
}
