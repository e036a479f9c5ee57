//go:build !unix

package main

import (
	"io/fs"
	"os"
)

// inheritOwner gives f the permissions of another file.
func inheritOwner(f *os.File, of fs.FileInfo) error { return f.Chmod(of.Mode().Perm()) }
