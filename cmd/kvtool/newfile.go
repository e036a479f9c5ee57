package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// writeNew gives fill a temporary file beside path, which gets that name when it is
// whole and on the device; if fill fails, nothing is left. With force it may replace a
// regular file. Only the file's owner may read it.
func (t *tool) writeNew(path string, force bool, fill func(f *os.File) error) error {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case !force:
		return fmt.Errorf("%s is there already; --force replaces it", path)
	case !fi.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file; print to stdout instead", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".kvtool-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	err = fill(f)
	if err == nil {
		err = t.progress().during("sync", f.Sync)
	}
	if err == nil {
		err = place(f.Name(), path, force)
	}
	return err
}

// place gives the file at temp, which is on the device, the name path, durably. Unless
// it is to replace what is there, it never does, though that came only now.
func place(temp, path string, replace bool) error {
	var err error
	if replace {
		err = os.Rename(temp, path)
	} else {
		err = os.Link(temp, path)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
