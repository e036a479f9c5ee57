package mmapfile

import (
	"runtime"
	"runtime/debug"
)

// Guard turns memory faults of one goroutine into errors, from EnterGuard to
// Exit:
//
//	func (s *T) read() (err error) {
//		guard := mmapfile.EnterGuard()
//		defer guard.Exit(s.file, &err)
//		...
//	}
//
// Guards nest. Code on other goroutines is not covered, nor are system calls
// that are given mapped bytes: those return EFAULT themselves. What a faulted
// function had half done stays half done. In builds with the race detector an
// atomic store into a page that is readable only ends the process nevertheless,
// for there it is the detector's own code that faults.
type Guard struct {
	old bool // the goroutine's setting before
}

// EnterGuard makes faults of this goroutine panic, instead of ending the
// process.
func EnterGuard() Guard {
	return Guard{old: debug.SetPanicOnFault(true)}
}

// Exit ends the guard and must be deferred directly, for it recovers. A fault
// at an address inside one of f's reservations becomes a *FaultError in *err.
// Every other panic goes on with the same value. With a nil f nothing is
// recovered.
func (g Guard) Exit(f *File, err *error) {
	debug.SetPanicOnFault(g.old)
	if f == nil {
		return
	}
	r := recover()
	if r == nil {
		return
	}
	if fault, ok := r.(interface {
		runtime.Error
		Addr() uintptr
	}); ok {
		if off, ok := f.offsetOf(fault.Addr()); ok {
			*err = &FaultError{Off: off}
			return
		}
	}
	panic(r)
}
