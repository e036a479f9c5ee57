package kvtest

import (
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"github.com/mmapkv/mmapkv/internal/faults"
	"github.com/mmapkv/mmapkv/kv"
)

// Op is a kind of call that a store makes of its disk, or several, or-ed together.
type Op = faults.Op

const (
	// OpSync is a sync of a file: what durable writes, Store.Sync and Store.Close wait for.
	OpSync = faults.Sync
	// OpGrow makes a store's file longer, for a Put that finds no room.
	OpGrow = faults.Grow
	// OpCreate makes a file: that of a new store, of a compaction, of a checkpoint.
	OpCreate = faults.Create
	// OpOpen opens a file that is there.
	OpOpen = faults.Open
	// OpAnyWrite is each call that changes what is on the disk.
	OpAnyWrite = faults.Create | faults.Link | faults.Rename | faults.Remove | faults.SyncDir |
		faults.Grow | faults.Truncate | faults.Sync | faults.Write
)

// Disk is a directory for stores that can be made to fail. Its methods may be called from any
// number of goroutines, and while stores are in use.
//
// It hears of the calls that stores opened in it by this process make. A Put that finds room in
// the file makes none: it stores to memory, and returns without an error on a disk that has
// failed, as with a real one. It is the sync, or the growth, that fails.
type Disk struct {
	t   testing.TB
	dir string // absolute, without symbolic links

	mu     sync.Mutex
	fails  Op    // guarded by mu: the calls that fail
	err    error // guarded by mu: with which they do
	once   bool  // guarded by mu: only one of them
	struck int   // guarded by mu: calls that failed
	power  power // guarded by mu
}

// NewDisk returns a disk that works, with an empty directory, until the test ends.
func NewDisk(t testing.TB) *Disk {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := &Disk{t: t, dir: dir, power: power{names: map[string]*node{}, durable: map[string]*node{}}}
	lift := faults.Plant(dir, (*beneath)(d))
	t.Cleanup(func() {
		lift()
		d.mu.Lock()
		defer d.mu.Unlock()
		d.power.close()
	})
	return d
}

// Path returns where a store of that name is in the disk's directory. A name that leads elsewhere,
// a directory below it too, fails the test: of such a store the disk would hear nothing.
func (d *Disk) Path(name string) string {
	d.t.Helper()
	if name != filepath.Base(name) || name == "." || name == ".." {
		d.t.Fatalf("kvtest: %q is no name in the disk's directory", name)
	}
	return filepath.Join(d.dir, name)
}

// Open is OpenAt of a store on the disk. What makes the disk fail ends before the store is
// verified and closed.
func (d *Disk) Open(name string, opts *kv.Options) *kv.Store {
	d.t.Helper()
	s := OpenAt(d.t, d.Path(name), opts)
	d.t.Cleanup(d.Mend)
	return s
}

// FailNext makes the next call that is one of ops fail with err, such as syscall.ENOSPC or
// syscall.EIO: the call is not made. The calls after it work. It takes the place of what a
// FailNext or Fail before has ordered.
func (d *Disk) FailNext(ops Op, err error) { d.order(ops, err, true) }

// Fail makes every such call fail, until Mend.
func (d *Disk) Fail(ops Op, err error) { d.order(ops, err, false) }

// Mend ends what FailNext and Fail have ordered. A store whose sync has failed takes no more
// writes until it is opened again all the same.
func (d *Disk) Mend() { d.order(0, nil, false) }

func (d *Disk) order(ops Op, err error, once bool) {
	if ops != 0 && err == nil {
		err = errors.New("kvtest: a fault without an error")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails, d.err, d.once = ops, err, once
}

// Struck returns how many calls have failed so far, so that a test can tell whether its fault
// was met at all.
func (d *Disk) Struck() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.struck
}

// beneath is a Disk as the stores on it see it.
type beneath Disk

// Do makes the call, or has it fail.
func (d *beneath) Do(c faults.Call, do func() error) error {
	if c.Op == faults.Sync {
		n := c.File.Node.(*node)
		n.syncing.Lock()
		defer n.syncing.Unlock()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fails&c.Op != 0 {
		err := d.err
		d.struck++
		if d.once {
			d.fails = 0
		}
		return err
	}
	switch c.Op {
	case faults.Sync:
		return c.File.Node.(*node).sync(c.Off, c.Len, func() error { return d.unlocked(do) })
	case faults.Grow:
		return d.unlocked(do)
	}
	if err := do(); err != nil {
		return err
	}
	return d.power.made(c)
}

// unlocked makes a call that may take long, so that others need not wait for it.
func (d *beneath) unlocked(do func() error) error {
	d.mu.Unlock()
	defer d.mu.Lock()
	return do()
}
