//go:build linux || darwin || freebsd

package mmapfile

import (
	"fmt"
	"runtime"
	"slices"
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

// MakeHuge makes huge pages of the region's, where the kernel can: after it was filled,
// for a region that was made without. It copies all of it, 2 MiB at a time, for which
// those wait that touch them meanwhile; more is called before each, until it returns false.
func (r *Region) MakeHuge(more func() bool) {
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(r.Words))), len(r.Words)*8)
	adviseHuge(b)
	for piece := range slices.Chunk(b, hugePageSize) {
		if !more() {
			break
		}
		collapse(piece)
	}
	runtime.KeepAlive(r)
}

// mapAnonymous maps size bytes of zeros. Where there is room for a huge page it maps so
// much more that an aligned part of size bytes lies in it, and gives the ends back: that
// adds no area to the kernel's table, so it does not fail.
func mapAnonymous(size int64, hugePages bool) (*span, error) {
	total := size
	aligned := hugePages || size >= hugePageSize
	if aligned {
		total += hugePageSize
	}
	s, err := mapSpan(-1, total, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|mapNoReserve)
	if err != nil || !aligned {
		return s, err
	}
	if head := int64(-uintptr(s.base) % hugePageSize); head > 0 {
		s.behead(head)
	}
	s.trim(size)
	if hugePages {
		adviseHuge(unsafe.Slice((*byte)(s.base), size))
	}
	return s, nil
}
