//go:build darwin || freebsd

package mmapfile

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// errNoByteLocks: FreeBSD has no locks that belong to an open file, and macOS counts them
// and flock as one. Locks that belong to a process would be lost with the first of its
// descriptors of the file that is closed.
var errNoByteLocks = fmt.Errorf("locks of bytes by open files: %w", errors.ErrUnsupported)

func (f *File) TryShare() error { return pathError("flock", f.path, errNoByteLocks) }
func (f *File) TryLockByte(ByteLock, bool) (bool, error) {
	return false, pathError("fcntl", f.path, errNoByteLocks)
}
func (f *File) UnlockByte(ByteLock) error { return pathError("fcntl", f.path, errNoByteLocks) }
func (f *File) ByteLocked(ByteLock) (bool, error) {
	return false, pathError("fcntl", f.path, errNoByteLocks)
}

func unlockBytes(int) {}

func lockHolder(*unix.Stat_t) (pid int, shared bool) { return 0, false }

// NameLock does not exist on this system.
type NameLock struct{}

// OpenName returns an error that matches errors.ErrUnsupported.
func OpenName(path string) (*NameLock, error) { return nil, pathError("fcntl", path, errNoByteLocks) }

func (l *NameLock) Share() error          { return errNoByteLocks }
func (l *NameLock) Shared() (bool, error) { return false, errNoByteLocks }
func (l *NameLock) Close()                {}
