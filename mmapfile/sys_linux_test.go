package mmapfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mmapkv/mmapkv/internal/loopfs"
)

func init() {
	children["limited"] = limitedChild
}

// areas counts the areas of this process's address space that are over path.
func areas(t *testing.T, path string) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	must(t, err)
	return bytes.Count(maps, []byte(path+"\n"))
}

// unmappedSoon collects garbage until no area is over path.
func unmappedSoon(t *testing.T, path string) {
	t.Helper()
	for range 500 {
		runtime.GC()
		if areas(t, path) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%d areas stay mapped", areas(t, path))
}

// Goal: a mapping is unmapped when nobody holds it, and not before. Method: look
// into /proc/self/maps.
func TestUnmappedWhenUnreachable(t *testing.T) {
	reserving(t, 4, 16)
	path := newPath(t)
	f, err := Create(path, 0o600, 2*pageSize)
	must(t, err)
	if n := areas(t, path); n != 2 {
		t.Errorf("%d areas for a file, want 2", n)
	}
	old := f.Mapping()
	fill(old.Bytes(), 0)
	must(t, f.Grow(5*pageSize))
	runtime.GC()
	runtime.GC()
	if n := areas(t, path); n != 3 { // the old one without the rest of its reservation
		t.Errorf("%d areas with an old mapping held, want 3", n)
	}
	checkFilled(t, old.Bytes(), 2)
	must(t, f.Close())
	held := f.Mapping()
	f = nil
	for range 3 {
		runtime.GC()
	}
	checkFilled(t, old.Bytes(), 2)
	checkFilled(t, held.Bytes(), 2)
	before := pending.Load()
	runtime.KeepAlive(old)
	runtime.KeepAlive(held)
	unmappedSoon(t, path)
	if n := pending.Load(); n >= before {
		t.Errorf("%d mappings counted as pending, %d before", n, before)
	}
}

// Goal: a mapping that was dropped without Close is unmapped too.
func TestUnmappedWithoutClose(t *testing.T) {
	f, path := newTestFile(t, 1)
	fd, err := unix.Dup(f.fd)
	must(t, err)
	defer unix.Close(fd)
	m, err := newMapping(fd, f.prot(), pageSize, pageSize)
	must(t, err)
	if n := areas(t, path); n != 3 {
		t.Errorf("%d areas, want 3", n)
	}
	runtime.KeepAlive(m)
	before := unmapped.Load()
	for range 500 {
		if unmapped.Load() > before && areas(t, path) == 2 {
			break
		}
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
	if n := areas(t, path); n != 2 {
		t.Errorf("%d areas, want those of the File alone", n)
	}
	runtime.KeepAlive(f)
}

// Goal: areas stay few: two a file, one more for each part advised or protected.
func TestAreas(t *testing.T) {
	f, path := newTestFile(t, 4)
	check := func(when string, want int) {
		t.Helper()
		if n := areas(t, path); n != want {
			t.Errorf("%s: %d areas, want %d", when, n, want)
		}
	}
	check("created", 2)
	for n := int64(5); n < 100; n++ {
		must(t, f.Grow(n*pageSize))
	}
	check("grown often", 2)
	for n := int64(1); n < 50; n++ {
		must(t, f.Protect(0, n*pageSize))
	}
	check("protected", 3)
	f.AdviseRandom(60*pageSize, 39*pageSize)
	check("advised", 4)
	must(t, f.Truncate(10*pageSize))
	check("truncated", 2)
}

// rss is how many bytes of path's mappings have a page behind them.
func rss(t *testing.T, path string) int64 {
	t.Helper()
	return smaps(t, "Rss", func(area string) bool { return strings.HasSuffix(area, path+"\n") })
}

// smaps sums up what the kernel tells, in bytes, of the areas that are ours.
func smaps(t *testing.T, what string, ours func(area string) bool) (total int64) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps")
	must(t, err)
	of := false
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		switch {
		case strings.Contains(name, "-"):
			of = ours(line)
		case of && name == what:
			var kib int64
			if _, err := fmt.Sscan(value, &kib); err != nil {
				t.Fatal(err)
			}
			total += kib << 10
		}
	}
	return total
}

