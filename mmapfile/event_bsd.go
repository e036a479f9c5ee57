//go:build darwin || freebsd

package mmapfile

import (
	"sync/atomic"
	"time"
)

func wait(word *atomic.Uint32, seen uint32, timeout time.Duration) {
	if word.Load() == seen {
		time.Sleep(min(timeout, pollEvery))
	}
}

func wake(*atomic.Uint32, int) (slept int) { return 0 }
