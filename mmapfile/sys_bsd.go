//go:build darwin || freebsd

package mmapfile

import (
	"bytes"
	"strings"

	"golang.org/x/sys/unix"
)

// flushAfterMsync has the device write its cache: on macOS msync leaves that
// alone, on FreeBSD it is not known to do it.
func flushAfterMsync(fd int) error { return fullSync(fd) }

// populate: there is no call for it.
func populate([]byte, bool) bool { return false }

// forget: what msync costs other processors there has not been measured.
func forget([]byte) {}

// adviseHuge: there is no advice for it, and FreeBSD promotes aligned memory by
// itself.
func adviseHuge([]byte) {}

func collapse([]byte) {}

// fileSystem tells the kind of file system that an open file lies on.
func fileSystem(fd int) (name string, remote bool) {
	var st unix.Statfs_t
	if err := ignoringEINTR(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return "", false
	}
	return mountKind(st.Fstypename[:], st.Flags&unix.MNT_LOCAL != 0)
}

// mountKind reads a mount's type name. A mount that is not local is remote; FUSE
// is not asked, for it seldom knows.
func mountKind(typeName []byte, local bool) (name string, remote bool) {
	b, _, _ := bytes.Cut(typeName, []byte{0})
	name = string(b)
	return name, !local && !strings.Contains(name, "fuse")
}
