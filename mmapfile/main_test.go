//go:build linux || darwin || freebsd

package mmapfile

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// childEnv names what this test binary is to do when it is started as a child:
// one of children.
const childEnv = "MMAPFILE_TEST_CHILD"

// children are the programs that a test can start as another process; arg is the
// test's. What one prints the test reads; it ends when its input does.
var children = map[string]func(arg string) error{
	"lock": func(path string) error {
		f, err := Open(path, ReadWrite)
		if err != nil {
			return err
		}
		if err := f.TryLock(8); err != nil {
			return err
		}
		fmt.Println("locked")
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	},
	"grow": func(path string) error {
		f, err := Open(path, ReadWrite)
		if err != nil {
			return err
		}
		size := f.Size()
		if err := f.Grow(2 * size); err != nil {
			return err
		}
		copy(f.Mapping().Bytes()[size:], "from a child")
		fmt.Println("grown")
		return nil
	},
	"wake": func(path string) error {
		f, err := Open(path, ReadWrite)
		if err != nil {
			return err
		}
		fmt.Println("waking")
		for event := f.Mapping().Event(16); ; time.Sleep(100 * time.Microsecond) {
			event.Wake(WakeAll)
		}
	},
}

func TestMain(m *testing.M) {
	if name, arg, ok := strings.Cut(os.Getenv(childEnv), " "); ok {
		if err := children[name](arg); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// startChild starts a child and returns it with its first line of output. It is
// killed when the test ends, if not before.
func startChild(t *testing.T, name, arg string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+name+" "+arg)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("child %s: %v", name, err)
	}
	return cmd, strings.TrimSpace(line)
}

// newPath names a file that is not there yet.
func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "f") }

// newTestFile creates a file of n pages.
func newTestFile(t testing.TB, n int64) (*File, string) {
	t.Helper()
	path := newPath(t)
	f, err := Create(path, 0o600, n*pageSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, path
}

// openTest opens a file that is there.
func openTest(t testing.TB, path string, mode Mode) *File {
	t.Helper()
	f, err := Open(path, mode)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// reserving sets the sizes of reservations, in pages, for one test.
func reserving(t testing.TB, first, next int64) {
	oldFirst, oldNext := firstReserveLen, nextReserveLen
	firstReserveLen, nextReserveLen = first*pageSize, next*pageSize
	t.Cleanup(func() { firstReserveLen, nextReserveLen = oldFirst, oldNext })
}

// fill writes b's pages full of their own number, from page first on.
func fill(b []byte, first int64) {
	for off := first * pageSize; off < int64(len(b)); off += pageSize {
		copy(b[off:off+pageSize], bytes.Repeat([]byte{byte(off/pageSize) + 1}, int(pageSize)))
	}
}

// checkFilled checks what fill wrote into n pages.
func checkFilled(t testing.TB, b []byte, n int64) {
	t.Helper()
	if int64(len(b)) < n*pageSize {
		t.Fatalf("%d bytes, want %d", len(b), n*pageSize)
	}
	for i := range n {
		page := b[i*pageSize : (i+1)*pageSize]
		if !bytes.Equal(page, bytes.Repeat([]byte{byte(i) + 1}, int(pageSize))) {
			t.Fatalf("page %d holds %d, want %d", i, page[0], i+1)
		}
	}
}

// must fails the test for an error of setting up.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
