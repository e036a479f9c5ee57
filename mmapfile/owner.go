//go:build linux || darwin || freebsd

package mmapfile

import (
	"errors"

	"golang.org/x/sys/unix"
)

// InheritOwner gives f the permission bits of the file of, and its owner and
// group as far as the process may: for a file that is to take the place of the
// other.
func (f *File) InheritOwner(of *File) error {
	var st unix.Stat_t
	err := of.withFD("fstat", func(fd int) (err error) {
		st, err = of.fstat(fd)
		return err
	})
	if err != nil {
		return err
	}
	return f.withFD("fchown", func(fd int) error {
		if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil && !errors.Is(err, unix.EPERM) {
			return pathError("fchown", f.path, err)
		}
		// After the owner: to change it clears the set-id bits.
		if err := unix.Fchmod(fd, uint32(st.Mode)&0o777); err != nil {
			return pathError("fchmod", f.path, err)
		}
		return nil
	})
}
