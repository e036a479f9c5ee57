//go:build amd64 || arm64

package device

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// shelf is a FUSE file system whose files are devices.
type shelf struct {
	fs.Inode
	dir   string
	count atomic.Int64
}

// newShelf mounts a shelf until the test ends.
func newShelf(t testing.TB) *shelf {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: file systems of the test's own need root")
	}
	s := &shelf{dir: t.TempDir()}
	server, err := fs.Mount(s.dir, s, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMountStrict: true, FsName: "mmapkv-test", MaxWrite: 512 << 10, DisableXAttrs: true, MaxBackground: 64,
	}})
	if err != nil {
		t.Skipf("SKIPPED: mounting FUSE: %v", err)
	}
	closeOnExec(t)
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Errorf("unmounting FUSE: %v", err)
			unix.Unmount(s.dir, unix.MNT_DETACH)
		}
	})
	return s
}

// closeOnExec keeps the connections to the kernel from children, which the library
// does not do: while one has them, requests that this process left behind when it
// died wait for an answer, and the child with them.
func closeOnExec(t testing.TB) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	for _, e := range fds {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == "/dev/fuse" {
			unix.CloseOnExec(fd)
			kept++
		}
	}
	if kept == 0 {
		t.Fatal("no connection to FUSE was found")
	}
}

// add makes d a file, and returns its path.
func (s *shelf) add(d *device) string {
	name := "disk-" + strconv.FormatInt(s.count.Add(1), 10)
	child := s.NewPersistentInode(context.Background(), &deviceFile{device: d}, fs.StableAttr{Mode: unix.S_IFREG})
	s.AddChild(name, child, true)
	return filepath.Join(s.dir, name)
}

// remove forgets the device of a path.
func (s *shelf) remove(path string) { s.RmChild(filepath.Base(path)) }

// deviceFile is a device as a file.
type deviceFile struct {
	fs.Inode
	device *device
}

var (
	_ fs.NodeGetattrer = (*deviceFile)(nil)
	_ fs.NodeOpener    = (*deviceFile)(nil)
	_ fs.NodeReader    = (*deviceFile)(nil)
	_ fs.NodeWriter    = (*deviceFile)(nil)
	_ fs.NodeFsyncer   = (*deviceFile)(nil)
	_ fs.NodeAllocater = (*deviceFile)(nil)
)

func (f *deviceFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blksize = unix.S_IFREG|0o600, uint64(f.device.now.size), 4096
	return 0
}

// Open asks the kernel to cache nothing: requests come as the loop device issues
// them.
func (f *deviceFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (f *deviceFile) Read(_ context.Context, _ fs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	errno := f.device.read(p, off)
	return fuse.ReadResultData(p), errno
}

func (f *deviceFile) Write(_ context.Context, _ fs.FileHandle, p []byte, off int64) (uint32, syscall.Errno) {
	if errno := f.device.write(p, off); errno != 0 {
		return 0, errno
	}
	return uint32(len(p)), 0
}

func (f *deviceFile) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	return f.device.flush()
}

// Allocate is how a loop device discards and writes zeros.
func (f *deviceFile) Allocate(_ context.Context, _ fs.FileHandle, off, n uint64, mode uint32) syscall.Errno {
	if mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) == 0 {
		return syscall.EOPNOTSUPP
	}
	return f.device.discard(int64(off), int64(n))
}