// Goal: what was filled without huge pages is in huge pages after it, as many as wanted, and
// holds what it held. Method: the kernel's account of the region's area, before and after.
func TestMakeHuge(t *testing.T) {
	huge := func(r *Region) int64 {
		base := uintptr(unsafe.Pointer(&r.Words[0]))
		return smaps(t, "AnonHugePages", func(area string) bool {
			var from, to uintptr
			_, err := fmt.Sscanf(area, "%x-%x", &from, &to)
			return err == nil && from <= base && base < to
		}) / hugePageSize
	}
	filled := func(advised bool) *Region {
		r, err := NewRegion(4*hugePageSize/8, advised)
		must(t, err)
		for i := range r.Words {
			r.Words[i] = uint64(i)
		}
		return r
	}
	r := filled(false)
	if huge(r) != 0 {
		t.Skip("SKIPPED: the kernel gives huge pages unasked")
	}
	left := 3
	r.MakeHuge(func() bool { left--; return left > 0 })
	if n := huge(r); n == 0 && huge(filled(true)) == 0 {
		t.Skip("SKIPPED: the kernel gives no huge pages")
	} else if n != 2 {
		t.Errorf("%d huge pages, want 2", n)
	}
	for i, word := range r.Words {
		if word != uint64(i) {
			t.Fatalf("word %d became %d", i, word)
		}
	}
}

// Goal: populating brings in the pages of the range, either way. Method: count the
// pages that are in the page table before and after.
func TestPopulateBringsIn(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(f *File, off, n int64)
	}{
		{"Populate", func(f *File, off, n int64) { f.Populate(off, n) }},
		{"touch", func(f *File, off, n int64) { f.touch(f.Mapping().pages(off, n)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, path := newTestFile(t, 64)
			if n := rss(t, path); n != 0 {
				t.Fatalf("%d bytes are in at the start", n)
			}
			c.do(f, 10*pageSize+1, 40*pageSize)
			if n := rss(t, path); n < 41*pageSize {
				t.Errorf("%d bytes are in, want at least %d", n, 41*pageSize)
			}
		})
	}
}

// Goal: a long Sync takes its pages out of the page table, but for those that it
// covers in part, and they keep their bytes, on the device too; a short one leaves all
// as it is. Method: count the pages that are in, and look beneath a file system.
func TestSyncForgets(t *testing.T) {
	for _, c := range []struct {
		name    string
		off, n  int64
		forgets bool
	}{
		{"short", 3 * pageSize, forgetFrom - 1, false},
		{"long", 3*pageSize + 8, forgetFrom + 2*pageSize, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := loopfs.Mount(t, "ext4", 16<<20)
			path := filepath.Join(dir, "f")
			f, err := Create(path, 0o600, 1<<20)
			must(t, err)
			defer f.Close()
			fill(f.Mapping().Bytes(), 0)
			before := rss(t, path)
			must(t, f.Sync(c.off, c.n))
			want := before
			if c.forgets {
				want -= pageFloor(c.off+c.n) - pageCeil(c.off)
			}
			if in := rss(t, path); in != want {
				t.Errorf("%d bytes are in, want %d of %d", in, want, before)
			}
			device, err := os.ReadFile(loopfs.Image(dir))
			must(t, err)
			if !bytes.Contains(device, f.Mapping().Bytes()[c.off:c.off+c.n]) {
				t.Error("what was synced is not on the device")
			}
			checkFilled(t, f.Mapping().Bytes(), 1<<20/pageSize)
		})
	}
}

