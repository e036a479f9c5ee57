//go:build !linux

package mmapfile

import (
	"errors"
	"fmt"
	"runtime"
)

// Users returns an error that matches errors.ErrUnsupported.
func Users(_, _ string) (users []User, all bool, err error) {
	return nil, false, fmt.Errorf("to find who has a file open on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
