package kv

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"

	"github.com/mmapkv/mmapkv/mmapfile"
)

// OpenMem opens a new store in memory only, without a path: a memfd on Linux, elsewhere a
// temporary file that has lost its name. Its memory is free when the last handle of it is
// closed, in whatever process. It is bounded by Options.MaxSize; by default, only by what the
// machine has.
//
// All of a store's methods are there, and WriteTo writes a file for Open. Nothing becomes
// durable, and to ask for it costs nothing. Options.Durability, SyncAligned and CheckpointBytes
// do nothing, Perm says who may OpenFile it, and ReadOnly finds no store (fs.ErrNotExist).
//
// Other processes come to it by File and OpenFile.
func OpenMem(opts *Options) (*Store, error) { return openMemory(new(memoryDisk), opts) }

// File returns a descriptor of a store in memory, for OpenFile: in a child, which gets it
// by exec.Cmd.ExtraFiles, or in this process. The caller closes it. It holds no lock.
//
// From then on the store stays in the memory that it has, as others could not follow it
// to another. Compact and Clear return an error that matches errors.ErrUnsupported, none is
// started in the background, and each write and Delete takes memory for good: at
// Options.MaxSize they return ErrFull.
//
// A store with a path is refused with fs.ErrInvalid: others open the path. On Linux it
// takes /proc (errors.ErrUnsupported). File waits for a write that is under way.
func (s *Store) File() (*os.File, error) {
	m := s.memory()
	if m == nil {
		return nil, s.wrap("file", 0, fmt.Errorf("%w: the store has a path for others to open", fs.ErrInvalid))
	}
	s.mu.Lock() // no compaction replaces what is handed out
	defer s.mu.Unlock()
	g := s.gen.Load()
	if g == nil {
		return nil, s.wrap("file", 0, ErrClosed)
	}
	f, err := g.mapped.Reopen()
	if err == nil {
		m.handed.Store(true)
	}
	return f, s.wrap("file", 0, err)
}

// OpenFile opens the store in memory behind a descriptor that File returned, in this process or
// another; f may be closed afterwards. With ReadOnly it follows, with Shared it writes together
// with others, who all must say Shared, the first of them to OpenMem. With neither it writes
// alone, and is ErrLocked while somebody else may write. On macOS and FreeBSD all but ReadOnly
// is errors.ErrUnsupported. As after File, the store stays in its memory.
//
// A process that dies takes nothing with it that it has written: the others go on, and a
// descriptor that was kept opens the store again.
//
// What is no file or no store is ErrFormat, a damaged one ErrCorrupt, a file with a path
// fs.ErrInvalid: that is for Open.
func OpenFile(f *os.File, opts *Options) (*Store, error) {
	m := &memoryDisk{inherited: f}
	m.handed.Store(true)
	return openMemory(m, opts)
}

func openMemory(m *memoryDisk, opts *Options) (*Store, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, wrapError("open", mmapfile.MemoryPath, 0, err)
	}
	o.Durability, o.SyncAligned, o.CheckpointBytes = SyncManual, false, -1
	return openStore(m, mmapfile.MemoryPath, o)
}

// errHanded: see File.
var errHanded = fmt.Errorf("%w: others may have opened this memory, and could not follow to another", errors.ErrUnsupported)

// memoryDisk is the disk of one store in memory. It keeps no names: what is renamed, or linked,
// to the store's is the store from then on, and the rest is nobody's when it is closed. A file
// that others may have is never replaced.
type memoryDisk struct {
	inherited *os.File                   // what is opened; immutable
	handed    atomic.Bool                // others may have the file; set under Store.mu, or before Open
	created   *memoryFile                // the last one; owned by who creates
	current   atomic.Pointer[memoryFile] // the store's, as long as it is open
}

// memory returns the disk of a store in memory, or nil.
func (s *Store) memory() *memoryDisk {
	m, _ := s.disk.(*memoryDisk)
	return m
}

func (m *memoryDisk) isHanded() bool { return m != nil && m.handed.Load() }

func (m *memoryDisk) Open(_ string, mode mmapfile.Mode) (file, error) {
	from := m.inherited
	if now := m.current.Load(); now != nil { // once more, when the descriptor that was inherited may be closed
		again, err := now.Reopen()
		if err != nil {
			return nil, err
		}
		defer again.Close()
		from = again
	} else if !m.handed.Load() {
		return nil, fs.ErrNotExist
	}
	f, err := mmapfile.OpenMemory(from, mode)
	if err != nil {
		return nil, err
	}
	opened := &memoryFile{osFile{f}, m}
	m.current.CompareAndSwap(nil, opened)
	return opened, nil
}

func (m *memoryDisk) Create(_ string, perm fs.FileMode, size int64) (file, error) {
	f, err := mmapfile.CreateMemory(perm, size)
	if err != nil {
		return nil, err
	}
	m.created = &memoryFile{osFile{f}, m}
	return m.created, nil
}

func (m *memoryDisk) Link(_, _ string) error { return m.Rename("", "") }

func (m *memoryDisk) Rename(_, _ string) error {
	m.current.Store(m.created)
	m.created = nil
	return nil
}

func (m *memoryDisk) Remove(string) error               { return nil }
func (m *memoryDisk) OpenDir(string) (directory, error) { return memoryNames{m}, nil }
func (m *memoryDisk) OpenName(string) (nameLock, error) { return memoryNames{m}, nil }

// memoryNames are a directory of which nothing is left to sync, and the lock of the one name in
// it. Whoever shares the store has presence in its file, and that is the same file for all: so
// presence is all there is to the lock.
type memoryNames struct{ *memoryDisk }

func (n memoryNames) Sync() error           { return nil }
func (n memoryNames) Share() error          { return nil }
func (n memoryNames) Shared() (bool, error) { return n.current.Load().ByteLocked(presenceLock) }
func (n memoryNames) Close()                {}

// memoryFile is a file of which nothing is durable, and that is always at its path.
type memoryFile struct {
	osFile
	disk *memoryDisk
}

func (f *memoryFile) Sync(_, _ int64) error     { return nil }
func (f *memoryFile) SyncFile() error           { return nil }
func (f *memoryFile) IsAt(string) (bool, error) { return true, nil }

// Close forgets the file, which would be mapped as long as the program keeps the Store.
func (f *memoryFile) Close() error {
	f.disk.current.CompareAndSwap(f, nil)
	if f.disk.created == f {
		f.disk.created = nil
	}
	return f.osFile.Close()
}
