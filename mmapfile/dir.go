//go:build linux || darwin || freebsd

package mmapfile

import "golang.org/x/sys/unix"

// Dir is an open directory. It takes one descriptor, and its methods are for one
// goroutine.
type Dir struct {
	path string // immutable
	fd   int    // -1 after Close
}

// OpenDir opens a directory to sync it: whoever is about to rename something in
// it has the descriptor before, and can then fail for the device's reasons alone.
// Errors are *fs.PathError.
func OpenDir(path string) (*Dir, error) {
	fd, err := openFD(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, pathError("open", path, err)
	}
	return &Dir{path: path, fd: fd}, nil
}

// Sync makes the names in the directory durable: files created, renamed and
// removed in it. Errors are *fs.PathError.
func (d *Dir) Sync() error {
	if err := fullSync(d.fd); err != nil {
		return pathError("fsync", d.path, err)
	}
	return nil
}

// Close closes the descriptor. Close again does nothing. Nothing is synced.
func (d *Dir) Close() {
	if d.fd >= 0 {
		_ = unix.Close(d.fd)
		d.fd = -1
	}
}
