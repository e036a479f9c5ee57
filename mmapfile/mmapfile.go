package mmapfile

import (
	"errors"
	"fmt"
)

// Sentinels, to be matched with errors.Is. Where the operating system gave an
// error number, it is wrapped beside the sentinel and matches too.
var (
	// ErrNotRegular: the path names a directory, a fifo, a socket or a device.
	ErrNotRegular = errors.New("not a regular file")
	// ErrRemote: the file lies on a network file system, where mappings and
	// locks of two machines are not coherent.
	ErrRemote = errors.New("on a network file system")
	// ErrNoSpace: the disk, the quota or the largest file size is exhausted.
	ErrNoSpace = errors.New("no space for the file")
	// ErrNoAddressSpace: the process can map no further memory, or the file is
	// larger than what a 32-bit process can map.
	ErrNoAddressSpace = errors.New("no address space")
	// ErrShrunk: the file is shorter than the bytes that were to be synced;
	// somebody truncated it.
	ErrShrunk = errors.New("file shrank underneath its mapping")
	// ErrRange: an offset or a length outside of the file, or a negative one.
	ErrRange = errors.New("outside of the file")
	// ErrReadOnly: the file was opened with ReadOnly.
	ErrReadOnly = errors.New("file is opened read-only")
	// ErrNamed: the file has a path, and OpenMemory is for those that have none.
	ErrNamed = errors.New("file has a path: it is to be opened by that")
)

// MemoryPath stands for the path, in errors, of a File that CreateMemory or OpenMemory
// returned.
const MemoryPath = "(memory)"

// LockedError tells that another open of the file, in this process or another,
// holds its lock.
type LockedError struct {
	PID    int  // a process that holds the lock; 0 where unknown
	Shared bool // it shares the lock, maybe with others
}

// Error names the holder.
func (e *LockedError) Error() string {
	how, who := "locked", "another process"
	if e.Shared {
		how = "shared"
	}
	if e.PID != 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	return how + " by " + who
}

// FaultError tells that the memory of a mapping could not be accessed.
type FaultError struct {
	Off int64 // byte offset in the file; on some machines of the page only
}

// Error names the offset.
func (e *FaultError) Error() string {
	return fmt.Sprintf("memory fault in the mapping at file offset %d", e.Off)
}

// Mode says what a File may be used for.
type Mode int

const (
	ReadWrite Mode = iota // read, write, grow, lock
	ReadOnly              // read and follow; a store into the mapping faults
)

// Identity tells a file from others in its file system, and whether it has been
// written to.
type Identity struct {
	Inode    uint64
	Length   int64 // bytes
	Modified int64 // unix nanoseconds; file systems have coarser clocks
}
