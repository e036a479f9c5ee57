//go:build linux || darwin || freebsd

package mmapfile

// Identity returns what the file is like now. A store through a mapping changes
// Modified when it makes a clean page dirty, on file systems with a disk.
func (f *File) Identity() (id Identity, err error) {
	err = f.withFD("fstat", func(fd int) error {
		st, err := f.fstat(fd)
		id = Identity{Inode: uint64(st.Ino), Length: st.Size, Modified: st.Mtim.Nano()}
		return err
	})
	return id, err
}
