//go:build darwin || freebsd

package mmapfile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// memoryFD makes an empty file and takes its name away.
func memoryFD() (fd int, err error) {
	f, err := os.CreateTemp("", "mmapkv-")
	if err != nil {
		return -1, err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return -1, err
	}
	return duplicate(int(f.Fd()))
}

var errNotAnew = fmt.Errorf("%w: a file without a path cannot be opened anew, with locks of its own", errors.ErrUnsupported)

// reopen duplicates the descriptor: for whoever takes no lock that is as good.
func reopen(fd int, mode Mode) (int, error) {
	if mode != ReadOnly {
		return -1, errNotAnew
	}
	return duplicate(fd)
}

func duplicate(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }
