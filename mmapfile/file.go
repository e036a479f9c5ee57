//go:build linux || darwin || freebsd

package mmapfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"weak"

	"golang.org/x/sys/unix"
)

// File is an open file and its mapping. It takes one descriptor and no
// goroutine. A File that is dropped without Close keeps its descriptor.
type File struct {
	path   string // immutable: as given to Open
	mode   Mode   // immutable
	fsName string // immutable

	size    atomic.Int64            // file length as last seen; written under mu
	mapping atomic.Pointer[Mapping] // the current one; written under mu

	mu       sync.Mutex              // serialises what changes length, mapping or protection
	sealed   []interval              // guarded by mu: write-protected, page-aligned, ascending, disjoint
	outgrown []weak.Pointer[Mapping] // guarded by mu: earlier mappings that may be held

	fdMu   sync.RWMutex // taken after mu: shared by each use of fd, alone by Close
	fd     int          // guarded by fdMu: -1 after Close
	locked atomic.Bool  // the file lock is held by this File
}

// Open opens the regular file at path, following symbolic links, and maps the
// whole of it. An empty file is mapped with no bytes. Nothing is read and the
// file is not changed.
//
// Errors are *fs.PathError that name the system call and match, besides the
// operating system's own: ErrNotRegular, ErrRemote (ReadWrite only),
// ErrNoAddressSpace, errors.ErrUnsupported.
func Open(path string, mode Mode) (*File, error) {
	if err := checkMachine("open", path); err != nil {
		return nil, err
	}
	// Opening a device or a fifo may have effects; so look first, and again when
	// it is open, for it may be another file by then. O_NONBLOCK: a fifo that
	// slips in must not make open wait.
	var st unix.Stat_t
	if err := ignoringEINTR(func() error { return unix.Stat(path, &st) }); err != nil {
		return nil, pathError("stat", path, err)
	}
	if err := checkRegular(&st); err != nil {
		return nil, pathError("open", path, err)
	}
	fd, err := openFD(path, mode.flags()|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, pathError("open", path, err)
	}
	f, err := newFile(fd, path, mode)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return f, nil
}

// Create creates a file of size zero bytes, with all its blocks allocated, and
// maps it for reading and writing. The path must not exist, not even as a
// symbolic link (fs.ErrExist). The file gets exactly the permission bits of perm,
// whatever the umask. Neither the file nor its name is durable yet: see SyncFile
// and OpenDir. When Create fails after it made the file, it removes it.
//
// Errors are those of Open and Grow.
func Create(path string, perm fs.FileMode, size int64) (*File, error) {
	if err := checkMachine("open", path); err != nil {
		return nil, err
	}
	if size < 0 {
		return nil, pathError("open", path, ErrRange)
	}
	mode := uint32(perm.Perm())
	fd, err := openFD(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, mode)
	if err != nil {
		return nil, pathError("open", path, err)
	}
	f, err := create(fd, path, mode, size)
	if err != nil {
		_ = unix.Close(fd)
		_ = unix.Unlink(path)
		return nil, err
	}
	return f, nil
}

// create does to the new, empty file what Create promises.
func create(fd int, path string, mode uint32, size int64) (*File, error) {
	if err := ignoringEINTR(func() error { return unix.Fchmod(fd, mode) }); err != nil {
		return nil, pathError("fchmod", path, err)
	}
	if err := allocate(fd, 0, size); err != nil {
		return nil, pathError(allocateCall, path, err)
	}
	return newFile(fd, path, ReadWrite)
}

// newFile checks the open file and maps it. The descriptor stays the caller's
// when it fails.
func newFile(fd int, path string, mode Mode) (*File, error) {
	f := &File{path: path, mode: mode, fd: fd}
	st, err := f.fstat(fd)
	if err != nil {
		return nil, err
	}
	if err := checkRegular(&st); err != nil {
		return nil, pathError("open", path, err)
	}
	var remote bool
	f.fsName, remote = fileSystem(fd)
	if remote && mode != ReadOnly {
		return nil, pathError("open", path, fmt.Errorf("%w: %s", ErrRemote, f.fsName))
	}
	m, err := newMapping(fd, f.prot(), st.Size, firstReserve(st.Size))
	if err != nil {
		return nil, pathError("mmap", path, err)
	}
	f.mapping.Store(m)
	f.size.Store(st.Size)
	return f, nil
}

// Size is the length of the file in bytes as of the last Open, Grow, Refresh or
// Truncate of this File. It asks no system call.
func (f *File) Size() int64 { return f.size.Load() }

// Mapping returns the current mapping: one atomic load. It is another one only
// after a growth beyond the reservation.
func (f *File) Mapping() *Mapping { return f.mapping.Load() }

