package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

// tree is the regular files below a directory, as they were when it was listed.
type tree struct {
	dir     string // absolute, symbolic links resolved
	files   []treeFile
	bytes   int64
	skipped int // could not be listed, or too large
}

type treeFile struct {
	path     string // relative, with slashes
	size     int64
	modified time.Time
}

// listTree lists at most limit files (0: all), in lexical order. It follows no
// symbolic link but dir itself.
func listTree(ctx context.Context, dir string, limit int) (*tree, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return nil, err
	}
	t := &tree{dir: dir}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && path == dir:
			return err
		case err != nil:
			t.skipped++
			return nil
		case !d.Type().IsRegular():
			return nil
		}
		info, err := d.Info()
		key, relErr := filepath.Rel(dir, path)
		if err != nil || relErr != nil || info.Size() > kv.MaxValueSize || len(key) > kv.MaxKeySize {
			t.skipped++
			return nil
		}
		t.files = append(t.files, treeFile{filepath.ToSlash(key), info.Size(), info.ModTime()})
		t.bytes += info.Size()
		if len(t.files) == limit {
			return filepath.SkipAll
		}
		return nil
	})
	if err == nil && len(t.files) == 0 {
		err = fmt.Errorf("%s: no regular file that can be read", dir)
	}
	return t, err
}

// name returns the path of a file on disk.
func (t *tree) name(f *treeFile) string { return filepath.Join(t.dir, filepath.FromSlash(f.path)) }

// changed tells whether a file is not what it was when the tree was listed.
func (t *tree) changed(f *treeFile) bool {
	info, err := os.Stat(t.name(f))
	return err != nil || info.Size() != f.size || !info.ModTime().Equal(f.modified)
}

// holds tells whether the file at path holds want, byte for byte. It reads it in
// parts.
func holds(path string, want []byte) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		if n > len(want) || !bytes.Equal(buf[:n], want[:n]) {
			return false, nil
		}
		want = want[n:]
		if err == io.EOF {
			return len(want) == 0, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// goSource returns the directory of Go's own source, a tree of some ten thousand
// files that many machines have.
func goSource(ctx context.Context) (string, error) {
	roots := []string{os.Getenv("GOROOT")}
	if out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output(); err == nil {
		roots = append([]string{strings.TrimSpace(string(out))}, roots...)
	}
	roots = append(roots, "/usr/local/go", "/usr/lib/go", "/opt/homebrew/opt/go/libexec")
	for _, root := range roots {
		src := filepath.Join(root, "src")
		if info, err := os.Stat(src); root != "" && err == nil && info.IsDir() {
			return src, nil
		}
	}
	return "", errors.New("there is no Go source tree here; name a directory: kvtool demo DIR")
}
