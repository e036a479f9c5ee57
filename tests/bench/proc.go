//go:build linux && !386 && !arm

package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What the kernel and the runtime tell.

// device is the block device below a directory.
type device struct{ stat string } // path of its statistics; empty: there is none

// deviceOf returns the device that holds dir.
func deviceOf(dir string) (device, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return device{}, err
	}
	path := fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Dev), unix.Minor(st.Dev))
	if _, err := os.Stat(path); err != nil {
		return device{}, nil
	}
	return device{path}, nil
}

// written returns the bytes written to the device by the whole machine, or 0 if the
// kernel does not tell.
func (d device) written() int64 {
	b, err := os.ReadFile(d.stat)
	if f := strings.Fields(string(b)); err == nil && len(f) > 6 {
		sectors, _ := strconv.ParseInt(f[6], 10, 64)
		return sectors * 512
	}
	return 0
}

// procLine returns the number behind name in a file of lines "name: number".
func procLine(file, name string) int64 {
	b, _ := os.ReadFile(file)
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n
		}
	}
	return 0
}

// ownWrites returns the bytes that this process made the kernel write, in its count:
// a page counts when it becomes dirty.
func ownWrites() int64 { return procLine("/proc/self/io", "write_bytes") }

// anonBytes returns the resident memory of this process that no file backs.
func anonBytes() int64 { return procLine("/proc/self/status", "RssAnon") << 10 }

// cpuTime returns how long all processors have been at work, and how long this
// process has been, with those that it started and has waited for.
func cpuTime() (machine, own time.Duration) {
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(b), "\n")
	for i, f := range strings.Fields(line) {
		if i == 0 || i == 4 || i == 5 || i > 8 { // the name, idle, waiting; guests are counted in user
			continue
		}
		ticks, _ := strconv.ParseInt(f, 10, 64)
		machine += time.Duration(ticks) * 10 * time.Millisecond
	}
	return machine, atWork(unix.RUSAGE_SELF) + atWork(unix.RUSAGE_CHILDREN)
}

// atWork returns for how long who has been at work.
func atWork(who int) time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(who, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func scanBytes() int64 {
	s := []metrics.Sample{{Name: "/gc/scan/heap:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() + s[1].Value.Uint64())
}

// diskBytes returns the allocated bytes of all files below dir. Files that go
// meanwhile do not count.
func diskBytes(dir string) (total int64) {
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && !e.IsDir() && unix.Lstat(path, &st) == nil {
			total += st.Blocks * 512
		}
		return nil
	})
	return total
}

// syncFS writes everything that is dirty on the file system of dir.
func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// fileSystem returns the type of the file system of dir, and whether it is memory.
func fileSystem(dir string) (name string, memory bool, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", false, err
	}
	switch uint32(st.Type) {
	case unix.TMPFS_MAGIC:
		return "tmpfs", true, nil
	case unix.RAMFS_MAGIC:
		return "ramfs", true, nil
	case unix.EXT4_SUPER_MAGIC:
		return "ext4", false, nil
	case unix.XFS_SUPER_MAGIC:
		return "xfs", false, nil
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs", false, nil
	case unix.F2FS_SUPER_MAGIC:
		return "f2fs", false, nil
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs", false, nil
	}
	return fmt.Sprintf("file system %#x", uint32(st.Type)), false, nil
}
