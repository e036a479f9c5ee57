package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

// openMem opens a store in memory, which is verified when the test ends.
func openMem(t testing.TB, opts *Options) *Store {
	t.Helper()
	return keep(t)(OpenMem(opts))
}

// openHanded opens a further handle of the store s in memory.
func openHanded(t testing.TB, s *Store, opts *Options) *Store {
	t.Helper()
	f, err := s.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return keep(t)(OpenFile(f, opts))
}

// keep verifies and closes a store that was opened when the test ends.
func keep(t testing.TB) func(*Store, error) *Store {
	t.Helper()
	return func(s *Store, err error) *Store {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			mustVerify(t, s)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
}

// Goal: a store in memory compacts as others do, by itself too, stays within its bound by that,
// and has no path. Method: keys are written over until much more than MaxSize has been written.
func TestMemoryCompacts(t *testing.T) {
	dir, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	s := openMem(t, &Options{MaxSize: 1 << 20})
	want := map[string]string{}
	for i := range 4000 {
		k, v := fmt.Sprint(i%50), strings.Repeat(fmt.Sprint(i%10), 1000)
		mustPut(t, s, k, v)
		want[k] = v
	}
	for s.compactKicked.Load() {
		runtime.Gosched()
	}
	if st := s.Stats(); st.Compactions == 0 || st.FileBytes > 1<<20 {
		t.Errorf("%d compactions, %d bytes", st.Compactions, st.FileBytes)
	}
	wantSame(t, []*Store{s}, want)
	if _, err := s.Compact(t.Context()); err != nil || s.Stats().DeadBytes != 0 {
		t.Errorf("compact: %v, %+v", err, s.Stats())
	}
	wantSame(t, []*Store{s}, want)
	if err := s.Clear(); err != nil {
		t.Error(err)
	}
	wantSame(t, []*Store{s}, nil)
	if err := s.PutDurable([]byte("k"), nil); err != nil {
		t.Error(err)
	}
	if now, err := os.ReadDir("."); len(now) != len(dir) || err != nil || s.Path() != "" {
		t.Errorf("path %q, beside it %v; %v", s.Path(), now, err)
	}
}

// Goal: once others may have it a store in memory stays where it is, says so, and is full at
// its bound. Method: what would compact, by asking, by itself, and for want of space; then what
// it holds is what it held.
func TestMemoryHanded(t *testing.T) {
	s := openMem(t, &Options{MaxSize: 256 << 10})
	mustPut(t, s, "k", "1")
	reader := openHanded(t, s, &Options{ReadOnly: true})
	_, compact := s.Compact(t.Context())
	for _, err := range []error{compact, s.Clear()} {
		var e *Error
		if !errors.Is(err, errors.ErrUnsupported) || !errors.As(err, &e) {
			t.Errorf("%v, want ErrUnsupported", err)
		}
	}
	value := strings.Repeat("v", 1000)
	var err error
	for n := 0; err == nil; n++ {
		if n > 256 {
			t.Fatal("never full")
		}
		err = s.Put([]byte("k"), []byte(value))
	}
	if !errors.Is(err, ErrFull) || s.Stats().Compactions != 0 || s.compactKicked.Load() {
		t.Errorf("put: %v, %d compactions", err, s.Stats().Compactions)
	}
	wantSame(t, []*Store{s, reader}, map[string]string{"k": value})
}

// Goal: whoever has a store's descriptor follows it, though it was compacting when it was
// handed out. Method: Compact without end on one goroutine, File on another, and a write that
// must be seen.
func TestMemoryHandedInCompaction(t *testing.T) {
	for round := range 50 {
		s := openMem(t, &Options{Shared: round%2 == 0 && runtime.GOOS == "linux", CompactAt: -1})
		for i := range 100 {
			mustPut(t, s, fmt.Sprint(i), "v")
		}
		ended := make(chan error)
		go func() {
			for {
				if _, err := s.Compact(context.Background()); err != nil {
					ended <- err
					return
				}
			}
		}()
		reader := openHanded(t, s, &Options{ReadOnly: true})
		mustPut(t, s, "k", "after")
		mustGet(t, reader, "k", "after")
		if err := <-ended; !errors.Is(err, errors.ErrUnsupported) {
			t.Fatal(err)
		}
		mustPut(t, s, "k", "still")
		mustGet(t, reader, "k", "still")
	}
}

// Goal: handles of one store in memory exclude each other or share it as those of a file do,
// and who is last leaves it whole for whoever still has a descriptor. Method: every order.
func TestMemoryLocks(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("several writers: on Linux only")
	}
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprint("shared=", shared), func(t *testing.T) {
			s := openMem(t, &Options{Shared: shared})
			mustPut(t, s, "k", "1")
			f, err := s.File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			wantLocked := func(opts *Options) {
				t.Helper()
				if _, err := OpenFile(f, opts); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
					t.Fatalf("%v, want ErrLocked naming %d", err, os.Getpid())
				}
			}
			wantLocked(nil)
			if !shared {
				wantLocked(&Options{Shared: true})
			} else {
				other := keep(t)(OpenFile(f, &Options{Shared: true}))
				mustPut(t, other, "k", "2")
				mustPut(t, s, "l", "3")
				wantSame(t, []*Store{s, other}, map[string]string{"k": "2", "l": "3"})
				if err := other.Close(); err != nil {
					t.Fatal(err)
				}
			}
			want := map[string]string{}
			for i := range 10 {
				k := fmt.Sprint("more ", i)
				mustPut(t, s, k, strings.Repeat("v", 10_000)) // and the file grows
			}
			it := s.Iter(nil)
			for k, v := range it.All() {
				want[string(k)] = string(v)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			alone := keep(t)(OpenFile(f, nil))
			wantSame(t, []*Store{alone}, want)
			wantLocked(nil)
			wantLocked(&Options{Shared: true})
			mustPut(t, alone, "k", "4")
			reader := keep(t)(OpenFile(f, &Options{ReadOnly: true}))
			mustGet(t, reader, "k", "4")
		})
	}
}

