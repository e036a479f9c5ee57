//go:build darwin || freebsd

package mmapfile

import (
	"runtime"
	"time"
)

// Wait is as on Linux, but that it looks at the word again and again: after a
// millisecond, and then less and less often, in the end every 20.
func (m *Mapping) Wait(off int64, seen uint32, timeout time.Duration) {
	defer runtime.KeepAlive(m)
	deadline := time.Now().Add(timeout)
	for pause := time.Millisecond; m.Word32(off).Load() == seen; pause = min(2*pause, pollLast) {
		left := time.Until(deadline)
		if left <= 0 {
			return
		}
		time.Sleep(min(pause, left))
	}
}

// Wake does nothing: who waits looks for itself.
func (m *Mapping) Wake(int64) {}
