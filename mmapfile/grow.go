//go:build linux || darwin || freebsd

package mmapfile

import (
	"errors"
	"weak"

	"golang.org/x/sys/unix"
)

// Grow makes the file size bytes long, the new bytes zero, and maps them. The
// blocks are allocated first, so that a store into them cannot fail for want of
// space (on file systems that write in place). A size at or below the present
// one changes nothing. Growing in steps of megabytes costs little a byte; the new
// length is durable after SyncFile or a Sync that reaches into the new part.
//
// On failure nothing changed: blocks had in part are given back. ErrNoSpace: it
// works again when there is space. ErrShrunk: somebody else cut the file. Also
// ErrNoAddressSpace, ErrReadOnly, fs.ErrClosed.
func (f *File) Grow(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mode == ReadOnly {
		return pathError(allocateCall, f.path, ErrReadOnly)
	}
	return f.withFD(allocateCall, func(fd int) error {
		now, err := f.length(fd)
		if err != nil {
			return err
		}
		if now < f.size.Load() {
			return pathError(allocateCall, f.path, ErrShrunk)
		}
		if size <= now {
			return f.follow(fd, now)
		}
		if err = allocate(fd, now, size); err != nil {
			err = pathError(allocateCall, f.path, err)
		} else {
			err = f.follow(fd, size)
		}
		if err == nil {
			return nil
		}
		// ext4 keeps what it had allocated when it ran out of space.
		if undo := f.ftruncate(fd, now); undo != nil {
			err = errors.Join(err, undo)
		}
		return err
	})
}

// Refresh looks at the length that the file has now. If another process made it
// grow, the new part is mapped; if it shrank, Size tells so, and the mapping
// stays: touching its bytes beyond faults. It costs one system call when nothing
// changed. Errors: ErrNoAddressSpace, fs.ErrClosed; then nothing changed.
func (f *File) Refresh() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.withFD("lseek", func(fd int) error {
		size, err := f.length(fd)
		if err != nil {
			return err
		}
		return f.follow(fd, size)
	})
}

// Truncate shortens the file to size bytes. The bytes beyond, and in the holders'
// view the whole pages beyond, are gone; write protection is lifted from the page
// that holds the new end. Not durable until SyncFile. Errors: ErrRange for a size
// above the present one, ErrReadOnly, fs.ErrClosed.
func (f *File) Truncate(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mode == ReadOnly {
		return pathError("ftruncate", f.path, ErrReadOnly)
	}
	return f.withFD("ftruncate", func(fd int) error {
		now, err := f.length(fd)
		if err != nil {
			return err
		}
		if size < 0 || size > now {
			return pathError("ftruncate", f.path, ErrRange)
		}
		if err := f.ftruncate(fd, size); err != nil {
			return err
		}
		f.size.Store(size)
		return f.cut(size)
	})
}

func (f *File) ftruncate(fd int, size int64) error {
	if err := ignoringEINTR(func() error { return unix.Ftruncate(fd, size) }); err != nil {
		return pathError("ftruncate", f.path, err)
	}
	return nil
}

// follow maps what is new of a file of size bytes, then publishes size. The
// caller holds mu.
func (f *File) follow(fd int, size int64) error {
	m := f.mapping.Load()
	var err error
	switch {
	case size <= m.length.Load():
	case size <= m.span.size.Load():
		err = m.extend(size, f.prot())
	default:
		err = f.outgrow(fd, m, size)
	}
	if err != nil {
		return pathError("mmap", f.path, err)
	}
	f.size.Store(size)
	return nil
}

// outgrow publishes a mapping in a larger reservation. The old one stays as it is
// for its holders: both show the same pages.
func (f *File) outgrow(fd int, old *Mapping, size int64) error {
	m, err := newMapping(fd, f.prot(), size, nextReserve(size))
	if err != nil {
		return err
	}
	for _, s := range f.sealed {
		if err := m.protect(s.start, s.end, unix.PROT_READ); err != nil {
			return addressError(err)
		}
	}
	f.outgrown = append(f.outgrown, weak.Make(old))
	f.mapping.Store(m)
	old.release()
	return nil
}

// cut takes the pages beyond a file of size bytes out of the mapping.
func (f *File) cut(size int64) error {
	m := f.mapping.Load()
	length := m.length.Load()
	if size >= length {
		return nil
	}
	m.setLength(size)
	if start, end := pageCeil(size), pageCeil(length); start < end {
		// Should this fail, the pages stay accessible and fault as any pages
		// beyond the end of a file do; growing makes them accessible either way.
		_ = m.protect(start, end, unix.PROT_NONE)
		_ = unix.Madvise(m.slice(start, end), unix.MADV_NORMAL)
	}
	if f.unseal(pageFloor(size)) {
		if err := m.protect(pageFloor(size), pageCeil(size), f.prot()); err != nil {
			return pathError("mprotect", f.path, err)
		}
	}
	return nil
}
