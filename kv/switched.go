package kv

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/mmapkv/mmapkv/internal/faults"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// diskAt returns the disk of the store at path: the operating system's, but in a directory
// where kv/kvtest has planted a switch. A program that has none pays for one load at Open.
func diskAt(path string) disk {
	if !faults.Any() {
		return osDisk{}
	}
	resolved, err := resolve(path)
	if err != nil {
		return osDisk{} // openOn says what is wrong
	}
	if s := faults.At(filepath.Dir(resolved)); s != nil {
		return switchedDisk{osDisk{}, s}
	}
	return osDisk{}
}

// switchedDisk is a disk whose calls go through a switch.
type switchedDisk struct {
	disk
	s faults.Switch
}

// through makes the call, and gives what the switch fails it with the form of mmapfile's errors.
func through(s faults.Switch, c faults.Call, do func() error) error {
	made := false
	err := s.Do(c, func() error { made = true; return do() })
	if err == nil || made {
		return err
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		err = fmt.Errorf("%w: %w", mmapfile.ErrNoSpace, err)
	}
	return &fs.PathError{Op: "injected fault", Path: c.Path, Err: err}
}

func (d switchedDisk) opened(op faults.Op, path string, open func() (file, error)) (file, error) {
	f := &switchedFile{s: d.s, is: &faults.File{Path: path}}
	err := through(d.s, faults.Call{Op: op, Path: path, File: f.is}, func() (err error) {
		f.file, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d switchedDisk) Open(path string, mode mmapfile.Mode) (file, error) {
	return d.opened(faults.Open, path, func() (file, error) { return d.disk.Open(path, mode) })
}

func (d switchedDisk) Create(path string, perm fs.FileMode, size int64) (file, error) {
	return d.opened(faults.Create, path, func() (file, error) { return d.disk.Create(path, perm, size) })
}

func (d switchedDisk) Link(old, new string) error {
	return through(d.s, faults.Call{Op: faults.Link, Path: new, From: old}, func() error { return d.disk.Link(old, new) })
}

func (d switchedDisk) Rename(old, new string) error {
	return through(d.s, faults.Call{Op: faults.Rename, Path: new, From: old}, func() error { return d.disk.Rename(old, new) })
}

func (d switchedDisk) Remove(path string) error {
	return through(d.s, faults.Call{Op: faults.Remove, Path: path}, func() error { return d.disk.Remove(path) })
}

func (d switchedDisk) OpenDir(path string) (directory, error) {
	dir, err := d.disk.OpenDir(path)
	return switchedDir{dir, d.s, path}, err
}

type switchedDir struct {
	directory
	s    faults.Switch
	path string
}

func (d switchedDir) Sync() error {
	return through(d.s, faults.Call{Op: faults.SyncDir, Path: d.path}, d.directory.Sync)
}

type switchedFile struct {
	file
	s  faults.Switch
	is *faults.File
}

func (f *switchedFile) through(op faults.Op, off, n int64, do func() error) error {
	return through(f.s, faults.Call{Op: op, Path: f.is.Path, File: f.is, Off: off, Len: n}, do)
}

func (f *switchedFile) Sync(off, n int64) error {
	return f.through(faults.Sync, off, n, func() error { return f.file.Sync(off, n) })
}

func (f *switchedFile) SyncFile() error { return f.through(faults.Sync, 0, -1, f.file.SyncFile) }

func (f *switchedFile) Grow(size int64) error {
	return f.through(faults.Grow, 0, 0, func() error { return f.file.Grow(size) })
}

func (f *switchedFile) Truncate(size int64) error {
	return f.through(faults.Truncate, 0, 0, func() error { return f.file.Truncate(size) })
}

func (f *switchedFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.through(faults.Write, 0, 0, func() (err error) { n, err = f.file.WriteAt(p, off); return err })
	return n, err
}
