//go:build unix

package main

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// inheritOwner gives f the permissions of another file, and its owner and group where
// this user may.
func inheritOwner(f *os.File, of fs.FileInfo) error {
	if st, ok := of.Sys().(*syscall.Stat_t); ok {
		if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return f.Chmod(of.Mode().Perm())
}
