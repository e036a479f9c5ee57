//go:build !linux && !darwin && !freebsd

package mmapfile

import (
	"errors"
	"testing"
)

// Goal: where nothing is implemented everything says so.
func TestUnsupported(t *testing.T) {
	_, open := Open("f", ReadWrite)
	_, create := Create("f", 0o600, 1)
	_, createMemory := CreateMemory(0o600, 1)
	_, openMemory := OpenMemory(nil, ReadOnly)
	_, region := NewRegion(1, false)
	_, dir := OpenDir(".")
	for _, err := range []error{open, create, createMemory, openMemory, region, dir} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%v, want %v", err, errors.ErrUnsupported)
		}
	}
}
