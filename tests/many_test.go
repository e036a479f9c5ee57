//go:build linux

package tests

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/mmapkv/mmapkv/internal/invariants"
	"github.com/mmapkv/mmapkv/kv"
)

func count(t *testing.T, dir string) int {
	t.Helper()
	names, err := os.ReadDir(dir)
	must(t, err)
	return len(names)
}

func areas(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	must(t, err)
	return bytes.Count(b, []byte("\n"))
}

// manyStores is how many stores a process of this kind can have open at once.
func manyStores(t *testing.T) int {
	t.Helper()
	n := 10000
	if testing.Short() || invariants.Enabled {
		n = 1000
	}
	var limit syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	if limit.Cur < uint64(n+100) {
		limit.Cur = limit.Max
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Max < uint64(n+100) {
			n = int(limit.Max) - 100
			t.Logf("SCALED DOWN to %d stores: the limit of descriptors is %d", n, limit.Max)
		}
	}
	return n
}

// manyAtOnce calls fn, which waits for the disk, with each number below n, several at once, and
// returns the errors.
func manyAtOnce(n int, fn func(i int) error) error {
	const workers = 16
	var errs [workers]error
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += workers {
				errs[w] = fn(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

// openMany opens n stores, with a key in each, and looks what it takes: a descriptor each, no
// goroutine, and no more areas than the kernel gives a process.
func openMany(t *testing.T, n int, open func(i int) (*kv.Store, error)) (stores []*kv.Store, fds int) {
	t.Helper()
	fds, goroutines, vmas := count(t, "/proc/self/fd"), runtime.NumGoroutine(), areas(t)
	stores = make([]*kv.Store, n)
	t.Cleanup(func() {
		for _, s := range stores {
			if s != nil {
				s.Close()
			}
		}
	})
	must(t, manyAtOnce(n, func(i int) (err error) {
		if stores[i], err = open(i); err != nil {
			return fmt.Errorf("store %d: %w", i, err)
		}
		return stores[i].Put([]byte("key"), fmt.Append(nil, i))
	}))
	if got := count(t, "/proc/self/fd") - fds; got > n {
		t.Errorf("%d descriptors for %d stores", got, n)
	}
	if got := areas(t); got > 65530-1000 {
		t.Errorf("%d areas, %d before", got, vmas)
	} else {
		t.Logf("%d stores: %d areas, %d before", n, got, vmas)
	}
	poll(t, "no goroutine for each store", func() bool { return runtime.NumGoroutine() <= goroutines+20 })
	for i := 0; i < n; i += 97 {
		wantGet(t, stores[i], "key", fmt.Sprint(i))
	}
	return stores, fds
}

// closeMany closes stores, which gives back all descriptors but for the fds before them.
func closeMany(t *testing.T, stores []*kv.Store, fds int) {
	t.Helper()
	must(t, manyAtOnce(len(stores), func(i int) error { return stores[i].Close() }))
	if got := count(t, "/proc/self/fd") - fds; got > 0 {
		t.Errorf("%d descriptors left", got)
	}
}

// Goal: a program can have ten thousand small stores open: one descriptor, at
// most 64 KiB of disk, no goroutine each, and within the kernel's limit of areas.
// Method: it does, with a key in each, and counts; then a sample is read again.
func TestManyStores(t *testing.T) {
	n := manyStores(t)
	dir := t.TempDir()
	path := func(i int) string { return filepath.Join(dir, fmt.Sprint(i%100), fmt.Sprint(i)) }
	for i := range 100 {
		must(t, os.Mkdir(filepath.Join(dir, fmt.Sprint(i)), 0o700))
	}
	stores, fds := openMany(t, n, func(i int) (*kv.Store, error) {
		return kv.Open(path(i), &kv.Options{Durability: kv.SyncManual})
	})
	for i := 0; i < n; i += 97 {
		fi, err := os.Stat(path(i))
		must(t, err)
		if used := fi.Sys().(*syscall.Stat_t).Blocks * 512; used > 64<<10 {
			t.Fatalf("store %d takes %d bytes of disk", i, used)
		}
	}
	closeMany(t, stores, fds)
	for i := 0; i < n; i += 997 {
		s := open(t, path(i), nil)
		wantContents(t, s, map[string]string{"key": fmt.Sprint(i)})
		closeSound(t, s)
	}
}

// Goal: as TestManyStores, in memory. Method: the same.
func TestManyStoresInMemory(t *testing.T) {
	stores, fds := openMany(t, manyStores(t), func(int) (*kv.Store, error) { return kv.OpenMem(nil) })
	for _, s := range stores {
		if size := s.Stats().FileBytes; size > 64<<10 {
			t.Fatalf("a store takes %d bytes", size)
		}
	}
	closeMany(t, stores, fds)
}
