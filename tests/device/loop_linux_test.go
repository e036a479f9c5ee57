//go:build amd64 || arm64

package device

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// attachLoop makes a block device of a file, past the page cache. It is detached
// when it is closed and not mounted.
func attachLoop(path string) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	// Not an os.File: the runtime would poll it, that is, ask the server in this
	// process in the midst of a system call that does not yield.
	backing, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(backing)
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("a free loop device: %w", err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(backing)}
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			return loop, nil
		}
		loop.Close()
		if err != unix.EBUSY { // else somebody else was first
			return nil, fmt.Errorf("%s: %w", loop.Name(), err)
		}
	}
}

// fileSystem is a kind of file system.
type fileSystem struct {
	name  string
	size  int64 // bytes of the device
	mkfs  []string
	mount string   // options
	whole []extent // see device
}

var fileSystems = []fileSystem{
	{"ext4", 64 << 20, []string{"-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"}, "", []extent{{1024, 1024}}},
	{"xfs", 300 << 20, []string{"-q", "-f"}, "nouuid", nil},
	{"btrfs", 128 << 20, []string{"-q", "-f"}, "", []extent{{64 << 10, 4096}, {64 << 20, 4096}}},
}

func fileSystemNamed(t testing.TB, name string) *fileSystem {
	for i := range fileSystems {
		if fileSystems[i].name == name {
			return &fileSystems[i]
		}
	}
	t.Fatalf("no file system %q", name)
	return nil
}

// format returns an empty file system.
func (k *fileSystem) format(t testing.TB) *image {
	t.Helper()
	path := filepath.Join(t.TempDir(), "formatted")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(k.size), f.Close()); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs."+k.name, append(k.mkfs, path)...).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: mkfs.%s: %v: %s", k.name, err, out)
	}
	m, err := loadImage(path)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	return m
}

// machine is a device in use.
type machine struct {
	shelf *shelf
	*device
	path string // of the device as a file; "": unplugged
	dir  string // where the file system is mounted; "": nowhere
}

// plug makes a machine of a device, with nothing mounted.
func (s *shelf) plug(t testing.TB, d *device) *machine {
	t.Helper()
	m := &machine{shelf: s, device: d, path: s.add(d)}
	t.Cleanup(func() {
		if err := m.unplug(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// mountError says that the kernel does not take the file system.
type mountError struct{ error }

// mount has the kernel recover and mount the file system. Another process makes
// the call, and nothing of the block device stays open in this one: a process that
// dies while the kernel waits for what only it can serve would never be gone.
func (m *machine) mount(k *fileSystem, options string) error {
	loop, err := attachLoop(m.path)
	if err != nil {
		return err
	}
	defer loop.Close() // the mount holds it
	dir, err := os.MkdirTemp(filepath.Dir(m.shelf.dir), "mnt")
	if err != nil {
		return err
	}
	options = strings.Trim("noatime,"+k.mount+","+options, ",")
	if out, err := exec.Command("mount", "-n", "-t", k.name, "-o", options, loop.Name(), dir).CombinedOutput(); err != nil {
		os.Remove(dir)
		return mountError{fmt.Errorf("mount -t %s -o %s: %w: %s", k.name, options, err, out)}
	}
	m.dir = dir
	return nil
}

// unmount ends the use of the file system, and of the block device. Where a process
// that died has it still in use, it waits for it.
func (m *machine) unmount() error {
	if m.dir == "" {
		return nil
	}
	dir := m.dir
	m.dir = ""
	deadline := time.Now().Add(10 * time.Second)
	for {
		out, err := exec.Command("umount", "-n", dir).CombinedOutput()
		if err == nil {
			return os.Remove(dir)
		}
		if time.Now().After(deadline) {
			exec.Command("umount", "-n", "-l", dir).Run()
			return fmt.Errorf("umount %s: %w: %s", dir, err, out)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// unplug takes everything apart. Once more is no error.
func (m *machine) unplug() error {
	if m.path == "" {
		return nil
	}
	m.quiet()
	err := m.unmount()
	m.shelf.remove(m.path)
	m.path = ""
	return err
}
