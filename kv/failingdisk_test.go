package kv

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/mmapkv/mmapkv/mmapfile"
)

// faultKind is a call of a disk that can fail, and how.
type faultKind struct {
	kind   string
	call   string // of the system
	errnos []syscall.Errno
	late   bool // it may have been done, and report an error all the same
}

var faultKinds = []faultKind{
	{"Open", "open", []syscall.Errno{syscall.EIO, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EROFS, syscall.EACCES}, false},
	{"Create", "fallocate", []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.EROFS}, false},
	{"Link", "link", []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EPERM}, true},
	{"Rename", "rename", []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.ENOMEM}, true},
	{"Remove", "remove", []syscall.Errno{syscall.EIO, syscall.EROFS}, true},
	{"OpenDir", "open", []syscall.Errno{syscall.EIO, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM}, false},
	{"SyncDir", "fsync", []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EROFS}, true},
	{"Grow", "fallocate", []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.ENOMEM, syscall.EROFS}, false},
	{"Refresh", "lseek", []syscall.Errno{syscall.EIO, syscall.ENOMEM}, false},
	{"Truncate", "ftruncate", []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EROFS}, true},
	{"Sync", "msync", []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT}, true},
	{"SyncFile", "fsync", []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT}, true},
	{"WriteAt", "pwrite", []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG}, false},
	{"Protect", "mprotect", []syscall.Errno{syscall.ENOMEM}, false},
	{"TryLock", "flock", []syscall.Errno{syscall.EIO, syscall.ENOLCK, syscall.ENOSPC}, false},
	{"IsAt", "stat", []syscall.Errno{syscall.EIO, syscall.ENOMEM, syscall.EACCES}, false},
	{"Close", "close", []syscall.Errno{syscall.EIO}, false},
}

// fault is what befalls the calls of one kind.
type fault struct {
	kind    string
	nth     int // of the calls of the kind, from 1
	forever bool
	late    bool // the call is done, and then fails
	errno   syscall.Errno
}

// String is as parseFault reads it.
func (f fault) String() string {
	return fmt.Sprintf("%s %d forever=%t late=%t errno=%d", f.kind, f.nth, f.forever, f.late, int(f.errno))
}

func parseFault(s string) (f fault, err error) {
	var errno int
	_, err = fmt.Sscanf(s, "%s %d forever=%t late=%t errno=%d", &f.kind, &f.nth, &f.forever, &f.late, &errno)
	f.errno = syscall.Errno(errno)
	return f, err
}

// full tells whether the fault is for want of space, on the disk or of addresses.
func (f fault) full() bool {
	return f.noSpace() || f.errno == syscall.ENOMEM && slices.Contains([]string{"Open", "Create", "Grow", "Refresh"}, f.kind)
}

func (f fault) noSpace() bool {
	return f.errno == syscall.ENOSPC || f.errno == syscall.EDQUOT || f.errno == syscall.EFBIG
}

// failure is the error as mmapfile, or os, wraps it.
func (f fault) failure(path string) error {
	i := slices.IndexFunc(faultKinds, func(k faultKind) bool { return k.kind == f.kind })
	call, err := faultKinds[i].call, error(f.errno)
	switch {
	case f.kind == "Link" || f.kind == "Rename":
		return &os.LinkError{Op: call, Old: path + nextSuffix, New: path, Err: err}
	case f.noSpace():
		err = fmt.Errorf("%w: %w", mmapfile.ErrNoSpace, err)
	case f.full():
		err = fmt.Errorf("%w: %w", mmapfile.ErrNoAddressSpace, err)
	}
	return &fs.PathError{Op: call, Path: path, Err: err}
}

// failingDisk is a disk of which some calls fail. It counts the calls by kind.
type failingDisk struct {
	disk
	swallow bool         // planted: a call that fails says that it did not
	litters bool         // planted: after the fault, Remove does nothing
	leaks   bool         // planted: after the fault, Close leaves a descriptor
	vague   bool         // planted: the error does not say what the system said
	loss    *rand.Rand   // draws what a failed sync wrote all the same
	failed  func(string) // hears of each call that failed; nil: nobody

	mu     sync.Mutex
	fault  *fault         // guarded by mu: nil for none
	calls  map[string]int // guarded by mu
	struck []string       // guarded by mu: kinds of the calls that failed since take
	hit    bool           // guarded by mu: one call failed, at least

	leaked []*os.File
}

func newFailingDisk(d disk, f *fault) *failingDisk {
	return &failingDisk{disk: d, fault: f, calls: make(map[string]int), loss: rand.New(rand.NewPCG(3, 4))}
}

