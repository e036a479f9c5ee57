package loopfs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/mmapkv/mmapkv/internal/loopfs"
)

// Goal: the directory is a file system of the size asked for. Method: fill it.
func TestMount(t *testing.T) {
	for _, fstype := range []string{"ext4", "tmpfs"} {
		t.Run(fstype, func(t *testing.T) {
			const size = 8 << 20
			dir := loopfs.Mount(t, fstype, size)
			path := filepath.Join(dir, "f")
			if err := os.WriteFile(path, bytes.Repeat([]byte("x"), size/2), 0o600); err != nil {
				t.Fatalf("half of it: %v", err)
			}
			if err := os.WriteFile(path, bytes.Repeat([]byte("x"), size*2), 0o600); err == nil {
				t.Fatal("twice its size fitted")
			}
		})
	}
}
