//go:build linux || darwin || freebsd

package mmapfile

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePageSize is what the base of a Region for huge pages is aligned to.
const hugePageSize = 2 << 20

// Region is zeroed memory outside of the Go heap: it adds nothing to the work of
// the garbage collector, and takes memory only where it is touched. It is
// unmapped when the *Region becomes unreachable; Words does not keep it.
type Region struct {
	Words []uint64 // immutable header; capacity is length
}

// NewRegion maps n 8-byte words. With hugePages it is aligned for huge pages and
// the kernel is asked for them: then the first touch of each 2 MiB clears all of
// it. It takes whole pages; many small ones are better cut from one. Errors:
// ErrNoAddressSpace, ErrRange for a negative n.
func NewRegion(n int, hugePages bool) (*Region, error) {
	if n < 0 {
		return nil, fmt.Errorf("region of %d words: %w", n, ErrRange)
	}
	if n == 0 {
		return &Region{}, nil
	}
	if int64(n) > maxReserveLen/8 {
		return nil, fmt.Errorf("region of %d words: %w", n, ErrNoAddressSpace)
	}
	r := new(Region)
	var s *span
	err := reclaiming(func() (err error) {
		s, err = mapAnonymous(pageCeil(int64(n)*8), hugePages)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("region of %d words: %w", n, addressError(err))
	}
	r.Words = unsafe.Slice((*uint64)(s.base), n)
	runtime.AddCleanup(r, (*span).unmap, s)
	return r, nil
}

// AdviseHuge asks the kernel to make huge pages of the region's in the background,
// where it can: after it was filled, for a region that was made without.
func (r *Region) AdviseHuge() {
	if len(r.Words) > 0 {
		adviseHuge(unsafe.Slice((*byte)(unsafe.Pointer(&r.Words[0])), len(r.Words)*8))
	}
	runtime.KeepAlive(r)
}

// mapAnonymous maps size bytes of zeros. For huge pages it maps so much more that
// an aligned part of size bytes lies in it, and gives the ends back: that adds no
// area to the kernel's table, so it does not fail.
func mapAnonymous(size int64, hugePages bool) (*span, error) {
	total := size
	if hugePages {
		total += hugePageSize
	}
	s, err := mapSpan(-1, total, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|mapNoReserve)
	if err != nil || !hugePages {
		return s, err
	}
	if head := int64(-uintptr(s.base) % hugePageSize); head > 0 {
		s.behead(head)
	}
	s.trim(size)
	adviseHuge(unsafe.Slice((*byte)(s.base), size))
	return s, nil
}
