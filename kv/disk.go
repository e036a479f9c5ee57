package kv

import (
	"io/fs"
	"os"

	"github.com/mmapkv/mmapkv/mmapfile"
)

// disk is what a store asks of the file system, and file what it asks of a file:
// the seam at which tests cut the power or let a device fail.
type disk interface {
	Open(path string, mode mmapfile.Mode) (file, error)
	Create(path string, perm fs.FileMode, size int64) (file, error)
	Link(old, new string) error
	Rename(old, new string) error
	Remove(path string) error
	OpenDir(path string) (directory, error)
	OpenName(path string) (nameLock, error)
}

// nameLock is held together by all who share the store at a path, whatever file that names. The
// methods are those of mmapfile.NameLock.
type nameLock interface {
	Share() error
	Shared() (bool, error)
	Close()
}

// directory is an open directory. Sync makes the names in it durable.
type directory interface {
	Sync() error
	Close()
}

// file is a mapped file. The methods are those of mmapfile.File.
type file interface {
	Size() int64
	Mapping() *mmapfile.Mapping
	Grow(size int64) error
	Refresh() error
	Truncate(size int64) error
	Sync(off, n int64) error
	SyncFile() error
	WriteAt(p []byte, off int64) (int, error)
	Populate(off, n int64)
	AdviseRandom(off, n int64)
	Protect(off, n int64) error
	TryLock(holderOff int64) error
	TryShare() error
	TryLockByte(b mmapfile.ByteLock, share bool) (bool, error)
	UnlockByte(b mmapfile.ByteLock) error
	ByteLocked(b mmapfile.ByteLock) (bool, error)
	IsAt(path string) (bool, error)
	Identity() (mmapfile.Identity, error)
	Close() error

	// mapped is the file whose mapping it is, and whose faults become errors.
	mapped() *mmapfile.File
}

// osDisk is the operating system's.
type osDisk struct{}

type osFile struct{ *mmapfile.File }

func (f osFile) mapped() *mmapfile.File { return f.File }

func (osDisk) Open(path string, mode mmapfile.Mode) (file, error) {
	f, err := mmapfile.Open(path, mode)
	return osFile{f}, err
}

func (osDisk) Create(path string, perm fs.FileMode, size int64) (file, error) {
	f, err := mmapfile.Create(path, perm, size)
	return osFile{f}, err
}

func (osDisk) Link(old, new string) error   { return os.Link(old, new) }
func (osDisk) Rename(old, new string) error { return os.Rename(old, new) }
func (osDisk) Remove(path string) error     { return os.Remove(path) }

func (osDisk) OpenDir(path string) (directory, error) {
	d, err := mmapfile.OpenDir(path)
	return d, err
}

func (osDisk) OpenName(path string) (nameLock, error) {
	l, err := mmapfile.OpenName(path)
	return l, err
}

// syncDir makes the names in the directory at path durable.
func syncDir(d disk, path string) error {
	dir, err := d.OpenDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