// Goal: on a full disk Grow and Create fail and change nothing; with space again
// they work. Method: small file systems with and without allocation (ext2 has no
// fallocate), filled by another file.
func TestFullDisk(t *testing.T) {
	for _, fstype := range []string{"ext4", "ext2", "tmpfs"} {
		t.Run(fstype, func(t *testing.T) {
			dir := loopfs.Mount(t, fstype, 16<<20)
			path := filepath.Join(dir, "f")
			f, err := Create(path, 0o600, 64<<10)
			must(t, err)
			defer f.Close()
			fill(f.Mapping().Bytes(), 0)

			filler := filepath.Join(dir, "filler")
			var st unix.Statfs_t
			must(t, unix.Statfs(dir, &st))
			left := int64(st.Bavail)*int64(st.Bsize) - 1<<20
			must(t, os.WriteFile(filler, bytes.Repeat([]byte("x"), int(left)), 0o600))

			for range 3 {
				err = f.Grow(4 << 20)
				if !errors.Is(err, ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("Grow: %v, want %v", err, ErrNoSpace)
				}
				checkSize(t, f, path, 64<<10)
			}
			if _, err := Create(path+"2", 0o600, 4<<20); !errors.Is(err, ErrNoSpace) {
				t.Fatalf("Create: %v, want %v", err, ErrNoSpace)
			}
			if _, err := os.Lstat(path + "2"); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("the file of a failed Create: %v", err)
			}
			checkFilled(t, f.Mapping().Bytes(), 64<<10/pageSize)

			must(t, f.Grow(128<<10)) // for this much there is space
			must(t, os.Remove(filler))
			must(t, f.Grow(4<<20))
			checkSize(t, f, path, 4<<20)
			var file unix.Stat_t
			must(t, unix.Stat(path, &file))
			if file.Blocks*512 < file.Size {
				t.Errorf("%d blocks for %d bytes: the file has holes", file.Blocks, file.Size)
			}
			fill(f.Mapping().Bytes(), 0)
			must(t, f.Sync(0, f.Size()))
			checkFilled(t, f.Mapping().Bytes(), 4<<20/pageSize)
		})
	}
}

// Goal: what Sync covers has left the page cache for the device. Method: look for
// it among the blocks beneath a file system.
func TestSyncReachesDevice(t *testing.T) {
	for _, c := range []struct {
		name string
		sync func(f *File, off, n int64) error
	}{
		{"Sync", func(f *File, off, n int64) error { return f.Sync(off, n) }},
		{"SyncFile", func(f *File, _, _ int64) error { return f.SyncFile() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := loopfs.Mount(t, "ext4", 16<<20)
			f, err := Create(filepath.Join(dir, "f"), 0o600, 1<<20)
			must(t, err)
			defer f.Close()
			for i, off := range []int64{4090, 500_000, 1<<20 - 12} { // one across a page border
				text := fmt.Sprintf("<%d>abc<%d>xyz", i, i)
				copy(f.Mapping().Bytes()[off:], text)
				must(t, c.sync(f, off, 12))
				blocks, err := os.ReadFile(loopfs.Image(dir))
				must(t, err)
				for _, part := range []string{text[:6], text[6:]} {
					if !bytes.Contains(blocks, []byte(part)) {
						t.Errorf("%q is not on the device", part)
					}
				}
			}
		})
	}
}

// Goal: a read-only file system is told as such.
func TestReadOnlyFileSystem(t *testing.T) {
	dir := loopfs.Mount(t, "tmpfs", 1<<20)
	path := filepath.Join(dir, "f")
	must(t, os.WriteFile(path, []byte("old"), 0o600))
	if out, err := exec.Command("mount", "-o", "remount,ro", dir).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: %v: %s", err, out)
	}
	if _, err := Open(path, ReadWrite); !errors.Is(err, syscall.EROFS) {
		t.Errorf("Open: %v, want EROFS", err)
	}
	if _, err := Create(path+"2", 0o600, 10); !errors.Is(err, syscall.EROFS) {
		t.Errorf("Create: %v, want EROFS", err)
	}
	f := openTest(t, path, ReadOnly)
	if b := f.Mapping().Bytes(); string(b) != "old" {
		t.Errorf("ReadOnly shows %q", b)
	}
	if f.FileSystem() != "tmpfs" {
		t.Errorf("FileSystem is %q", f.FileSystem())
	}
}

