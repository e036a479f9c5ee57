//go:build !linux && !darwin && !freebsd

package mmapfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"sync/atomic"
	"time"
)

// errUnsupported is what every function here returns: there is no File, Mapping
// or Region on this system, and their methods exist only to compile.
var errUnsupported = fmt.Errorf("memory-mapped files on %s: %w", runtime.GOOS, errors.ErrUnsupported)

// File does not exist on this system.
type File struct{}

// Mapping does not exist on this system.
type Mapping struct{}

// Region does not exist on this system.
type Region struct{ Words []uint64 }

// Open returns an error that matches errors.ErrUnsupported.
func Open(path string, _ Mode) (*File, error) {
	return nil, &fs.PathError{Op: "open", Path: path, Err: errUnsupported}
}

// Create returns an error that matches errors.ErrUnsupported.
func Create(path string, _ fs.FileMode, _ int64) (*File, error) {
	return nil, &fs.PathError{Op: "open", Path: path, Err: errUnsupported}
}

// CreateMemory returns an error that matches errors.ErrUnsupported.
func CreateMemory(fs.FileMode, int64) (*File, error) {
	return nil, &fs.PathError{Op: "open", Path: MemoryPath, Err: errUnsupported}
}

// OpenMemory returns an error that matches errors.ErrUnsupported.
func OpenMemory(*os.File, Mode) (*File, error) {
	return nil, &fs.PathError{Op: "open", Path: MemoryPath, Err: errUnsupported}
}

// Dir does not exist on this system.
type Dir struct{}

// OpenDir returns an error that matches errors.ErrUnsupported.
func OpenDir(path string) (*Dir, error) {
	return nil, &fs.PathError{Op: "open", Path: path, Err: errUnsupported}
}

func (d *Dir) Sync() error { return errUnsupported }
func (d *Dir) Close()      {}

// NewRegion returns an error that matches errors.ErrUnsupported.
func NewRegion(int, bool) (*Region, error) { return nil, errUnsupported }

func (r *Region) MakeHuge(func() bool)             {}
func (f *File) Size() int64                        { return 0 }
func (f *File) Mapping() *Mapping                  { return nil }
func (f *File) FileSystem() string                 { return "" }
func (f *File) Grow(int64) error                   { return errUnsupported }
func (f *File) Refresh() error                     { return errUnsupported }
func (f *File) Truncate(int64) error               { return errUnsupported }
func (f *File) Sync(_, _ int64) error              { return errUnsupported }
func (f *File) SyncFile() error                    { return errUnsupported }
func (f *File) WriteAt([]byte, int64) (int, error) { return 0, errUnsupported }
func (f *File) Populate(_, _ int64)                {}
func (f *File) AdviseRandom(_, _ int64)            {}
func (f *File) Protect(_, _ int64) error           { return errUnsupported }
func (f *File) Reopen() (*os.File, error)          { return nil, errUnsupported }
func (f *File) TryLock(int64) error                { return errUnsupported }
func (f *File) TryShare() error                    { return errUnsupported }
func (f *File) UnlockByte(ByteLock) error          { return errUnsupported }
func (f *File) IsAt(string) (bool, error)          { return false, errUnsupported }
func (f *File) Identity() (Identity, error)        { return Identity{}, errUnsupported }
func (f *File) Close() error                       { return errUnsupported }
func (f *File) offsetOf(uintptr) (int64, bool)     { return 0, false }
func (m *Mapping) Bytes() []byte                   { return nil }
func (m *Mapping) Word(int64) *atomic.Uint64       { return nil }

func (f *File) TryLockByte(ByteLock, bool) (bool, error) { return false, errUnsupported }
func (f *File) ByteLocked(ByteLock) (bool, error)        { return false, errUnsupported }

// InheritOwner returns an error that matches errors.ErrUnsupported.
func (f *File) InheritOwner(*File) error { return errUnsupported }

func bootID() []byte { return nil }

// Event does not exist on this system.
type Event struct{}

// WakeAll is for Wake.
const WakeAll = 0

func (m *Mapping) Event(int64) Event       { return Event{} }
func (e Event) Announce() uint32           { return 0 }
func (e Event) Waited() bool               { return false }
func (e Event) Wait(uint32, time.Duration) {}
func (e Event) Wake(int) int               { return 0 }

// NameLock does not exist on this system.
type NameLock struct{}

// OpenName returns an error that matches errors.ErrUnsupported.
func OpenName(string) (*NameLock, error) { return nil, errUnsupported }

func (l *NameLock) Share() error          { return errUnsupported }
func (l *NameLock) Shared() (bool, error) { return false, errUnsupported }
func (l *NameLock) Close()                {}
