//go:build linux || darwin || freebsd

package mmapfile

import (
	"errors"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// span is a range of mapped addresses that is unmapped once, when the garbage
// collector has proved its owner (a Mapping, a Region) unreachable. Only then:
// addresses once unmapped may become Go heap, and a stale view would read or
// write somebody's memory.
type span struct {
	base     unsafe.Pointer // immutable until unmapped, then nil
	size     atomic.Int64   // bytes; shrinks by trim
	released atomic.Bool    // the File needs it no more; holders may
}

// addressBudget bounds what all spans of the process take together, in bytes: 2
// GiB, or 64 TiB. A Go program that cannot map memory for itself dies: in 32 bits
// it must be left room.
const addressBudget = 2 * maxReserveLen >> ((strconv.IntSize - 32) / 32)

// The kernel bounds the mappings of a process (Linux: vm.max_map_count, 65530
// areas by default, two to four a file), and a garbage collector that finds
// little garbage on its own heap sleeps while mappings pile up.
const (
	maxPending = 4096 // released spans above which a collection is worth its cost
	nudgeEvery = 1024 // further releases between two of them, in case all are held
)

var (
	mapped   atomic.Int64 // bytes of all spans
	pending  atomic.Int64 // spans released and not yet unmapped
	unmapped atomic.Int64 // spans unmapped ever
)

// mapSpan maps n bytes, of the file unless fd is -1. ENOMEM also stands for a
// budget that is spent.
func mapSpan(fd int, n int64, prot, flags int) (*span, error) {
	if mapped.Add(n) > addressBudget {
		mapped.Add(-n)
		return nil, unix.ENOMEM
	}
	base, err := unix.MmapPtr(fd, 0, nil, uintptr(n), prot, flags)
	if err != nil {
		mapped.Add(-n)
		return nil, err
	}
	s := &span{base: base}
	s.size.Store(n)
	return s, nil
}

// trim unmaps what lies beyond the first n bytes, but never the first page: base
// must not become an address in the Go heap.
func (s *span) trim(n int64) {
	n = max(n, pageSize)
	size := s.size.Load()
	if n < size && unix.MunmapPtr(unsafe.Add(s.base, n), uintptr(size-n)) == nil {
		s.size.Store(n)
		mapped.Add(n - size)
	}
}

// behead unmaps the first n bytes of a span that nobody uses yet.
func (s *span) behead(n int64) {
	head := s.base
	s.base = unsafe.Add(head, n)
	s.size.Add(-n)
	mapped.Add(-n)
	_ = unix.MunmapPtr(head, uintptr(n))
}

// release notes that only the holders of its Mapping keep s.
func (s *span) release() {
	if !s.released.CompareAndSwap(false, true) {
		return
	}
	if n := pending.Add(1); n > maxPending && n%nudgeEvery == 0 {
		go runtime.GC()
	}
}

// unmap gives the addresses back. It is called once.
func (s *span) unmap() {
	// The addresses may be Go heap in a moment: the collector must not find a
	// pointer to them.
	base, size := s.base, s.size.Load()
	s.base = nil
	// This cannot fail for a range of our own; and there is nobody to be told.
	_ = unix.MunmapPtr(base, uintptr(size))
	mapped.Add(-size)
	if s.released.Load() {
		pending.Add(-1)
	}
	unmapped.Add(1)
}

// reclaiming runs a mapping call and, if it ends for lack of address space, once
// more after a garbage collection: spans may wait for nothing else. The call
// must leave nothing behind when it fails.
func reclaiming(call func() error) error {
	err := call()
	if !errors.Is(err, unix.ENOMEM) {
		return err
	}
	before := unmapped.Load()
	runtime.GC()
	// Cleanups run on goroutines of the runtime: wait until they have begun and
	// then paused, at most 50 ms.
	for last, i := before, 0; i < 50; i++ {
		time.Sleep(time.Millisecond)
		now := unmapped.Load()
		if now > before && now == last {
			break
		}
		last = now
	}
	return call()
}
