//go:build amd64 || arm64

package prefetch

// Read asks for the line of p, to be loaded from.
//
//go:noescape
func Read(p *uint64)
