//go:build linux || darwin || freebsd

package mmapfile

import (
	"encoding/binary"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// TryLock takes the file's lock for this File, without waiting, and leaves the
// process's id as a little-endian 8-byte integer at holderOff in the file (not
// durable; it stays there afterwards). Close releases it, and so does the death
// of the process, in whatever way. It is an flock: it binds only those who ask
// for it, and excludes every other File, also of this process. Taken again by its
// holder it stays.
//
// If others hold it, the error is a *LockedError with the id of one of them, where the
// system tells it, or else the id found there, which
// for an instant after a change of holders is the earlier one's. Other errors:
// ErrReadOnly, ErrRange for a holderOff outside of the file, fs.ErrClosed.
func (f *File) TryLock(holderOff int64) error {
	if f.mode == ReadOnly {
		return pathError("flock", f.path, ErrReadOnly)
	}
	if !inside(holderOff, 8, f.Size()) {
		return pathError("flock", f.path, ErrRange)
	}
	return f.withFD("flock", func(fd int) error {
		err := ignoringEINTR(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
		if err == unix.EWOULDBLOCK {
			return f.lockedError(fd, holderOff)
		}
		if err != nil {
			return pathError("flock", f.path, err)
		}
		pid := binary.LittleEndian.AppendUint64(nil, uint64(os.Getpid()))
		if _, err := writeAll(fd, pid, holderOff); err != nil {
			_ = ignoringEINTR(func() error { return unix.Flock(fd, unix.LOCK_UN) })
			return pathError("pwrite", f.path, err)
		}
		f.locked.Store(true)
		return nil
	})
}

// lockedError says who has the lock: by what the system tells, else by what is noted at
// holderOff, if that is not 0.
func (f *File) lockedError(fd int, holderOff int64) error {
	st, err := f.fstat(fd)
	if err != nil {
		return err
	}
	pid, shared := lockHolder(&st)
	if pid == 0 && holderOff != 0 {
		pid = readPID(fd, holderOff)
	}
	return &LockedError{PID: pid, Shared: shared}
}

// readPID reads a process id; what cannot be one is 0.
func readPID(fd int, off int64) int {
	var b [8]byte
	var n int
	err := ignoringEINTR(func() (err error) {
		n, err = unix.Pread(fd, b[:], off)
		return err
	})
	pid := binary.LittleEndian.Uint64(b[:])
	if err != nil || n < len(b) || pid > math.MaxInt32 {
		return 0
	}
	return int(pid)
}
