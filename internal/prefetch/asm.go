//go:build amd64 || arm64

package prefetch

// Read asks for the line of p, to be loaded from.
//
//go:noescape
func Read(p *uint64)

// Behind asks for the two lines behind that of p, to be loaded from. They need not be
// memory of p's.
//
//go:noescape
func Behind(p *byte)
