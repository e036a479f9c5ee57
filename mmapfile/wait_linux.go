package mmapfile

import (
	"math"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The operations of futex(2), without FUTEX_PRIVATE_FLAG: the kernel then knows the word by
// its file and offset, so that mappings of one file in any process share it.
const (
	futexWait = 0
	futexWake = 1
)

// Wait returns once the Word32 at off is another than seen, and Wake was called
// since, in whatever process and through whatever mapping of the file; at once if it is
// another already; after the timeout; or, seldom, for no reason. The word must have been
// changed before Wake is called. While it waits it takes a thread, and no
// processor. On macOS and FreeBSD it looks at the word again and again instead, first
// after a millisecond, and in the end every 20, and Wake does nothing.
func (m *Mapping) Wait(off int64, seen uint32, timeout time.Duration) {
	defer runtime.KeepAlive(m)
	limit := unix.NsecToTimespec(int64(timeout))
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(m.Word32(off))), futexWait, uintptr(seen),
		uintptr(unsafe.Pointer(&limit)), 0, 0)
	switch errno {
	case 0, unix.EAGAIN, unix.ETIMEDOUT, unix.EINTR:
	default: // the page is gone, or the process may not ask: the caller shall not spin
		time.Sleep(min(timeout, pollLast))
	}
}

// Wake ends every Wait for the Word32 at off. It is a system call.
func (m *Mapping) Wake(off int64) {
	// It does not block, so that the runtime need not hear of it.
	_, _, _ = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(m.Word32(off))), futexWake, math.MaxInt32, 0, 0, 0)
	runtime.KeepAlive(m)
}
