//go:build !amd64 && !arm64

package prefetch

// Read asks for the line of p, to be loaded from.
func Read(*uint64) {}

// Behind asks for the two lines behind that of p, to be loaded from. They need not be
// memory of p's.
func Behind(*byte) {}
