// Package faults is how kv/kvtest comes between a store and its disk: kv asks it, when a store is
// opened and at no other time, whether the store's directory has a switch.
package faults

import (
	"sync"
	"sync/atomic"
)

// Op is a set of calls of a disk.
type Op uint16

const (
	Open Op = 1 << iota
	Create
	Link
	Rename
	Remove
	SyncDir
	Grow
	Truncate
	Sync  // of a range of a file, or of all of it
	Write // by a call: what is stored to the mapping asks nobody
)

// Call is one call.
type Call struct {
	Op       Op
	Path     string // the new name of a Link or Rename
	From     string // the old one
	File     *File  // of Open, Create and all below Grow
	Off, Len int64  // of Sync; Len -1: the whole file
}

// File is an open file. Node belongs to the switch.
type File struct {
	Path string // when it was opened
	Node any
}

// Switch stands between the stores of a directory and the disk.
type Switch interface {
	// Do makes the call, which is do, or returns in its place the error with which it fails.
	// It may be called from any number of goroutines.
	Do(c Call, do func() error) error
}

var (
	switches sync.Map // directory, absolute and without symbolic links -> Switch
	planted  atomic.Int64
)

// Plant has the stores that are opened in dir from now on ask s. The function it returns ends that.
func Plant(dir string, s Switch) (lift func()) {
	switches.Store(dir, s)
	planted.Add(1)
	return sync.OnceFunc(func() {
		switches.Delete(dir)
		planted.Add(-1)
	})
}

// Any tells whether there is a switch anywhere.
func Any() bool { return planted.Load() != 0 }

// At returns the switch of dir, or nil.
func At(dir string) Switch {
	s, _ := switches.Load(dir)
	sw, _ := s.(Switch)
	return sw
}
