//go:build linux || darwin || freebsd

package mmapfile_test

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"

	"github.com/mmapkv/mmapkv/mmapfile"
)

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
