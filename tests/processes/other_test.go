//go:build !linux

package processes

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/mmapkv/mmapkv/kv"
)

// Goal: where the locks that it needs are not tested, Shared is refused, and says so.
// Method: Open.
func TestUnsupported(t *testing.T) {
	s, err := kv.Open(filepath.Join(t.TempDir(), "store"), &kv.Options{Shared: true})
	if err == nil {
		s.Close()
	}
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Fatalf("open: %v, want errors.ErrUnsupported", err)
	}
	t.Skip("SKIPPED: several processes write one store on Linux only")
}
