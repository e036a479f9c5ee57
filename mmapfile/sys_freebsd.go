package mmapfile

import (
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	mapNoReserve = 0 // there is none, and shared mappings of files need none
	allocateCall = "posix_fallocate"
)

// allocate makes the file, now start bytes long, end bytes long with blocks of
// its own behind each new byte. ZFS, which cannot promise that, says EINVAL: then
// at least the length and the first write are paid for.
func allocate(fd int, start, end int64) error {
	if start >= end {
		return nil
	}
	err := ignoringEINTR(func() error { return posixFallocate(fd, start, end-start) })
	if err == unix.EINVAL || err == unix.EOPNOTSUPP || err == unix.ENOSYS {
		return writeZeros(fd, start, end)
	}
	return err
}

// posixFallocate returns what the call returns as its result, not in errno. How
// 32-bit machines pass the 64-bit arguments differs: there it is not used.
func posixFallocate(fd int, off, n int64) error {
	if strconv.IntSize == 32 {
		return unix.ENOSYS
	}
	r, _, errno := unix.Syscall(unix.SYS_POSIX_FALLOCATE, uintptr(fd), uintptr(off), uintptr(n))
	if errno != 0 {
		return errno
	}
	if r != 0 {
		return unix.Errno(r)
	}
	return nil
}

// fullSync makes the file, or a directory's names, durable.
func fullSync(fd int) error {
	return ignoringEINTR(func() error { return unix.Fsync(fd) })
}