// take returns which calls have failed since it was called last.
func (d *failingDisk) take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	struck := d.struck
	d.struck = nil
	return struck
}

// lift ends the fault.
func (d *failingDisk) lift() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = nil
}

func (d *failingDisk) wasHit() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hit
}

// strikes counts a call, and returns the fault if it fails.
func (d *failingDisk) strikes(kind, path string) *fault {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls[kind]++
	f := d.fault
	if f == nil || f.kind != kind || d.calls[kind] < f.nth || d.calls[kind] > f.nth && !f.forever {
		return nil
	}
	// What befalls a checkpoint is nobody's concern.
	if !strings.Contains(path, indexSuffix) {
		d.struck = append(d.struck, kind)
	}
	d.hit = true
	return f
}

// do makes a call of the kind. Where it is to fail, instead is what it does before.
func (d *failingDisk) do(kind, path string, call, instead func() error) error {
	f := d.strikes(kind, path)
	if f == nil {
		return call()
	}
	if f.late {
		instead = call
	}
	if instead != nil {
		if err := instead(); err != nil {
			return err
		}
	}
	if d.failed != nil && !strings.Contains(path, indexSuffix) {
		d.failed(kind)
	}
	switch {
	case d.swallow:
		return nil
	case d.vague:
		return fmt.Errorf("%s did not work", kind)
	}
	return f.failure(path)
}

func (d *failingDisk) Open(path string, mode mmapfile.Mode) (f file, err error) {
	err = d.do("Open", path, func() (err error) { f, err = d.disk.Open(path, mode); return err }, nil)
	return d.opened(f, path, err)
}

func (d *failingDisk) Create(path string, perm fs.FileMode, size int64) (f file, err error) {
	err = d.do("Create", path, func() (err error) { f, err = d.disk.Create(path, perm, size); return err }, nil)
	return d.opened(f, path, err)
}

func (d *failingDisk) opened(f file, path string, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return &failingFile{file: f, disk: d, path: path}, nil
}

func (d *failingDisk) Link(old, new string) error {
	return d.do("Link", new, func() error { return d.disk.Link(old, new) }, nil)
}

func (d *failingDisk) Rename(old, new string) error {
	return d.do("Rename", new, func() error { return d.disk.Rename(old, new) }, nil)
}

func (d *failingDisk) Remove(path string) error {
	if d.litters && d.wasHit() {
		return nil
	}
	return d.do("Remove", path, func() error { return d.disk.Remove(path) }, nil)
}

func (d *failingDisk) OpenDir(path string) (directory, error) {
	var dir directory
	err := d.do("OpenDir", path, func() (err error) { dir, err = d.disk.OpenDir(path); return err }, nil)
	if err != nil {
		return nil, err
	}
	return failingDir{dir, d, path}, nil
}

type failingDir struct {
	directory
	disk *failingDisk
	path string
}

func (f failingDir) Sync() error { return f.disk.do("SyncDir", f.path, f.directory.Sync, nil) }

// failingFile is an open file of a failingDisk. A sync that fails has written some
// of the pages; the others are held for clean from then on, as the kernel does
// with pages that it could not write, until they change or the file is opened again
// (and recovery stores to them).
type failingFile struct {
	file
	disk *failingDisk
	path string
	lost map[int64]string // page offset -> what was lost; on a powerDisk only
}

func (f *failingFile) Sync(off, n int64) error {
	return f.disk.do("Sync", f.path,
		func() error { return f.withoutLost(func() error { return f.file.Sync(off, n) }) },
		func() error { return f.lose(off, n) })
}

func (f *failingFile) SyncFile() error {
	return f.disk.do("SyncFile", f.path,
		func() error { return f.withoutLost(f.file.SyncFile) },
		func() error { return f.lose(0, f.Size()) })
}

// lose syncs some of the pages and notes that the others are lost.
func (f *failingFile) lose(off, n int64) error {
	p, ok := f.file.(*powerFile)
	if !ok {
		return nil
	}
	if f.lost == nil {
		f.lost = make(map[int64]string)
	}
	all := p.node.content()
	for page := off &^ (pageSize - 1); page < off+n; page += pageSize {
		end := min(page+pageSize, off+n, int64(len(all)))
		if f.disk.loss.IntN(3) == 0 {
			if err := f.file.Sync(page, end-page); err != nil {
				return err
			}
			continue
		}
		f.lost[page] = string(all[page:min(page+pageSize, int64(len(all)))])
	}
	return nil
}

