package mmapfile

import (
	"bufio"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// byteLocks is the offset of ByteLock 0.
const byteLocks = 1 << 62

// TryShare takes the file's lock (see TryLock) together with all others that share it,
// without waiting. If somebody has it alone, the error is a *LockedError. Close
// releases it.
func (f *File) TryShare() error {
	return f.withFD("flock", func(fd int) error {
		err := ignoringEINTR(func() error { return unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) })
		if err == unix.EWOULDBLOCK {
			return f.lockedError(fd, 0)
		}
		if err != nil {
			return pathError("flock", f.path, err)
		}
		f.locked.Store(true)
		return nil
	})
}

// TryLockByte takes a byte lock without waiting, for this File alone or together with
// others that share it, and tells whether it was to be had. Taken again it becomes
// what is asked for.
func (f *File) TryLockByte(b ByteLock, share bool) (had bool, err error) {
	kind := int16(unix.F_WRLCK)
	if share {
		kind = unix.F_RDLCK
	}
	err = f.byteLock(unix.F_OFD_SETLK, b, kind)
	if err == unix.EAGAIN || err == unix.EACCES {
		return false, nil
	}
	return err == nil, err
}

// UnlockByte releases a byte lock. To release one that is not held is no error.
func (f *File) UnlockByte(b ByteLock) error { return f.byteLock(unix.F_OFD_SETLK, b, unix.F_UNLCK) }

// ByteLocked tells whether another File holds a byte lock, alone or with others.
func (f *File) ByteLocked(b ByteLock) (bool, error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: byteLocks + int64(b), Len: 1}
	err := f.fcntl(unix.F_OFD_GETLK, &lock)
	return lock.Type != unix.F_UNLCK, err
}

func (f *File) byteLock(cmd int, b ByteLock, kind int16) error {
	return f.fcntl(cmd, &unix.Flock_t{Type: kind, Start: byteLocks + int64(b), Len: 1})
}

func (f *File) fcntl(cmd int, lock *unix.Flock_t) error {
	return f.withFD("fcntl", func(fd int) error {
		err := ignoringEINTR(func() error { return unix.FcntlFlock(uintptr(fd), cmd, lock) })
		if err != nil && err != unix.EAGAIN && err != unix.EACCES {
			err = pathError("fcntl", f.path, err)
		}
		return err
	})
}

// NameLock is a lock of a name in a directory, whatever file has the name at the time. All
// who take it hold it together, each as long as its NameLock is open and its process lives. It takes a
// descriptor, and its methods are for one goroutine.
type NameLock struct {
	dir *Dir
	off int64 // of the name's byte; two names may have the same, which is as likely as not to happen in 2^30 names
}

// OpenName opens the lock of the name that path ends with.
func OpenName(path string) (*NameLock, error) {
	dir, err := OpenDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	h := fnv.New64a()
	h.Write([]byte(filepath.Base(path)))
	return &NameLock{dir, int64(h.Sum64() >> 2)}, nil
}

// Share takes the lock.
func (l *NameLock) Share() error {
	return l.fcntl(unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK, Start: l.off, Len: 1})
}

// Shared tells whether another NameLock has the lock.
func (l *NameLock) Shared() (bool, error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: l.off, Len: 1}
	err := l.fcntl(unix.F_OFD_GETLK, &lock)
	return lock.Type != unix.F_UNLCK, err
}

// Close releases the lock.
func (l *NameLock) Close() {
	// First, as a child that is being forked may hold a copy of the descriptor.
	_ = l.fcntl(unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK, Start: l.off, Len: 1})
	l.dir.Close()
}

func (l *NameLock) fcntl(cmd int, lock *unix.Flock_t) error {
	err := ignoringEINTR(func() error { return unix.FcntlFlock(uintptr(l.dir.fd), cmd, lock) })
	if err != nil {
		return pathError("fcntl", l.dir.path, err)
	}
	return nil
}

// unlockBytes releases all byte locks of an open File.
func unlockBytes(fd int) {
	lock := unix.Flock_t{Type: unix.F_UNLCK, Start: byteLocks, Len: 1 << 8}
	_ = ignoringEINTR(func() error { return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lock) })
}

// lockHolder returns a process that has the file's lock, and whether it shares it; or
// 0 where that cannot be told.
func lockHolder(st *unix.Stat_t) (pid int, shared bool) {
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return 0, false
	}
	defer locks.Close()
	return findHolder(locks, lockedFile(st))
}

// findHolder looks for an flock on a file in what /proc/locks says.
func findHolder(locks io.Reader, file string) (pid int, shared bool) {
	for lines := bufio.NewScanner(locks); lines.Scan(); {
		if l := parseLock(lines.Text()); l.kind == "FLOCK" && l.file == file {
			return max(0, l.pid), l.access == "READ"
		}
	}
	return 0, false
}

// lockedFile is what the kernel's list of locks calls a file.
func lockedFile(st *unix.Stat_t) string {
	return fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
}

// lockLine is a line of that list.
type lockLine struct {
	kind, access string
	pid          int // as this process sees it; -1: the lock belongs to no process
	file         string
	start        int64 // offset of the first byte
}

// parseLock reads such a line:
//
//	1: FLOCK  ADVISORY  WRITE 4711 fd:00:131 0 EOF
//
// One that waits for a lock, which has an arrow behind the number, is nothing.
func parseLock(line string) lockLine {
	words := strings.Fields(line)
	if len(words) < 7 || words[1] == "->" {
		return lockLine{}
	}
	pid, _ := strconv.Atoi(words[4])
	start, _ := strconv.ParseInt(words[6], 10, 64)
	return lockLine{kind: words[1], access: words[3], pid: pid, file: words[5], start: start}
}
