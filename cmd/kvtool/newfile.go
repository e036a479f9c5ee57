package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mmapkv/mmapkv/kv"
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

// readToFile opens the store at path as read does, and gives fn a file as writeNew does. With a
// salvage the file is written though bytes are missing, and the error says that they are.
func (t *tool) readToFile(path string, r reading, output string, force bool, fn func(s *kv.Store, w *bufio.Writer) error) error {
	var missing error
	err := t.writeNew(output, force, func(f *os.File) error {
		err := t.read(path, r, func(s *kv.Store) error {
			w := bufio.NewWriterSize(f, 1<<20)
			if err := fn(s, w); err != nil {
				return err
			}
			return w.Flush()
		})
		if r.salvage && errors.Is(err, kv.ErrCorrupt) {
			missing, err = err, nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return missing
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
