//go:build linux || darwin || freebsd

package mmapfile_test

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/mmapkv/mmapkv/mmapfile"
)

// create creates a file of a page in a temporary directory, for the examples.
func create() (f *mmapfile.File, path string, done func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		log.Fatal(err)
	}
	path = filepath.Join(dir, "f")
	if f, err = mmapfile.Create(path, 0o600, 4096); err != nil {
		log.Fatal(err)
	}
	return f, path, func() {
		f.Close()
		os.RemoveAll(dir)
	}
}

func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	f, err := mmapfile.Create(filepath.Join(dir, "f"), 0o600, 4096)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	m := f.Mapping()
	early := m.Bytes()
	if err := f.Grow(1 << 20); err != nil { // moves nothing
		log.Fatal(err)
	}
	copy(early, "hello")
	if err := f.Sync(0, 5); err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(m.Bytes()), string(m.Bytes()[:5]))
	runtime.KeepAlive(m)
	// Output: 1048576 hello
}

// Somebody truncates the file under the mapping: touching what is lost is an
// error, not the end of the process.
func ExampleGuard() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "f")
	f, err := mmapfile.Create(path, 0o600, 1<<20)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()

	read := func(off int64) (c byte, err error) {
		guard := mmapfile.EnterGuard()
		defer guard.Exit(f, &err)
		return f.Mapping().Bytes()[off], nil
	}
	if err := os.Truncate(path, 0); err != nil {
		log.Fatal(err)
	}
	_, err = read(1 << 19)
	var fault *mmapfile.FaultError
	fmt.Println(errors.As(err, &fault), err)
	// Output: true memory fault in the mapping at file offset 524288
}

// Another File of the same path follows what the first writes and how it grows.
func ExampleFile() {
	f, path, done := create()
	defer done()
	follower, err := mmapfile.Open(path, mmapfile.ReadOnly)
	if err != nil {
		log.Fatal(err)
	}
	defer follower.Close()
	if err := f.Grow(8192); err != nil {
		log.Fatal(err)
	}
	if err := follower.Refresh(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(follower.Size())
	// Output: 8192
}

// A word of the mapping, which other processes see as it is stored.
func ExampleMapping() {
	f, _, done := create()
	defer done()
	m := f.Mapping()
	m.Word(8).Store(7)
	fmt.Println(m.Word(8).Load(), m.Bytes()[8])
	runtime.KeepAlive(m) // the slice does not keep it mapped
	// Output: 7 7
}

// Whoever waits announces it, looks once more, and waits; whoever acts wakes.
func ExampleEvent() {
	f, _, done := create()
	defer done()
	m := f.Mapping()
	event, ready := m.Event(64), m.Word(128)
	go func() {
		ready.Store(1)
		event.Wake(mmapfile.WakeAll)
	}()
	for ready.Load() == 0 {
		seen := event.Announce()
		if ready.Load() == 0 {
			event.Wait(seen, time.Second)
		}
	}
	fmt.Println("ready")
	runtime.KeepAlive(m)
	// Output: ready
}

func ExampleMode() {
	_, path, done := create()
	defer done()
	f, err := mmapfile.Open(path, mmapfile.ReadOnly)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	fmt.Println(errors.Is(f.Grow(8192), mmapfile.ErrReadOnly))
	// Output: true
}

func ExampleLockedError() {
	f, path, done := create()
	defer done()
	other, err := mmapfile.Open(path, mmapfile.ReadWrite)
	if err != nil {
		log.Fatal(err)
	}
	defer other.Close()
	if err := f.TryLock(0); err != nil {
		log.Fatal(err)
	}
	var locked *mmapfile.LockedError
	if errors.As(other.TryLock(0), &locked) {
		fmt.Println(locked.PID == os.Getpid(), locked.Shared)
	}
	// Output: true false
}

func ExampleFaultError() {
	f, path, done := create()
	defer done()
	if err := os.Truncate(path, 0); err != nil { // by somebody else
		log.Fatal(err)
	}
	err := func() (err error) {
		guard := mmapfile.EnterGuard()
		defer guard.Exit(f, &err)
		f.Mapping().Bytes()[0] = 1
		return nil
	}()
	var fault *mmapfile.FaultError
	if errors.As(err, &fault) {
		fmt.Println("offset", fault.Off)
	}
	// Output: offset 0
}

func ExampleIdentity() {
	f, path, done := create()
	defer done()
	was, err := f.Identity()
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("shorter"), 0o600); err != nil {
		log.Fatal(err)
	}
	is, err := f.Identity()
	fmt.Println(is.Inode == was.Inode, is.Length, err)
	// Output: true 7 <nil>
}

// The order that makes a new name durable: the file, the rename, the directory.
func ExampleDir() {
	f, path, done := create()
	defer done()
	dir, err := mmapfile.OpenDir(filepath.Dir(path)) // before the rename: it may fail
	if err != nil {
		log.Fatal(err)
	}
	defer dir.Close()
	if err := f.SyncFile(); err != nil {
		log.Fatal(err)
	}
	if err := os.Rename(path, path+".final"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(dir.Sync())
	// Output: <nil>
}

func ExampleRegion() {
	r, err := mmapfile.NewRegion(1024, false)
	if err != nil {
		log.Fatal(err)
	}
	r.Words[7]++
	fmt.Println(len(r.Words), r.Words[7])
	runtime.KeepAlive(r) // Words does not keep it
	// Output: 1024 1
}
