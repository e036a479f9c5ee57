//go:build linux || darwin || freebsd

package mmapfile

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"testing"
)

// newMemory creates a file in memory of n pages, and a descriptor of it.
func newMemory(t *testing.T, n int64) (*File, *os.File) {
	t.Helper()
	f, err := CreateMemory(0o600, n*pageSize)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	handed, err := f.Reopen()
	must(t, err)
	t.Cleanup(func() { handed.Close() })
	return f, handed
}

// Goal: a file in memory is one file for all who open it, as it grows and when its maker has
// closed it. Method: one writes and the other looks.
func TestMemory(t *testing.T) {
	f, handed := newMemory(t, 2)
	fill(f.Mapping().Bytes(), 0)
	other, err := OpenMemory(handed, ReadOnly)
	must(t, err)
	defer other.Close()
	must(t, handed.Close())
	checkFilled(t, other.Mapping().Bytes(), 2)
	must(t, f.Grow(5*pageSize))
	fill(f.Mapping().Bytes(), 2)
	must(t, other.Refresh())
	must(t, f.Close())
	again, err := other.Reopen()
	must(t, err)
	defer again.Close()
	late, err := OpenMemory(again, ReadOnly)
	must(t, err)
	defer late.Close()
	for _, f := range []*File{other, late} {
		checkFilled(t, f.Mapping().Bytes(), 5)
	}
}

// Goal: two who open a file in memory exclude each other, and a descriptor of it holds no lock.
// Method: all orders.
func TestMemoryLock(t *testing.T) {
	f, handed := newMemory(t, 1)
	must(t, f.TryLock(0))
	other, err := OpenMemory(handed, ReadWrite)
	if runtime.GOOS != "linux" {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Fatalf("%v, want ErrUnsupported", err)
		}
		return
	}
	must(t, err)
	defer other.Close()
	var locked *LockedError
	if err := other.TryLock(0); !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Fatalf("%v, want a *LockedError naming %d", err, os.Getpid())
	}
	must(t, f.Close())
	must(t, other.TryLock(0))
}

// Goal: what is no file in memory is refused. Method: a table.
func TestMemoryRefused(t *testing.T) {
	named, err := os.Create(newPath(t))
	must(t, err)
	defer named.Close()
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	defer w.Close()
	f, closed := newMemory(t, 1)
	must(t, closed.Close())
	must(t, f.Close())
	_, reopened := f.Reopen()
	_, negative := CreateMemory(0o600, -1)
	open := func(f *os.File) error { _, err := OpenMemory(f, ReadOnly); return err }
	for _, tc := range []struct {
		name      string
		err, want error
	}{
		{"named", open(named), ErrNamed},
		{"pipe", open(r), ErrNotRegular},
		{"closed", open(closed), fs.ErrClosed},
		{"nil", open(nil), fs.ErrInvalid},
		{"Reopen of a closed one", reopened, fs.ErrClosed},
		{"negative size", negative, ErrRange},
	} {
		var e *fs.PathError
		if !errors.Is(tc.err, tc.want) || !errors.As(tc.err, &e) {
			t.Errorf("%s: %v, want %v", tc.name, tc.err, tc.want)
		}
	}
}