// Goal: handles that share a store in memory count together. Method: goroutines with a handle each.
func TestMemoryCounts(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("several writers: on Linux only")
	}
	const each = 300
	handles := []*Store{openMem(t, &Options{Shared: true})}
	for range 2 {
		handles = append(handles, openHanded(t, handles[0], &Options{Shared: true}))
	}
	errs := make(chan error)
	for _, s := range handles {
		go func() {
			var err error
			for n := 0; n < each && err == nil; n++ {
				err = s.Compute([]byte("n"), func(old []byte, _ bool) ([]byte, Op) { return append(bytes.Clone(old), 'x'), Write })
			}
			errs <- err
		}()
	}
	for range handles {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	wantSame(t, handles, map[string]string{"n": strings.Repeat("x", each*len(handles))})
}

// Goal: a watch of a store in memory sees what is written, over a compaction, and in a handle
// that reads; that one is woken, though the descriptor by which it was opened is closed.
// Method: event by event.
func TestMemoryWatched(t *testing.T) {
	s := openMem(t, nil)
	own := pull(t, s.Watch(t.Context(), nil))
	mustPut(t, s, "a", "1")
	own.take("a=1")
	mustPut(t, s, "b", "2")
	if _, err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, "c", "3")
	own.take("b=2", "c=3")

	reader := openHanded(t, s, &Options{ReadOnly: true})
	others := pull(t, reader.Watch(t.Context(), nil))
	others.take("a=1", "b=2", "c=3")
	if runtime.GOOS == "linux" {
		f := reader.openWritable(reader.gen.Load())
		if f == nil {
			t.Fatal("it is not woken")
		}
		f.Close()
	}
	if err := s.Delete([]byte("b")); err != nil {
		t.Fatal(err)
	}
	own.take("b")
	others.take("b")
}

// Goal: what cannot be handed out, or opened, is refused. Method: a table.
func TestMemoryRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	onDisk := openTestAt(t, path, nil)
	closed, err := OpenMem(nil)
	if err == nil {
		err = closed.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	_, named := onDisk.File()
	_, over := closed.File()
	_, none := OpenFile(nil, nil)
	_, nothing := OpenMem(&Options{ReadOnly: true})
	_, invalid := OpenMem(&Options{MaxSize: 1})
	for _, tc := range []struct {
		name      string
		err, want error
	}{
		{"the file of a path", named, fs.ErrInvalid},
		{"the file of a closed store", over, ErrClosed},
		{"no file", none, fs.ErrInvalid},
		{"nothing to read", nothing, fs.ErrNotExist},
		{"options", invalid, fs.ErrInvalid},
	} {
		var e *Error
		if !errors.Is(tc.err, tc.want) || !errors.As(tc.err, &e) {
			t.Errorf("%s: %v, want %v", tc.name, tc.err, tc.want)
		}
	}
}

// Goal: the memory of a closed store comes back, though the program still holds it. Method: the
// process's mappings are looked at.
func TestMemoryFreed(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("by /proc")
	}
	mapped := func() int {
		b, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(b, []byte("memfd:mmapkv"))
	}
	waitFor(t, "earlier stores unmapped", func() bool { runtime.GC(); return mapped() == 0 })
	s := openMem(t, nil)
	mustPut(t, s, "k", strings.Repeat("v", 2*compactGC))
	if mapped() == 0 {
		t.Fatal("not mapped")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // no collection but one that is asked for
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "its memory unmapped", func() bool { return mapped() == 0 })
	runtime.KeepAlive(s)
}
