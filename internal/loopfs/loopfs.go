// Package loopfs gives a test a small file system of its own, to fill or to
// unmount, where the machine and the user's rights allow it.
package loopfs

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// Mount makes a file system of the given type and of size bytes, mounts it, and
// returns the directory; both are gone when the test ends. The type is "tmpfs" or
// one that has a mkfs program, such as "ext4" (from about 1 MiB on), "xfs" (300
// MiB) or "btrfs" (110 MiB): its blocks are then in the file Image(dir). Where it cannot be done (not Linux, not root, no mkfs,
// no loop device) the test is skipped, and says why.
func Mount(t testing.TB, fstype string, size int64) (dir string) {
	t.Helper()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skipf("SKIPPED: mounting %s needs Linux and root", fstype)
	}
	base := t.TempDir()
	dir = filepath.Join(base, "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	mount := []string{"-t", "tmpfs", "-o", "size=" + strconv.FormatInt(size, 10), "tmpfs", dir}
	if fstype != "tmpfs" {
		image := Image(dir)
		format(t, fstype, image, size)
		mount = []string{"-t", fstype, "-o", "loop", image, dir}
	}
	if out, err := exec.Command("mount", mount...).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: mount %s: %v: %s", fstype, err, out)
	}
	t.Cleanup(func() {
		// Lazily, for a mapping that a test left to the garbage collector keeps
		// the file system busy.
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v: %s", dir, err, out)
		}
	})
	return dir
}

// Image names the file that holds the blocks of the file system mounted at dir:
// what the device was told to write, and no cache of the file system.
func Image(dir string) string { return filepath.Join(filepath.Dir(dir), "image") }

// format makes a file system in a new file at image.
func format(t testing.TB, fstype, image string, size int64) {
	t.Helper()
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	args := []string{"-q"}
	if strings.HasPrefix(fstype, "ext") {
		args = append(args, "-F", "-m", "0")
	}
	if out, err := exec.Command("mkfs."+fstype, append(args, image)...).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: mkfs.%s: %v: %s", fstype, err, out)
	}
}
