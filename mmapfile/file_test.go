//go:build linux || darwin || freebsd

package mmapfile

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Goal: only regular files are opened, nothing hangs, and the error says what was
// found. Method: a table of what a path can name; every error is a *fs.PathError.
func TestOpenRefuses(t *testing.T) {
	dir, err := os.MkdirTemp("", "mm") // short: a socket's name has little room
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, unix.Mkfifo(at("fifo"), 0o600))
	l, err := net.Listen("unix", at("socket"))
	must(t, err)
	defer l.Close()
	must(t, os.Symlink(at("nowhere"), at("dangling")))
	must(t, os.Symlink(at("loop"), at("loop")))
	for _, c := range []struct {
		name, path string
		want       error
		text       string
	}{
		{"missing", at("missing"), fs.ErrNotExist, "stat"},
		{"directory", dir, ErrNotRegular, "directory"},
		{"fifo", at("fifo"), ErrNotRegular, "fifo"},
		{"socket", at("socket"), ErrNotRegular, "socket"},
		{"device", os.DevNull, ErrNotRegular, "character device"},
		{"dangling link", at("dangling"), fs.ErrNotExist, "stat"},
		{"link to itself", at("loop"), unix.ELOOP, "stat"},
		{"file as a directory", os.Args[0] + "/x", unix.ENOTDIR, "stat"},
		{"no name", "", fs.ErrNotExist, "stat"},
		{"name with a zero byte", "a\x00b", unix.EINVAL, "stat"},
	} {
		for _, mode := range []Mode{ReadWrite, ReadOnly} {
			f, err := Open(c.path, mode)
			var pe *fs.PathError
			if f != nil || !errors.Is(err, c.want) || !errors.As(err, &pe) {
				t.Errorf("%s: %v, %v; want %v", c.name, f, err, c.want)
			} else if pe.Path != c.path || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%s: %q does not name the path and %q", c.name, err, c.text)
			}
		}
	}
}

// Goal: a file that became a fifo between the look and the open is refused too,
// without waiting. Method: newFile on a fifo opened as Open opens.
func TestFifoSlipsIn(t *testing.T) {
	path := newPath(t)
	must(t, unix.Mkfifo(path, 0o600))
	fd, err := openFD(path, unix.O_RDWR|unix.O_NONBLOCK, 0)
	must(t, err)
	defer unix.Close(fd)
	if _, err := newFile(fd, path, ReadWrite); !errors.Is(err, ErrNotRegular) {
		t.Fatalf("%v, want %v", err, ErrNotRegular)
	}
}

// Goal: Create makes a new file or none. Method: a table of what is at the path.
func TestCreateRefuses(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.WriteFile(at("file"), []byte("old"), 0o600))
	must(t, os.Symlink(at("nowhere"), at("dangling")))
	must(t, os.Symlink(at("file"), at("link")))
	for _, c := range []struct {
		name, path string
		size       int64
		want       error
	}{
		{"existing file", at("file"), 10, fs.ErrExist},
		{"existing directory", dir, 10, fs.ErrExist},
		{"dangling link", at("dangling"), 10, fs.ErrExist},
		{"link", at("link"), 10, fs.ErrExist},
		{"no directory", at("no/f"), 10, fs.ErrNotExist},
		{"negative size", at("new"), -1, ErrRange},
		{"larger than any file", at("new"), 1<<63 - 1, ErrNoSpace},
	} {
		f, err := Create(c.path, 0o600, c.size)
		var pe *fs.PathError
		if f != nil || !errors.Is(err, c.want) || !errors.As(err, &pe) {
			t.Errorf("%s: %v, %v; want %v", c.name, f, err, c.want)
		}
	}
	for _, name := range []string{"nowhere", "new"} {
		if _, err := os.Lstat(at(name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was left behind: %v", name, err)
		}
	}
	if b, _ := os.ReadFile(at("file")); string(b) != "old" {
		t.Errorf("existing file now holds %q", b)
	}
}

// Goal: the permission bits are those asked for, whatever the umask, and the file
// has its blocks.
func TestCreateExact(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o777} {
		for _, perm := range []fs.FileMode{0o600, 0o640, 0o666, 0o400} {
			path := newPath(t)
			old := unix.Umask(umask)
			f, err := Create(path, perm|fs.ModeSetuid, 3*pageSize+5)
			unix.Umask(old)
			must(t, err)
			defer f.Close()
			var st unix.Stat_t
			must(t, unix.Stat(path, &st))
			if got := fs.FileMode(st.Mode &^ unix.S_IFMT); got != perm {
				t.Errorf("umask %o: permission %o, want %o", umask, got, perm)
			}
			if st.Size != 3*pageSize+5 || st.Blocks*512 < st.Size {
				t.Errorf("size %d in %d blocks", st.Size, st.Blocks)
			}
			if f.Size() != st.Size || int64(len(f.Mapping().Bytes())) != st.Size {
				t.Errorf("Size %d, %d bytes mapped", f.Size(), len(f.Mapping().Bytes()))
			}
		}
	}
}

