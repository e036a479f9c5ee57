package mmapfile

import (
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	mapNoReserve = unix.MAP_NORESERVE
	allocateCall = "fallocate"
)

// allocate makes the file, now start bytes long, end bytes long with blocks of
// its own behind each new byte. Never by ftruncate alone: a store into a hole for
// which there is no space kills the process.
func allocate(fd int, start, end int64) error {
	if start >= end {
		return nil
	}
	err := ignoringEINTR(func() error { return unix.Fallocate(fd, 0, start, end-start) })
	if err == unix.EOPNOTSUPP || err == unix.ENOSYS {
		return writeZeros(fd, start, end)
	}
	if err == unix.ENOMEM { // of a file in memory: the machine, or the process's group, has none left
		err = fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// fullSync makes the file, or a directory's names, durable.
func fullSync(fd int) error {
	return ignoringEINTR(func() error { return unix.Fsync(fd) })
}

// flushAfterMsync has nothing to do: msync(MS_SYNC) flushes the device.
func flushAfterMsync(int) error { return nil }

// populate brings pages in and tells whether the kernel knows how: Linux 5.14 does.
func populate(b []byte, write bool) bool {
	if !knowsPopulate() {
		return false
	}
	advice := unix.MADV_POPULATE_READ
	if write {
		advice = unix.MADV_POPULATE_WRITE
	}
	_ = unix.Madvise(b, advice)
	return true
}

// knowsPopulate asks once, over a page of its own: for one that is write-protected
// the answer would be the same EINVAL as an old kernel's.
var knowsPopulate = sync.OnceValue(func() bool {
	s, err := mapSpan(-1, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return false
	}
	defer s.unmap()
	return unix.Madvise(unsafe.Slice((*byte)(s.base), pageSize), unix.MADV_POPULATE_WRITE) == nil
})

// forget takes the pages of a shared file mapping out of the page table, all at once;
// the page cache has them as before, and the next to look at one maps it again. Else
// the kernel, which write-protects each page that it writes back, interrupts
// every processor that runs this program, page by page: a writer pays for it.
func forget(b []byte) { _ = unix.Madvise(b, unix.MADV_DONTNEED) }

func adviseHuge(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }

// collapse makes one of the pages of b now, since Linux 6.1. Advice alone leaves it to a
// kernel thread, which by default looks at 16 MiB of all processes every 10 seconds.
func collapse(b []byte) { _ = unix.Madvise(b, unix.MADV_COLLAPSE) }

// fileSystems are the kinds by the number that statfs tells. A remote one does not
// keep mappings and locks coherent between machines, or with its host. Some
// numbers are not in linux/magic.h: they are the file systems' own.
var fileSystems = map[uint32]struct {
	name   string
	remote bool
}{
	unix.EXT4_SUPER_MAGIC:      {"ext4", false}, // also ext2 and ext3
	unix.XFS_SUPER_MAGIC:       {"xfs", false},
	unix.BTRFS_SUPER_MAGIC:     {"btrfs", false},
	unix.BCACHEFS_SUPER_MAGIC:  {"bcachefs", false},
	unix.F2FS_SUPER_MAGIC:      {"f2fs", false},
	unix.TMPFS_MAGIC:           {"tmpfs", false},
	unix.OVERLAYFS_SUPER_MAGIC: {"overlay", false},
	unix.MSDOS_SUPER_MAGIC:     {"vfat", false},
	unix.EXFAT_SUPER_MAGIC:     {"exfat", false},
	unix.ECRYPTFS_SUPER_MAGIC:  {"ecryptfs", false},
	0x2fc12fc1:                 {"zfs", false},
	unix.FUSE_SUPER_MAGIC:      {"fuse", false}, // of all sorts: FileSystem tells
	unix.NFS_SUPER_MAGIC:       {"nfs", true},
	unix.V9FS_MAGIC:            {"9p", true},
	unix.SMB_SUPER_MAGIC:       {"smb", true},
	unix.SMB2_SUPER_MAGIC:      {"smb2", true},
	unix.CIFS_SUPER_MAGIC:      {"cifs", true},
	unix.AFS_SUPER_MAGIC:       {"afs", true},
	unix.AFS_FS_MAGIC:          {"afs", true},
	unix.CODA_SUPER_MAGIC:      {"coda", true},
	unix.NCP_SUPER_MAGIC:       {"ncp", true},
	unix.CEPH_SUPER_MAGIC:      {"ceph", true},
	0x0bd00bd0:                 {"lustre", true},
	0x47504653:                 {"gpfs", true},
	0x19830326:                 {"beegfs", true},
	0x20030528:                 {"orangefs", true},
	0x786f4256:                 {"vboxsf", true},
}

// fileSystem tells the kind of file system that an open file lies on.
func fileSystem(fd int) (name string, remote bool) {
	var st unix.Statfs_t
	if err := ignoringEINTR(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return "", false
	}
	kind := fileSystems[uint32(st.Type)]
	return kind.name, kind.remote
}
