//go:build !linux

package tests

import "errors"

func openCramped(string) error { return errors.ErrUnsupported }
