package tests

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/mmapkv/mmapkv/kv"
)

const rlimitAS = syscall.RLIMIT_AS

// openCramped opens the store with less and less address space to spare, so
// that all of the failures lie between the first and the last step.
func openCramped(path string) error {
	// The Go heap takes address space too, 64 MiB at a time, and where it gets none
	// the runtime ends the process, whatever the store does. So it gets its share
	// before, and never gives it back.
	ballast := make([]byte, 1<<30)
	runtime.KeepAlive(ballast)
	ballast = nil
	runtime.GC()
	for _, spare := range []uint64{64 << 30, 6 << 30, 1 << 30, 256 << 20, 100 << 20, 64 << 20, 40 << 20, 30 << 20} {
		limit := syscall.Rlimit{Cur: addressSpace() + spare, Max: 1 << 62}
		if err := syscall.Setrlimit(rlimitAS, &limit); err != nil {
			return err
		}
		s, err := kv.Open(path, nil)
		if err == nil {
			for i := range 200 {
				if err = s.Put(fmt.Append(nil, "new", i), valueOf(100000, i)); err != nil {
					break
				}
			}
			if err == nil {
				var v []byte
				if v, err = s.Get([]byte("7")); err == nil && string(v) != string(valueOf(5000, 7)) {
					return errors.New("wrong value")
				}
			}
			_, compactErr := s.Compact(context.Background())
			err = errors.Join(err, compactErr, s.Close())
		}
		syscall.Setrlimit(rlimitAS, &syscall.Rlimit{Cur: 1 << 62, Max: 1 << 62})
		fmt.Printf("%d MiB: %v\n", spare>>20, err)
		if err != nil && !errors.Is(err, kv.ErrFull) {
			return err
		}
	}
	return nil
}

// addressSpace is what the process has mapped, in bytes.
func addressSpace() uint64 {
	b, _ := os.ReadFile("/proc/self/statm")
	pages, _ := strconv.ParseUint(strings.Fields(string(b))[0], 10, 64)
	return pages * uint64(os.Getpagesize())
}
