// Package kvtest is for the tests of programs that keep their data in kv.
//
// Open gives a test a store of its own, which is verified and closed when the test ends:
//
//	func TestCart(t *testing.T) {
//		cart := NewCart(kvtest.Open(t, nil))
//		...
//	}
//
// A Disk is a directory for stores that can be made to fail, or to lose power, so that a test
// sees what the program does then: whether it reports that a disk is full, and whether what it
// told its users was saved is there afterwards. The program opens its stores as ever; it is
// enough that they are in the directory.
//
//	disk := kvtest.NewDisk(t)
//	q := OpenQueue(disk.Path("queue"))
//	disk.FailNext(kvtest.OpGrow, syscall.ENOSPC) // and q.Push is to say that it is full
//	...
//	after := disk.Cut(nil) // the power fails: only what is durable is left
//	q = OpenQueue(after.Path("queue"))
package kvtest

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/mmapkv/mmapkv/kv"
)

// Open opens a new store in a directory of the test's own. When the test ends, and what it
// registered with t.Cleanup since has run, the store is verified, and closed if it is not yet; the
// test fails with what Verify found, or if Close could not make all durable.
func Open(t testing.TB, opts *kv.Options) *kv.Store {
	t.Helper()
	return OpenAt(t, filepath.Join(t.TempDir(), "store"), opts)
}

// OpenAt is Open of the store at path, which it creates if there is none.
func OpenAt(t testing.TB, path string, opts *kv.Options) *kv.Store {
	t.Helper()
	s, err := kv.Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { finish(t, s, path) })
	return s
}

// OpenMap is Open of a store with one map of Go types, as kv.OpenMap opens it.
func OpenMap[K comparable, V any](t testing.TB, opts *kv.Options) *kv.Map[K, V] {
	t.Helper()
	path := filepath.Join(t.TempDir(), "map")
	m, err := kv.OpenMap[K, V](path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { finish(t, m.Store(), path) })
	return m
}

// Verify fails the test with each violation that s.Verify finds.
func Verify(t testing.TB, s *kv.Store) {
	t.Helper()
	if err := verify(t, s); err != nil {
		t.Errorf("verify: %v", err)
	}
}

// verify reports violations, and returns why it could not look for them.
func verify(t testing.TB, s *kv.Store) error {
	t.Helper()
	r, err := s.Verify(context.Background())
	for _, v := range r.Violations {
		t.Errorf("verify: %v", v)
	}
	return err
}

// finish verifies and closes s. One that the test has closed is verified in its file, if that is
// there: the test may have moved or removed it.
func finish(t testing.TB, s *kv.Store, path string) {
	t.Helper()
	err := verify(t, s)
	if errors.Is(err, kv.ErrClosed) {
		again, err := kv.Open(path, &kv.Options{ReadOnly: true})
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			t.Errorf("verify: %v", err)
			return
		}
		Verify(t, again)
		again.Close()
		return
	}
	if err != nil {
		t.Errorf("verify: %v", err)
	}
	// That a sync failed is what the test has heard already, or has itself brought about.
	if err := s.Close(); err != nil && !errors.Is(err, kv.ErrPoisoned) {
		t.Errorf("close: %v", err)
	}
}
