//go:build linux || darwin || freebsd

package mmapfile

import (
	"runtime"
	"slices"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// interval is the bytes [start, end) of a file.
type interval struct{ start, end int64 }

// Protect makes the whole pages inside [off, off+n) read-only in the mapping, so
// that a stray store of the program into them faults instead of changing the
// file. WriteAt still writes there. Ranges that touch count as one; each separate
// one costs the kernel two more areas. Holders of an outgrown mapping have the
// protection of its time. Errors: ErrRange, or mprotect's.
func (f *File) Protect(off, n int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.mapping.Load()
	if !inside(off, n, m.length.Load()) {
		return pathError("mprotect", f.path, ErrRange)
	}
	s := interval{pageCeil(off), pageFloor(off + n)}
	if s.start >= s.end || f.mode == ReadOnly {
		return nil
	}
	if err := m.protect(s.start, s.end, unix.PROT_READ); err != nil {
		return pathError("mprotect", f.path, addressError(err))
	}
	f.seal(s)
	return nil
}

// seal adds s to the sealed intervals, merging those it touches.
func (f *File) seal(s interval) {
	merged := make([]interval, 0, len(f.sealed)+1)
	var after []interval
	for _, t := range f.sealed {
		switch {
		case t.end < s.start:
			merged = append(merged, t)
		case t.start > s.end:
			after = append(after, t)
		default:
			s = interval{min(s.start, t.start), max(s.end, t.end)}
		}
	}
	f.sealed = append(append(merged, s), after...)
}

// unseal forgets what is sealed from off on, and tells whether the byte at off
// was.
func (f *File) unseal(off int64) (was bool) {
	var kept []interval
	for _, t := range f.sealed {
		was = was || t.start <= off && off < t.end
		if t.end = min(t.end, off); t.start < t.end {
			kept = append(kept, t)
		}
	}
	f.sealed = kept
	return was
}

// Populate makes the kernel bring in the pages that hold [off, off+n), writable
// in a ReadWrite file, so that the first store into each does not wait for it.
// What lies outside of the mapping is left out. It is best effort: what it cannot
// do the first touch will do, or fail to do. It takes the time of the page faults
// that it saves.
func (f *File) Populate(off, n int64) {
	m := f.mapping.Load()
	write := f.mode == ReadWrite
	// The kernel holds the lock of the address space meanwhile, for which a growing
	// file, new memory of the heap, and then every page fault wait: so piece by piece.
	for piece := range slices.Chunk(m.pages(off, n), populatePiece) {
		if !populate(piece, write) && write {
			f.touch(piece)
		}
	}
	runtime.KeepAlive(m)
}

// populatePiece is a multiple of every page size.
const populatePiece = 256 << 10 // bytes

// touch dirties one word of each page without changing it, also when others
// write it at the same time. The first page that cannot be had ends it.
func (f *File) touch(b []byte) {
	var err error
	guard := EnterGuard()
	defer guard.Exit(f, &err)
	for i := int64(0); i < int64(len(b)); i += pageSize {
		atomic.AddUint64((*uint64)(unsafe.Pointer(&b[i])), 0)
	}
}

// AdviseRandom tells the kernel that the pages which hold [off, off+n) are used
// in no order: it then neither reads ahead nor caches them in larger units, and
// a Sync of one page writes one page. Best effort; it concerns pages brought in
// from now on. A mapping that outgrew its reservation starts without advice, and so
// does what Truncate cuts off.
func (f *File) AdviseRandom(off, n int64) {
	m := f.mapping.Load()
	if b := m.pages(off, n); len(b) > 0 {
		_ = unix.Madvise(b, unix.MADV_RANDOM)
	}
	runtime.KeepAlive(m)
}

// inside tells whether [off, off+n) lies in [0, length).
func inside(off, n, length int64) bool {
	return off >= 0 && n >= 0 && off <= length && n <= length-off
}
