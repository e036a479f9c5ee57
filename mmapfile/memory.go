//go:build linux || darwin || freebsd

package mmapfile

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// CreateMemory creates a file of size zero bytes that has no path, and maps it for
// reading and writing. It is gone with its last descriptor and its last mapping, in
// whatever process they are. perm says who may open it by OpenMemory; the bits to
// execute are left out. On Linux it takes memory and no disk; elsewhere it is a file of
// the directory for temporary ones that has lost its name. Errors are those of Create.
func CreateMemory(perm fs.FileMode, size int64) (*File, error) {
	if err := checkMachine("open", MemoryPath); err != nil {
		return nil, err
	}
	if size < 0 {
		return nil, pathError("open", MemoryPath, ErrRange)
	}
	fd, err := memoryFD()
	if err != nil {
		return nil, pathError("open", MemoryPath, err)
	}
	f, err := create(fd, MemoryPath, uint32(perm.Perm()&^0o111), size)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return f, nil
}

// OpenMemory opens a file that has no path by a descriptor of it, such as Reopen
// returned, be it in another process, and maps all of it. f may be closed afterwards.
// The two have no lock in common (see Reopen); where the system cannot do that, as on
// macOS and FreeBSD, mode must be ReadOnly.
//
// Errors are those of Open, and ErrNamed for a file that has a path.
func OpenMemory(f *os.File, mode Mode) (opened *File, err error) {
	if err := checkMachine("open", MemoryPath); err != nil {
		return nil, err
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, pathError("open", MemoryPath, err)
	}
	// Not f.Fd: that would make an f that does not block one that does.
	if conn.Control(func(fd uintptr) { opened, err = openMemory(int(fd), mode) }) != nil {
		err = pathError("open", MemoryPath, fs.ErrClosed)
	}
	return opened, err
}

func openMemory(of int, mode Mode) (*File, error) {
	var st unix.Stat_t
	err := ignoringEINTR(func() error { return unix.Fstat(of, &st) })
	if err == nil {
		err = checkRegular(&st)
	}
	if err == nil && st.Nlink > 0 {
		err = ErrNamed
	}
	fd := -1
	if err == nil {
		fd, err = reopen(of, mode)
	}
	if err != nil {
		return nil, pathError("open", MemoryPath, err)
	}
	f, err := newFile(fd, MemoryPath, mode)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return f, nil
}

// Reopen returns a descriptor of the file, to be read from, and to be given to another process for
// OpenMemory. On Linux it is opened anew, and no duplicate: that would have its
// locks in common with this File. They would not exclude each other, and a lock would
// outlive this process in the one that has the duplicate. Errors: fs.ErrClosed;
// errors.ErrUnsupported where /proc, by which it is opened, is not mounted.
func (f *File) Reopen() (*os.File, error) {
	fd := -1
	err := f.withFD("open", func(of int) (err error) {
		if fd, err = reopen(of, ReadOnly); err != nil {
			err = pathError("open", f.path, err)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.path), nil
}