// Goal: missing permission is fs.ErrPermission. Method: root gives up its file
// system rights on this thread; others have none to give up.
func TestPermission(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, "f")
	must(t, os.WriteFile(path, []byte("x"), 0o444))
	if os.Geteuid() == 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_, _, _ = syscall.RawSyscall(unix.SYS_SETFSUID, 65534, 0, 0)
		defer func() { _, _, _ = syscall.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0) }()
	}
	if _, err := Open(path, ReadWrite); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("ReadWrite: %v, want %v", err, fs.ErrPermission)
	}
	f, err := Open(path, ReadOnly)
	must(t, err)
	must(t, f.Close())
	if os.Geteuid() == 0 { // the directory is not the other user's
		if _, err := Create(path+"2", 0o600, 1); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Create: %v, want %v", err, fs.ErrPermission)
		}
	}
}

// Goal: network file systems are refused for writing and named; Create leaves
// nothing. Method: the file system of the test is declared one.
func TestRemote(t *testing.T) {
	f, path := newTestFile(t, 1)
	var st unix.Statfs_t
	must(t, unix.Statfs(path, &st))
	magic := uint32(st.Type)
	old, known := fileSystems[magic]
	defer func() {
		fileSystems[magic] = old
		if !known {
			delete(fileSystems, magic)
		}
	}()
	if f.FileSystem() != old.name {
		t.Errorf("FileSystem is %q, want %q", f.FileSystem(), old.name)
	}
	kind := old
	kind.name, kind.remote = "far", true
	fileSystems[magic] = kind
	if _, err := Open(path, ReadWrite); !errors.Is(err, ErrRemote) || !strings.Contains(err.Error(), "far") {
		t.Errorf("Open: %v, want %v", err, ErrRemote)
	}
	if _, err := Create(path+"2", 0o600, 1); !errors.Is(err, ErrRemote) {
		t.Errorf("Create: %v, want %v", err, ErrRemote)
	}
	if _, err := os.Lstat(path + "2"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file of a refused Create: %v", err)
	}
	if g := openTest(t, path, ReadOnly); g.FileSystem() != "far" {
		t.Errorf("FileSystem is %q", g.FileSystem())
	}
}

// Goal: with little address space left a small file still opens, in a smaller
// reservation, and what does not fit is refused, changing nothing. Method: a child
// that limits itself.
func TestLittleAddressSpace(t *testing.T) {
	child, line := startChild(t, "limited", t.TempDir())
	if line != "ok" {
		t.Fatal(line)
	}
	must(t, child.Wait())
}

func limitedChild(dir string) error {
	path := filepath.Join(dir, "f")
	big := path + "big"
	if err := os.WriteFile(big, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(big, 600<<20); err != nil { // sparse: it is not touched
		return err
	}
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return err
	}
	var pages uint64
	if _, err := fmt.Sscan(string(statm), &pages); err != nil {
		return err
	}
	limit := pages*uint64(pageSize) + 500<<20
	if err := unix.Setrlimit(unix.RLIMIT_AS, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	f, err := Create(path, 0o600, 1<<20)
	if err != nil {
		return fmt.Errorf("small file: %w", err)
	}
	if n := f.Mapping().span.size.Load(); n > 500<<20 {
		return fmt.Errorf("a reservation of %d bytes under the limit", n)
	}
	f.Mapping().Bytes()[1<<20-1] = 'x'
	if _, err := Open(big, ReadOnly); !errors.Is(err, ErrNoAddressSpace) || !errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("large file: %v, want %v", err, ErrNoAddressSpace)
	}
	if _, err := NewRegion(600<<17, false); !errors.Is(err, ErrNoAddressSpace) {
		return fmt.Errorf("large region: %v, want %v", err, ErrNoAddressSpace)
	}
	if err := f.Grow(600 << 20); !errors.Is(err, ErrNoAddressSpace) {
		return fmt.Errorf("growth: %v, want %v", err, ErrNoAddressSpace)
	}
	if st, err := os.Stat(path); err != nil || st.Size() != 1<<20 || f.Size() != 1<<20 {
		return fmt.Errorf("after the growth that failed: Size %d, file %v, %v", f.Size(), st.Size(), err)
	}
	if f.Mapping().Bytes()[1<<20-1] != 'x' {
		return errors.New("the byte stored is gone")
	}
	fmt.Println("ok")
	return nil
}
