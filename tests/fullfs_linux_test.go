package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/mmapkv/mmapkv/internal/loopfs"
	"github.com/mmapkv/mmapkv/kv"
)

// smallFileSystems are file systems as small as they can be made.
var smallFileSystems = []struct {
	fstype string
	size   int64
	// inPlace: what is allocated can be written, always. A copy-on-write file system
	// may find no space for a page that is written again: then a store into it
	// faults, which poisons, or fails the Open.
	inPlace bool
}{
	{"ext4", 48 << 20, true},
	{"xfs", 300 << 20, true},
	{"btrfs", 128 << 20, false},
	{"tmpfs", 48 << 20, true},
}

// Goal: whatever the file system, a disk that gets full at growth, in a compaction
// or at creation is ErrFull, nothing that was acknowledged is lost, and all works
// again once there is space.
// Method: a ballast leaves 8 MiB; the store fills them, takes checkpoints, compacts, is
// closed and opened, and the ballast goes.
func TestFileSystemFull(t *testing.T) {
	for _, fs := range smallFileSystems {
		for _, d := range []kv.Durability{kv.SyncManual, kv.SyncAlways} {
			t.Run(fmt.Sprint(fs.fstype, " ", d), func(t *testing.T) {
				dir := loopfs.Mount(t, fs.fstype, fs.size)
				ballast := filepath.Join(dir, "ballast")
				leave(t, ballast, 8<<20)
				runFull(t, dir, syscall.ENOSPC, fs.inPlace, &kv.Options{Durability: d, CheckpointBytes: 1 << 20}, func() { must(t, os.Remove(ballast)) })
			})
		}
	}
}

// Goal: a quota that is used up is as good as a full disk.
// Method: a group quota of btrfs of 8 MiB, lifted in the end. The quotas of ext4 and
// xfs come to the store as the same error of the same calls.
func TestQuota(t *testing.T) {
	dir := loopfs.Mount(t, "btrfs", 128<<20)
	limited := filepath.Join(dir, "limited")
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("btrfs", args...).CombinedOutput(); err != nil {
			t.Skipf("SKIPPED: btrfs %v: %v: %s", args, err, out)
		}
	}
	run("quota", "enable", dir)
	run("subvolume", "create", limited)
	run("qgroup", "limit", "8M", limited)
	runFull(t, limited, syscall.EDQUOT, false, &kv.Options{Durability: kv.SyncManual, CheckpointBytes: 1 << 20}, func() { run("quota", "disable", dir) })
}

// leave fills the file system that path is on but for n bytes.
func leave(t *testing.T, path string, n int64) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	for size := int64(1 << 30); size >= 64<<10; {
		var st syscall.Statfs_t
		must(t, syscall.Fstatfs(int(f.Fd()), &st))
		free := int64(st.Bavail)*int64(st.Bsize) - n
		if size = min(size, free); size < 64<<10 {
			return
		}
		fi, err := f.Stat()
		must(t, err)
		if err := syscall.Fallocate(int(f.Fd()), 0, fi.Size(), size); err != nil {
			size /= 2
		}
	}
}

// runFull fills the space that there is in dir, and lifts the bound in the end.
// Errors for want of space match errno.
func runFull(t *testing.T, dir string, errno error, inPlace bool, opts *kv.Options, lift func()) {
	if raceDetector && !inPlace {
		t.Skip("SKIPPED: where an atomic store faults, the race detector's own code does, which ends the process")
	}
	path := filepath.Join(dir, "store")
	s := open(t, path, opts)
	want := map[string]string{}
	// full sees that err is for want of space, and tells whether it left a store
	// that takes writes.
	full := func(what string, err error) bool {
		t.Helper()
		var e *kv.Error
		switch poisoned := errors.Is(err, kv.ErrPoisoned); {
		case !errors.As(err, &e):
			t.Fatalf("%s: %v", what, err)
		case poisoned && inPlace:
			t.Fatalf("%s poisons: %v", what, err)
		case poisoned && !errors.Is(err, errno) && !errors.Is(err, kv.ErrFault):
			t.Fatalf("%s: %v, want %v or a fault", what, err, errno)
		case !poisoned && (!errors.Is(err, kv.ErrFull) || !errors.Is(err, errno)):
			t.Fatalf("%s: %v, want %v", what, err, errno)
		}
		if (s.Stats().Poisoned != nil) != errors.Is(err, kv.ErrPoisoned) {
			t.Fatalf("%s: %v, and poisoned: %v", what, err, s.Stats().Poisoned)
		}
		return s.Stats().Poisoned == nil
	}
	// half is the key of the write that poisoned: readers see it if it was its sync that
	// failed; when the store is opened again it may be there either way, and that stays.
	half, halfValue := "", ""
	settle := func(s *kv.Store) {
		t.Helper()
		if got, err := s.Get([]byte(half)); half != "" && err == nil {
			if string(got) != halfValue {
				t.Fatalf("%s has %d other bytes", half, len(got))
			}
			want[half] = halfValue
		} else {
			delete(want, half)
		}
		wantContents(t, s, want)
	}
	reopen := func() {
		t.Helper()
		if err := s.Close(); err != nil && (inPlace || !errors.Is(err, kv.ErrPoisoned)) {
			t.Fatalf("close: %v", err)
		}
		if again, err := kv.Open(path, opts); err == nil {
			must(t, again.Close())
		} else if inPlace || !errors.Is(err, kv.ErrFault) && !errors.Is(err, errno) {
			t.Fatalf("open: %v", err)
		} else {
			t.Logf("not opened to write: %v", err)
			settle(open(t, path, &kv.Options{ReadOnly: true}))
			lift()
			lift = func() {}
		}
		s = open(t, path, opts)
		settle(s)
		half = ""
	}
	if err := s.Put([]byte("large"), make([]byte, 40<<20)); !full("large put", err) {
		t.Fatalf("a growth that fails poisons: %v", err)
	}
	wantContents(t, s, want)
	writable := true
	for i := 0; writable; i++ {
		k, v := fmt.Sprint("key", i), string(valueOf(30_000, i))
		if err := s.Put([]byte(k), []byte(v)); err != nil {
			if writable = full("put", err); !writable {
				t.Logf("poisoned: %v", err)
				half, halfValue = k, v
			}
			break
		}
		want[k] = v
		if i > 10_000 {
			t.Fatal("never full")
		}
	}
	settle(s)
	if writable {
		if _, err := s.Compact(t.Context()); err == nil {
			t.Error("the live bytes fitted twice")
		} else {
			full("compact", err)
		}
		if _, err := os.Stat(path + ".mmapkv-next"); err == nil {
			t.Error("the compaction left its file")
		}
		wantContents(t, s, want)
	}
	if other, err := kv.Open(path+" other", opts); err == nil {
		must(t, other.Close()) // there was room for a small one
	} else {
		wantErr(t, err, kv.ErrFull)
		if left := filesAt(path + " other*"); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	reopen()
	lift()
	verify(t, s)
	if err := s.PutDurable([]byte("again"), valueOf(100_000, 1)); err != nil {
		t.Fatalf("with space again: %v", err)
	}
	want["again"] = string(valueOf(100_000, 1))
	_, err := s.Compact(t.Context())
	if err != nil {
		t.Fatalf("with space again: %v", err)
	}
	reopen()
	closeSound(t, s)
	runtime.GC() // the mappings keep the file system
}
