//go:build linux || darwin || freebsd

package mmapfile

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes of reservations in bytes. Address space costs no memory, but there are
// only 47 bits of it: 127 reservations of 1 TiB, and a program may open
// thousands of files. So a file starts with a small one, and the few files that
// outgrow theirs get one that they will hardly outgrow; when addressBudget runs
// low they get less. Tests make them smaller.
var (
	firstReserveLen int64 = 4 << 30
	nextReserveLen  int64 = 1 << 40
)

// maxReserveLen bounds a reservation, and with it the file that can be mapped: 1
// GiB, or 64 TiB.
const maxReserveLen int64 = 1 << (30 + (strconv.IntSize-32)/2)

func init() {
	if strconv.IntSize == 32 {
		firstReserveLen, nextReserveLen = 64<<20, maxReserveLen
	}
}

// pageSize is the machine's, in bytes: for the alignment of system calls, never
// for the layout of a file.
var pageSize = int64(unix.Getpagesize())

func pageFloor(off int64) int64 { return off &^ (pageSize - 1) }
func pageCeil(off int64) int64  { return pageFloor(off + pageSize - 1) }

// Mapping is a view of a file from its first byte on. It grows in place with
// its File; holders see that at once. Its methods take no lock, may be called
// from any goroutine, and stay valid after the File is closed.
type Mapping struct {
	base   unsafe.Pointer // immutable: page-aligned
	length atomic.Int64   // published under File.mu, after the pages are accessible
	peak   int64          // guarded by File.mu: the largest length so far; slices may reach there
	span   *span          // immutable
}

// Bytes returns the mapped part of the file, without copying; its capacity is
// its length. The slice is valid only while the Mapping is reachable: callers
// end with runtime.KeepAlive(m). Its length is that of the moment of the call.
// Other processes may change its bytes at any time. Where the file has shrunk
// since, touching the bytes beyond faults; see Guard.
func (m *Mapping) Bytes() []byte {
	return unsafe.Slice((*byte)(m.base), m.length.Load())
}

// Word returns the 8 bytes at off as an atomic word in the machine's byte order
// (little-endian, as Open assures). It is valid as long as Bytes. An offset that
// is not a multiple of 8 or not inside the mapped bytes is a programmer's error,
// and panics.
func (m *Mapping) Word(off int64) *atomic.Uint64 {
	if off&7 != 0 || uint64(off) >= uint64(m.length.Load()&^7) { // a negative off is a huge one
		panic(wordError(off))
	}
	return (*atomic.Uint64)(unsafe.Add(m.base, off))
}

// Word32 is Word of the 4 bytes at off, which must be a multiple of 4.
func (m *Mapping) Word32(off int64) *atomic.Uint32 {
	if off&3 != 0 || uint64(off) >= uint64(m.length.Load()&^3) {
		panic(wordError(off))
	}
	return (*atomic.Uint32)(unsafe.Add(m.base, off))
}

// pollLast is the longest pause of a Wait that looks for itself.
const pollLast = 20 * time.Millisecond

// wordError is what Word panics with; a type of its own lets Word inline.
type wordError int64

func (off wordError) Error() string {
	return fmt.Sprintf("mmapfile: no aligned word of the mapping at offset %d", int64(off))
}

// pages returns the accessible pages that hold any of [off, off+n), as far as
// there are any.
func (m *Mapping) pages(off, n int64) []byte {
	length := m.length.Load()
	if off < 0 || n <= 0 || off >= length {
		return nil
	}
	return m.slice(pageFloor(off), pageCeil(off+min(n, length-off)))
}

// slice returns the bytes [start, end) of the reservation.
func (m *Mapping) slice(start, end int64) []byte {
	return unsafe.Slice((*byte)(unsafe.Add(m.base, start)), end-start)
}

// protect sets the protection of the pages [start, end) of the reservation; both
// are page-aligned.
func (m *Mapping) protect(start, end int64, prot int) error {
	if start >= end {
		return nil
	}
	return unix.Mprotect(m.slice(start, end), prot)
}

// extend makes the pages up to length accessible; they lie in the reservation.
// The page that holds the present end is accessible already.
func (m *Mapping) extend(length int64, prot int) error {
	start, end := pageCeil(m.length.Load()), pageCeil(length)
	if err := reclaiming(func() error { return m.protect(start, end, prot) }); err != nil {
		return addressError(err)
	}
	m.setLength(length)
	return nil
}

func (m *Mapping) setLength(length int64) {
	m.peak = max(m.peak, length)
	m.length.Store(length)
}

// release leaves the mapping to its holders. It grows no more, so the part of the
// reservation that no slice reaches is given back at once: holders of many, and a
// 32-bit process, then keep little.
func (m *Mapping) release() {
	m.span.trim(pageCeil(m.peak))
	m.span.release()
}

// offsetOf tells the file offset of an address in the reservation.
func (m *Mapping) offsetOf(addr uintptr) (int64, bool) {
	d := addr - uintptr(m.base)
	return int64(d), d < uintptr(m.span.size.Load())
}

// newMapping reserves address space, at best want bytes of it, over the file and
// makes the first length bytes of it accessible.
func newMapping(fd int, prot int, length, want int64) (*Mapping, error) {
	need := max(pageCeil(length), pageSize)
	want = min(max(pageCeil(want), need), maxReserveLen)
	if need > want {
		return nil, addressError(unix.ENOMEM)
	}
	m := new(Mapping)
	err := reclaiming(func() (err error) {
		if m.span, err = reserve(fd, want, need); err != nil {
			return err
		}
		m.base = m.span.base
		if err = m.protect(0, pageCeil(length), prot); err != nil {
			m.base = nil
			m.span.unmap()
		}
		return err
	})
	if err != nil {
		return nil, addressError(err)
	}
	m.setLength(length)
	// The span does not point to m: else m would never be unreachable.
	runtime.AddCleanup(m, (*span).unmap, m.span)
	return m, nil
}

// reserve maps want bytes of the file without access to them, or, where that
// much cannot be had, half of it and so on down to need. The whole reservation
// is over the file from the start, so growing is mprotect: there is never a
// moment in which a part of the range is unmapped and could become another's.
// A small largest file size of the file system (EOVERFLOW) halves like ENOMEM.
func reserve(fd int, want, need int64) (*span, error) {
	// Three quarters of the budget are for room to grow, the last for what files
	// need; a file always tries for twice its need, so that it moves seldom.
	left := addressBudget/4*3 - mapped.Load()
	want = max(min(want, max(pageFloor(left/2), 2*need)), need)
	for n := want; ; n = max(pageCeil(n/2), need) {
		s, err := mapSpan(fd, n, unix.PROT_NONE, unix.MAP_SHARED|mapNoReserve)
		if err == nil && n < want {
			// The process is short of address space, and its heap and threads need some
			// too: the runtime ends the program that has none left.
			s.trim(max(pageCeil(n/4), need))
		}
		if err == nil || n == need {
			return s, err
		}
	}
}

// firstReserve is the reservation for a file that is opened with length bytes.
func firstReserve(length int64) int64 { return max(firstReserveLen, double(length)) }

// nextReserve is the reservation for a file that outgrew one.
func nextReserve(length int64) int64 { return max(nextReserveLen, double(length)) }

func double(n int64) int64 { return min(n, math.MaxInt64/4) * 2 }

// addressError gives ENOMEM of a mapping call its sentinel.
func addressError(err error) error {
	if errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("%w: %w", ErrNoAddressSpace, err)
	}
	return err
}