// withoutLost runs sync, which does not write the lost pages.
func (f *failingFile) withoutLost(sync func() error) error {
	if len(f.lost) == 0 {
		return sync()
	}
	node := f.file.(*powerFile).node
	all, before := node.content(), slices.Clone(node.durable)
	if err := sync(); err != nil {
		return err
	}
	for page, was := range f.lost {
		end := min(page+int64(len(was)), int64(len(all)), int64(len(node.durable)))
		if page < end && string(all[page:end]) == was[:end-page] {
			copy(node.durable[page:end], resized(before, len(node.durable))[page:end])
		}
	}
	return nil
}

func (f *failingFile) Grow(size int64) error {
	return f.disk.do("Grow", f.path, func() error { return f.file.Grow(size) }, nil)
}

func (f *failingFile) Refresh() error { return f.disk.do("Refresh", f.path, f.file.Refresh, nil) }

func (f *failingFile) Truncate(size int64) error {
	return f.disk.do("Truncate", f.path, func() error { return f.file.Truncate(size) }, nil)
}

func (f *failingFile) WriteAt(p []byte, off int64) (n int, err error) {
	write := func(p []byte) func() error {
		return func() (err error) { n, err = f.file.WriteAt(p, off); return err }
	}
	err = f.disk.do("WriteAt", f.path, write(p), write(p[:len(p)/2]))
	return n, err
}

func (f *failingFile) Protect(off, n int64) error {
	return f.disk.do("Protect", f.path, func() error { return f.file.Protect(off, n) }, nil)
}

func (f *failingFile) TryLock(holderOff int64) error {
	return f.disk.do("TryLock", f.path, func() error { return f.file.TryLock(holderOff) }, nil)
}

func (f *failingFile) IsAt(path string) (at bool, err error) {
	err = f.disk.do("IsAt", path, func() (err error) { at, err = f.file.IsAt(path); return err }, nil)
	return at, err
}

// Close closes the file in any case, as the system does.
func (f *failingFile) Close() error {
	if f.disk.leaks && f.disk.wasHit() {
		left, err := os.Open(os.DevNull)
		if err != nil {
			return err
		}
		f.disk.leaked = append(f.disk.leaked, left)
	}
	return f.disk.do("Close", f.path, f.file.Close, f.file.Close)
}

// Goal: the disk fails as it is told to, and otherwise does what is asked. Method:
// the second of three syncs fails, once, for ever and after it was done; then the
// directory shows what the power leaves.
func TestFailingDisk(t *testing.T) {
	for _, tc := range []struct {
		fault   fault
		errs    string // by call: - for none
		durable string // of three pages, each synced by itself and then the three at once
	}{
		{fault{kind: "Sync", nth: 9, errno: syscall.EIO}, "----", "abc"},
		{fault{kind: "Sync", nth: 2, errno: syscall.EIO}, "-e--", "a.c"},
		{fault{kind: "Sync", nth: 2, errno: syscall.EIO, late: true}, "-e--", "abc"},
		{fault{kind: "Sync", nth: 2, errno: syscall.EIO, forever: true}, "-eee", "a.."},
		{fault{kind: "Truncate", nth: 1, errno: syscall.EIO}, "----", "abc"},
	} {
		t.Run(tc.fault.String(), func(t *testing.T) {
			if again, err := parseFault(tc.fault.String()); err != nil || again != tc.fault {
				t.Errorf("parsed: %v, %v", again, err)
			}
			dir := t.TempDir()
			power, err := newPowerDisk(dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer power.close()
			d := newFailingDisk(power, &tc.fault)
			d.loss = rand.New(neverZero{})
			f, err := d.Create(dir+"/f", 0o600, 3*pageSize)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var errs strings.Builder
			for i := range 4 {
				off, n := int64(i)*pageSize, int64(pageSize)
				if i == 3 {
					off, n = 0, 3*pageSize
				} else {
					f.Mapping().Bytes()[off] = "abc"[i]
				}
				if err := f.Sync(off, n); err != nil {
					errs.WriteString("e")
				} else {
					errs.WriteString("-")
				}
			}
			durable := []byte("...")
			for i := range durable {
				if b := power.current["f"].durable; len(b) > i*pageSize && b[i*pageSize] != 0 {
					durable[i] = b[i*pageSize]
				}
			}
			if errs.String() != tc.errs || string(durable) != tc.durable {
				t.Errorf("errors %s, want %s; durable %s, want %s", &errs, tc.errs, durable, tc.durable)
			}
		})
	}
}

// neverZero is a source of randomness by which every page is lost.
type neverZero struct{}

func (neverZero) Uint64() uint64 { return 1<<63 | 1<<31 }
