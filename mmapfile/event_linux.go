package mmapfile

import (
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The operations of the futex call, without FUTEX_PRIVATE_FLAG: the kernel then knows a
// word by its file and offset, and not by its address.
const (
	futexWait = 0
	futexWake = 1
)

func wait(word *atomic.Uint32, seen uint32, timeout time.Duration) {
	ts := unix.NsecToTimespec(timeout.Nanoseconds())
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWait, uintptr(seen), uintptr(unsafe.Pointer(&ts)), 0, 0)
	switch errno {
	case 0, unix.EAGAIN, unix.EINTR, unix.ETIMEDOUT: // the caller looks again
	default:
		// There is no such call, or the page is gone: who looks again at once would spin.
		time.Sleep(min(timeout, pollEvery))
	}
}

func wake(word *atomic.Uint32, n int) (slept int) {
	woken, _, errno := unix.Syscall(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWake, uintptr(n))
	if errno != 0 {
		return 0
	}
	return int(woken)
}