// Goal: links are followed by Open, and IsAt tells the file from its namesakes.
func TestIsAt(t *testing.T) {
	f, path := newTestFile(t, 1)
	link, other := path+"link", path+"other"
	must(t, os.Symlink(path, link))
	must(t, os.Link(path, path+"hard"))
	must(t, os.WriteFile(other, nil, 0o600))
	g := openTest(t, link, ReadOnly)
	check := func(when string, f *File, path string, want bool) {
		t.Helper()
		if got, err := f.IsAt(path); got != want || err != nil {
			t.Errorf("%s: IsAt = %v, %v; want %v", when, got, err, want)
		}
	}
	check("own path", f, path, true)
	check("link", f, link, true)
	check("opened by the link", g, path, true)
	check("hard link", f, path+"hard", true)
	check("another file", f, other, false)
	check("missing", f, path+"missing", false)
	must(t, os.Rename(other, path))
	check("replaced", f, path, false)
	check("replaced, by the link", g, link, false)
	must(t, os.Remove(path))
	check("removed", f, path, false)
	if _, err := f.IsAt(path + "hard/x"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("path through a file: %v", err)
	}
}

// Goal: after Close the mapping stays, the descriptor does not. Method: call
// everything.
func TestClose(t *testing.T) {
	f, path := newTestFile(t, 2)
	m := f.Mapping()
	fill(m.Bytes(), 0)
	must(t, f.Close())
	must(t, f.Close())
	for name, call := range map[string]func() error{
		"Grow":     func() error { return f.Grow(4 * pageSize) },
		"Refresh":  f.Refresh,
		"Truncate": func() error { return f.Truncate(0) },
		"Sync":     func() error { return f.Sync(0, 1) },
		"SyncFile": f.SyncFile,
		"WriteAt":  func() error { _, err := f.WriteAt([]byte("x"), 0); return err },
		"TryLock":  func() error { return f.TryLock(0) },
		"IsAt":     func() error { _, err := f.IsAt(path); return err },
	} {
		var pe *fs.PathError
		if err := call(); !errors.Is(err, fs.ErrClosed) || !errors.As(err, &pe) || pe.Path != path {
			t.Errorf("%s: %v, want fs.ErrClosed", name, err)
		}
	}
	f.Populate(0, f.Size())
	f.AdviseRandom(0, f.Size())
	must(t, f.Protect(0, f.Size()))
	if f.Mapping() != m || f.Size() != 2*pageSize {
		t.Fatal("mapping or size changed")
	}
	runtime.GC()
	checkFilled(t, m.Bytes(), 2)
}

// Goal: a ReadOnly file changes nothing and refuses what would.
func TestReadOnly(t *testing.T) {
	w, path := newTestFile(t, 2)
	fill(w.Mapping().Bytes(), 0)
	must(t, os.Chmod(path, 0o400))
	f := openTest(t, path, ReadOnly)
	checkFilled(t, f.Mapping().Bytes(), 2)
	for name, call := range map[string]func() error{
		"Grow":     func() error { return f.Grow(4 * pageSize) },
		"Truncate": func() error { return f.Truncate(0) },
		"WriteAt":  func() error { _, err := f.WriteAt([]byte("x"), 0); return err },
		"TryLock":  func() error { return f.TryLock(0) },
	} {
		if err := call(); !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s: %v, want %v", name, err, ErrReadOnly)
		}
	}
	f.Populate(0, f.Size())
	must(t, f.Protect(0, f.Size()))
	must(t, f.Sync(0, f.Size()))
	must(t, f.SyncFile())
	checkFilled(t, f.Mapping().Bytes(), 2)
}

// Goal: opening and closing without end exhausts neither mappings nor descriptors,
// though the collector has no reason of its own to run. Method: it is off, and
// there are more opens than the kernel allows areas (two each).
func TestOpenCloseWithoutEnd(t *testing.T) {
	_, path := newTestFile(t, 1)
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	count := 40_000
	if testing.Short() {
		count = 3000
	}
	for i := range count {
		f, err := Open(path, ReadWrite)
		if err != nil {
			t.Fatalf("open %d: %v", i, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Goal: thousands of files at once. Method: as many as the descriptors allow, up
// to 10 000; all of them work, and none has a goroutine.
func TestManyFiles(t *testing.T) {
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	count := int(min(10_000, limit.Cur-100))
	if testing.Short() {
		count = min(count, 500)
	}
	_, path := newTestFile(t, 1)
	goroutines := runtime.NumGoroutine()
	files := make([]*File, count)
	for i := range files {
		f, err := Open(path, ReadWrite)
		if err != nil {
			t.Fatalf("file %d: %v", i, err)
		}
		defer f.Close()
		files[i] = f
	}
	if n := runtime.NumGoroutine(); n > goroutines+8 {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
	files[0].Mapping().Bytes()[0] = 'x'
	for i, f := range files {
		if f.Mapping().Bytes()[0] != 'x' {
			t.Fatalf("file %d does not show the store", i)
		}
	}
}
