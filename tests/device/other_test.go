//go:build !linux || !(amd64 || arm64)

package device

import "testing"

func TestPowerCutDevice(t *testing.T) {
	t.Skip("SKIPPED: block devices of the test's own need Linux, and a FUSE library that builds")
}
