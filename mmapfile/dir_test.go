//go:build linux || darwin || freebsd

package mmapfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Goal: a directory is synced, by its name or as opened before the names in it
// changed, and what is none is refused. Method: one of each.
func TestDir(t *testing.T) {
	f, path := newTestFile(t, 1)
	must(t, f.SyncFile())
	d, err := OpenDir(filepath.Dir(path))
	must(t, err)
	must(t, os.Rename(path, path+" renamed"))
	must(t, d.Sync())
	d.Close()
	d.Close()
	if err := d.Sync(); !errors.Is(err, unix.EBADF) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := OpenDir(path + " renamed"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("of a file: %v", err)
	}
	if _, err := OpenDir(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
}
