//go:build linux || darwin || freebsd

package mmapfile

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// forgetFrom is the length of a Sync from which its pages are taken out of the page
// table before.
const forgetFrom = 64 << 10

// Sync makes the bytes [off, off+n) durable, whoever wrote them, through whatever
// mapping or WriteAt: it writes exactly the dirty ones of the pages that hold
// them and then has the device flush its cache. It waits for that without
// holding up the other methods. No bytes: nothing is done. From 64 KiB on who touches
// the pages next has a minor fault.
//
// Errors: ErrRange outside of the mapping; ErrShrunk if the file ends before
// off+n, of which the kernel itself would say nothing; fs.ErrClosed; else the
// device's. After one of those the kernel may hold lost pages for clean: what was
// not synced before is not durable, and syncing again does not make it so.
func (f *File) Sync(off, n int64) error {
	m := f.mapping.Load()
	if !inside(off, n, m.length.Load()) {
		return pathError("msync", f.path, ErrRange)
	}
	if n == 0 {
		return nil
	}
	err := f.withFD("msync", func(fd int) error {
		pages := m.slice(pageFloor(off), pageCeil(off+n))
		if n >= forgetFrom {
			forget(m.slice(pageCeil(off), pageFloor(off+n)))
		}
		if err := ignoringEINTR(func() error { return unix.Msync(pages, unix.MS_SYNC) }); err != nil {
			return pathError("msync", f.path, err)
		}
		if err := flushAfterMsync(fd); err != nil {
			return pathError("fcntl", f.path, err)
		}
		// After the msync, for that returns nil over pages which are no more.
		size, err := f.length(fd)
		if err == nil && size < off+n {
			err = pathError("msync", f.path, ErrShrunk)
		}
		return err
	})
	runtime.KeepAlive(m)
	return err
}

// SyncFile makes the whole file durable: all bytes, its length and its metadata.
// Its name is the directory's, see OpenDir. Errors as those of Sync.
func (f *File) SyncFile() error {
	return f.withFD("fsync", func(fd int) error {
		if err := fullSync(fd); err != nil {
			return pathError("fsync", f.path, err)
		}
		return nil
	})
}

// WriteAt writes p at off, within the file's Size; the mapping shows it. It is
// for bulk writing, where it spares the page faults of a first store. It returns
// how many bytes were written and, if that is not all, why: ErrRange, ErrNoSpace
// (on file systems that do not write in place), ErrReadOnly, fs.ErrClosed.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if f.mode == ReadOnly {
		return 0, pathError("pwrite", f.path, ErrReadOnly)
	}
	// Beyond the end, pwrite would make the file grow without telling Size.
	if !inside(off, int64(len(p)), f.Size()) {
		return 0, pathError("pwrite", f.path, ErrRange)
	}
	var done int
	err := f.withFD("pwrite", func(fd int) (err error) {
		if done, err = writeAll(fd, p, off); err != nil {
			err = pathError("pwrite", f.path, err)
		}
		return err
	})
	return done, err
}

// writeAll is pwrite until all of p is written.
func writeAll(fd int, p []byte, off int64) (done int, err error) {
	for done < len(p) {
		n, err := unix.Pwrite(fd, p[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = unix.EIO // does not happen, and must not spin
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// writeZeros fills [start, end) of the file with zeros: allocation for file
// systems that have no call for it.
func writeZeros(fd int, start, end int64) error {
	zeros := make([]byte, min(end-start, 1<<20))
	for off := start; off < end; off += int64(len(zeros)) {
		if _, err := writeAll(fd, zeros[:min(int64(len(zeros)), end-off)], off); err != nil {
			return err
		}
	}
	return nil
}
