package mmapfile

import (
	"golang.org/x/sys/unix"
)

const (
	mapNoReserve = unix.MAP_NORESERVE
	allocateCall = "fcntl"
)

// allocate makes the file, now start bytes long, end bytes long with blocks of
// its own behind each new byte: contiguous ones if they can be had.
func allocate(fd int, start, end int64) error {
	if start >= end {
		return nil
	}
	var err error
	for _, flags := range []uint32{unix.F_ALLOCATECONTIG | unix.F_ALLOCATEALL, unix.F_ALLOCATEALL} {
		store := unix.Fstore_t{Flags: flags, Posmode: unix.F_PEOFPOSMODE, Length: end - start}
		err = ignoringEINTR(func() error { return unix.FcntlFstore(uintptr(fd), unix.F_PREALLOCATE, &store) })
		if err == nil {
			return ignoringEINTR(func() error { return unix.Ftruncate(fd, end) })
		}
	}
	if err == unix.ENOTSUP || err == unix.EOPNOTSUPP {
		return writeZeros(fd, start, end)
	}
	return err
}

// fullSync makes the file, or a directory's names, durable. fsync alone leaves
// them in the drive's cache. A file system that knows no flush has said all it
// can with fsync.
func fullSync(fd int) error {
	err := ignoringEINTR(func() error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_FULLFSYNC, 0)
		return err
	})
	if err == unix.ENOTSUP || err == unix.EOPNOTSUPP {
		err = ignoringEINTR(func() error { return unix.Fsync(fd) })
	}
	return err
}