// FileSystem names the kind of file system as far as it is known, such as
// "ext4" or "fuse"; else it is empty. A FUSE file system may or may not keep
// mappings and locks coherent; its author knows.
func (f *File) FileSystem() string { return f.fsName }

// IsAt tells whether path, links followed, names this file. A path that does not
// exist does not.
func (f *File) IsAt(path string) (bool, error) {
	var at unix.Stat_t
	err := ignoringEINTR(func() error { return unix.Stat(path, &at) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, pathError("stat", path, err)
	}
	missing := err != nil
	var same bool
	err = f.withFD("fstat", func(fd int) error {
		st, err := f.fstat(fd)
		same = !missing && st.Dev == at.Dev && st.Ino == at.Ino
		return err
	})
	return same && err == nil, err
}

// Close releases the lock and closes the descriptor, at once, but for the end of
// calls that use it. The Mapping stays readable for whoever holds it or the
// File. Methods that need the descriptor return fs.ErrClosed from now on; Close
// again returns nil. Nothing is synced.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fdMu.Lock()
	defer f.fdMu.Unlock()
	if f.fd < 0 {
		return nil
	}
	if f.locked.Swap(false) {
		// A child being forked elsewhere in the program may hold a copy of the
		// descriptor until it execs, and with it the lock: so unlock first.
		unlockBytes(f.fd)
		_ = ignoringEINTR(func() error { return unix.Flock(f.fd, unix.LOCK_UN) })
	}
	err := unix.Close(f.fd)
	f.fd = -1
	f.mapping.Load().release()
	// EINTR: the descriptor is gone all the same.
	if err != nil && err != unix.EINTR {
		return pathError("close", f.path, err)
	}
	return nil
}

// withFD runs call with the descriptor, which is not closed meanwhile. Its
// errors are call's own, or fs.ErrClosed in a *fs.PathError of op.
func (f *File) withFD(op string, call func(fd int) error) error {
	f.fdMu.RLock()
	defer f.fdMu.RUnlock()
	if f.fd < 0 {
		return pathError(op, f.path, fs.ErrClosed)
	}
	return call(f.fd)
}

func (f *File) fstat(fd int) (st unix.Stat_t, err error) {
	if err = ignoringEINTR(func() error { return unix.Fstat(fd, &st) }); err != nil {
		err = pathError("fstat", f.path, err)
	}
	return st, err
}

// length asks how long the file is now. It does not ask for more, as fstat does: Linux
// gives a file whose times were asked for another one at its next store, and the next
// sync writes that to the file system's journal, which takes a third of its time.
func (f *File) length(fd int) (size int64, err error) {
	err = ignoringEINTR(func() (err error) {
		size, err = unix.Seek(fd, 0, io.SeekEnd)
		return err
	})
	if err != nil {
		err = pathError("lseek", f.path, err)
	}
	return size, err
}

// prot is the protection of accessible pages.
func (f *File) prot() int {
	if f.mode == ReadOnly {
		return unix.PROT_READ
	}
	return unix.PROT_READ | unix.PROT_WRITE
}

// offsetOf tells the file offset of an address in any mapping of f.
func (f *File) offsetOf(addr uintptr) (int64, bool) {
	if off, ok := f.mapping.Load().offsetOf(addr); ok {
		return off, true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.outgrown {
		if m := w.Value(); m != nil {
			if off, ok := m.offsetOf(addr); ok {
				return off, true
			}
		}
	}
	return 0, false
}

// flags are those of open.
func (m Mode) flags() int {
	if m == ReadOnly {
		return unix.O_RDONLY
	}
	return unix.O_RDWR
}

func openFD(path string, flags int, mode uint32) (fd int, err error) {
	err = ignoringEINTR(func() (err error) {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, mode)
		return err
	})
	return fd, err
}

// checkRegular refuses what is not a regular file, saying what it is.
func checkRegular(st *unix.Stat_t) error {
	kind := "unknown kind"
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFDIR:
		kind = "directory"
	case unix.S_IFIFO:
		kind = "fifo"
	case unix.S_IFSOCK:
		kind = "socket"
	case unix.S_IFCHR:
		kind = "character device"
	case unix.S_IFBLK:
		kind = "block device"
	}
	return fmt.Errorf("%w: %s", ErrNotRegular, kind)
}

// checkMachine refuses machines whose words in memory are not the file's.
func checkMachine(op, path string) error {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return pathError(op, path, fmt.Errorf("%w: big-endian machine", errors.ErrUnsupported))
	}
	return nil
}

// pathError wraps err with its system call and path; running out of space gets
// its sentinel.
func pathError(op, path string, err error) error {
	switch err {
	case unix.ENOSPC, unix.EDQUOT, unix.EFBIG:
		err = fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// ignoringEINTR repeats a system call that a signal interrupted; the Go runtime
// sends itself signals.
func ignoringEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
