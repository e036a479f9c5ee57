package mmapfile

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// memoryFD makes an empty file in memory. Since Linux 6.3 the kernel wants to be told
// that nobody is to execute it; before, it does not know the flag.
func memoryFD() (fd int, err error) {
	for _, flags := range []int{unix.MFD_CLOEXEC | unix.MFD_NOEXEC_SEAL, unix.MFD_CLOEXEC} {
		err = ignoringEINTR(func() (err error) {
			fd, err = unix.MemfdCreate("mmapkv", flags)
			return err
		})
		if err != unix.EINVAL {
			break
		}
	}
	return fd, err
}

var errNoProc = fmt.Errorf("%w: a file without a path is opened through /proc, which is not mounted", errors.ErrUnsupported)

// reopen opens the file of a descriptor anew.
func reopen(fd int, mode Mode) (again int, err error) {
	again, err = openFD(fmt.Sprintf("/proc/self/fd/%d", fd), mode.flags(), 0)
	if err == unix.ENOENT {
		err = errNoProc
	}
	return again, err
}
