//go:build linux || darwin || freebsd

package mmapfile

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"testing"
)

// lockedBy checks that the lock is held by a process of that id.
func lockedBy(t *testing.T, f *File, holderOff int64, pid int) {
	t.Helper()
	var locked *LockedError
	if err := f.TryLock(holderOff); !errors.As(err, &locked) || locked.PID != pid {
		t.Fatalf("%v, want locked by process %d", err, pid)
	}
}

// Goal: one File of a process excludes the others, names itself, and frees the
// lock with Close.
func TestLockInProcess(t *testing.T) {
	f, path := newTestFile(t, 1)
	g := openTest(t, path, ReadWrite)
	must(t, f.TryLock(8))
	must(t, f.TryLock(8)) // again
	if pid := binary.LittleEndian.Uint64(f.Mapping().Bytes()[8:]); pid != uint64(os.Getpid()) {
		t.Fatalf("the file names process %d", pid)
	}
	lockedBy(t, g, 8, os.Getpid())
	must(t, f.Close())
	must(t, g.TryLock(8))
	h := openTest(t, path, ReadWrite)
	lockedBy(t, h, 8, os.Getpid())
}

// Goal: a lock of another process is told with its id, and its death by SIGKILL
// frees it.
func TestLockOfChild(t *testing.T) {
	f, path := newTestFile(t, 1)
	child, line := startChild(t, "lock", path)
	if line != "locked" {
		t.Fatal(line)
	}
	lockedBy(t, f, 8, child.Process.Pid)
	must(t, child.Process.Kill())
	_ = child.Wait() // tells of the kill
	must(t, f.TryLock(8))
	if pid := f.Mapping().Word(8).Load(); pid != uint64(os.Getpid()) {
		t.Fatalf("the file names process %d", pid)
	}
}

// Goal: a child that does not get the lock says who has it.
func TestLockAgainstChild(t *testing.T) {
	f, path := newTestFile(t, 1)
	must(t, f.TryLock(8))
	want := (&LockedError{PID: os.Getpid()}).Error()
	if _, line := startChild(t, "lock", path); line != want {
		t.Fatalf("child says %q, want %q", line, want)
	}
}

// Goal: what cannot be a process id is not told as one. Method: a table of words.
func TestLockNonsense(t *testing.T) {
	f, _ := newTestFile(t, 1)
	for _, c := range []struct {
		name string
		word uint64
		want int
	}{
		{"nothing", 0, 0},
		{"some process", 77, 77},
		{"largest", math.MaxInt32, math.MaxInt32},
		{"too large", math.MaxInt32 + 1, 0},
		{"all ones", math.MaxUint64, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.Mapping().Word(8).Store(c.word)
			if pid := readPID(f.fd, 8); pid != c.want {
				t.Errorf("process %d, want %d", pid, c.want)
			}
		})
	}
	must(t, f.Truncate(12))
	if pid := readPID(f.fd, 8); pid != 0 {
		t.Errorf("process %d of a file that ends before", pid)
	}
}

// Goal: a place outside of the file is refused, and no lock is taken.
func TestLockRange(t *testing.T) {
	f, path := newTestFile(t, 1)
	for _, off := range []int64{-1, pageSize - 7, pageSize, math.MaxInt64} {
		if err := f.TryLock(off); !errors.Is(err, ErrRange) {
			t.Errorf("at %d: %v, want %v", off, err, ErrRange)
		}
	}
	must(t, openTest(t, path, ReadWrite).TryLock(0))
}
