//go:build darwin || freebsd

package mmapfile

import (
	"bytes"
	"strings"
)

// mountKind reads a mount's type name. A mount that is not local is remote; FUSE
// is not asked, for it seldom knows.
func mountKind(typeName []byte, local bool) (name string, remote bool) {
	b, _, _ := bytes.Cut(typeName, []byte{0})
	name = string(b)
	return name, !local && !strings.Contains(name, "fuse")
}
