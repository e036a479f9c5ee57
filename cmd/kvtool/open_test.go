package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Goal: a file that is truncated while its bytes are read is an error, not the end
// of the process. Method: a mapping of a file that is truncated.
func TestGuardedFault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := syscall.Mmap(int(f.Fd()), 0, 4096, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(b)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	read := byte(1)
	err = guarded(func() error {
		read = b[100]
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "truncated") || read != 1 {
		t.Errorf("read %d, error %v", read, err)
	}
}

// Goal: a fault of our own is not taken for one of the disk.
func TestGuardedPanic(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a nil dereference was taken for a fault of the file")
		}
	}()
	var i *inspection
	err := guarded(func() error { i.records++; return nil })
	t.Errorf("no panic, error %v", err)
}
