package tests

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

func init() {
	roles["heir"] = func(args []string) int { return report(inherit(args[0])) }
	roles["donor"] = func(args []string) int { return report(donate()) }
	roles["without proc"] = func(args []string) int { return report(withoutProc(args[0])) }
}

// inherit opens the store in memory of descriptor 3, read-only or shared, and does what
// each line of its input says.
func inherit(how string) error {
	f := os.NewFile(3, "inherited")
	s, err := kv.OpenFile(f, &kv.Options{ReadOnly: how == "reads", Shared: how == "shares"})
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	fmt.Println("open")
	for in.Scan() {
		words := strings.Fields(in.Text())
		switch words[0] {
		case "want":
			size, _ := strconv.Atoi(words[2])
			got, err := s.Get([]byte(words[1]))
			if size < 0 && err != kv.ErrNotFound || size >= 0 && (err != nil || !bytes.Equal(got, valueOf(size, 1))) {
				return fmt.Errorf("%s: %d bytes, %v", in.Text(), len(got), err)
			}
			err = sound(s)
			if err != nil {
				return err
			}
		case "put":
			size, _ := strconv.Atoi(words[2])
			if err := s.Put([]byte(words[1]), valueOf(size, 1)); err != nil {
				return err
			}
		case "count":
			n, _ := strconv.Atoi(words[1])
			if err := countUp(s, n); err != nil {
				return err
			}
		}
		fmt.Println("done")
	}
	return s.Close()
}

// countUp adds 1 to a number so many times.
func countUp(s *kv.Store, n int) (err error) {
	for i := 0; i < n && err == nil; i++ {
		err = s.Compute([]byte("count"), func(old []byte, _ bool) ([]byte, kv.Op) {
			at, _ := strconv.Atoi(string(old))
			return strconv.AppendInt(nil, int64(at+1), 10), kv.Write
		})
	}
	return err
}

// startHeir starts a child with the store s.
func startHeir(t *testing.T, s *kv.Store, how string) *servant {
	t.Helper()
	f, err := s.File()
	must(t, err)
	defer f.Close()
	v := &servant{cmd: child("heir", how)}
	v.cmd.ExtraFiles = []*os.File{f}
	v.start(t)
	return v
}

// openMem opens a store in memory, which is verified and closed when the test ends.
func openMem(t *testing.T, opts *kv.Options) *kv.Store {
	t.Helper()
	s, err := kv.OpenMem(opts)
	must(t, err)
	t.Cleanup(func() { closeSound(t, s) })
	return s
}

// Goal: a child that has a store in memory sees each write of its parent once it returned,
// while the memory grows too, and goes on when another child is killed. Method: a write at a
// time; two children look.
func TestMemoryFollower(t *testing.T) {
	s := openMem(t, nil)
	must(t, s.Put([]byte("k"), valueOf(3, 1)))
	first, second := startHeir(t, s, "reads"), startHeir(t, s, "reads")
	for _, size := range []int{10, 0, 100_000, -1, 40_000_000, 7} {
		if size < 0 {
			must(t, s.Delete([]byte("k")))
		} else {
			must(t, s.Put([]byte("k"), valueOf(size, 1)))
		}
		for _, v := range []*servant{first, second} {
			v.order(t, fmt.Sprint("want k ", size))
		}
	}
	first.kill()
	must(t, s.Put([]byte("k"), valueOf(8, 1)))
	second.order(t, "want k 8")
	startHeir(t, s, "reads").order(t, "want k 8")
}

// Goal: parent and children write one store in memory together: each sees what another wrote, what
// they count adds up, also when one of them is killed as it writes. Method: by turns, and then at once.
func TestMemorySharedByProcesses(t *testing.T) {
	s := openMem(t, &kv.Options{Shared: true})
	const each = 2000
	heirs := []*servant{startHeir(t, s, "shares"), startHeir(t, s, "shares")}
	for i, size := range []int{10, 100_000, 5_000_000} { // and it grows
		heirs[i%2].order(t, fmt.Sprint("put k ", size))
		wantGet(t, s, "k", string(valueOf(size, 1)))
		heirs[1-i%2].order(t, fmt.Sprint("want k ", size))
		must(t, s.Put([]byte("l"), valueOf(2*size, 1)))
		heirs[i%2].order(t, fmt.Sprint("want l ", 2*size))
	}
	for _, v := range heirs {
		v.tell(t, fmt.Sprint("count ", each))
	}
	must(t, countUp(s, each))
	for _, v := range heirs {
		v.hear(t, "done")
	}
	wantGet(t, s, "count", fmt.Sprint(3*each))

	for round := range 5 {
		v := startHeir(t, s, "shares")
		v.tell(t, "count 1000000000")
		must(t, countUp(s, 100*round))
		v.kill()
		before, err := s.Get([]byte("count"))
		must(t, err)
		must(t, countUp(s, each))
		at, _ := strconv.Atoi(string(before))
		wantGet(t, s, "count", fmt.Sprint(at+each))
		verify(t, s)
	}
}

// donate makes a store in memory, sends it over descriptor 3, and counts in it for ever.
func donate() error {
	f := os.NewFile(3, "out")
	s, err := kv.OpenMem(&kv.Options{Shared: true})
	if err != nil {
		return err
	}
	if err := s.Put([]byte("k"), valueOf(9, 1)); err != nil {
		return err
	}
	memory, err := s.File()
	if err != nil {
		return err
	}
	if err := sendFile(f, memory); err != nil {
		return err
	}
	fmt.Println("open")
	return countUp(s, 1e9)
}

// sendFile sends a descriptor over a socket.
func sendFile(over, f *os.File) error {
	return syscall.Sendmsg(int(over.Fd()), []byte{1}, syscall.UnixRights(int(f.Fd())), nil, 0)
}

// receiveFile receives what sendFile sends.
func receiveFile(t *testing.T, over int) *os.File {
	t.Helper()
	b, rights := make([]byte, 1), make([]byte, syscall.CmsgSpace(4))
	_, n, _, _, err := syscall.Recvmsg(over, b, rights, syscall.MSG_CMSG_CLOEXEC)
	must(t, err)
	messages, err := syscall.ParseSocketControlMessage(rights[:n])
	must(t, err)
	fds, err := syscall.ParseUnixRights(&messages[0])
	must(t, err)
	return os.NewFile(uintptr(fds[0]), "received")
}

// Goal: the death of the process that made a store in memory, in the midst of its writes, takes
// nothing from the others: they read and write on, though they keep the descriptor that it gave
// them, and one who comes later finds all of it, alone too. Method: a child makes it and sends
// it here; it is killed as it counts.
func TestMemoryOutlivesMaker(t *testing.T) {
	for range 5 {
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		must(t, err)
		defer syscall.Close(pair[0])
		theirs := os.NewFile(uintptr(pair[1]), "socket")
		defer theirs.Close()
		maker := &servant{cmd: child("donor")}
		maker.cmd.ExtraFiles = []*os.File{theirs}
		maker.start(t)
		f := receiveFile(t, pair[0])
		defer f.Close()
		reader, err := kv.OpenFile(f, &kv.Options{ReadOnly: true})
		must(t, err)
		sharer, err := kv.OpenFile(f, &kv.Options{Shared: true})
		must(t, err)
		must(t, countUp(sharer, 100))
		_, err = kv.OpenFile(f, nil)
		wantErr(t, err, kv.ErrLocked)
		maker.kill()
		must(t, countUp(sharer, 100))
		value, err := sharer.Get([]byte("count"))
		must(t, err)
		wantGet(t, reader, "count", string(value))
		if at, _ := strconv.Atoi(string(value)); at < 200 {
			t.Errorf("%d was counted", at)
		}
		closeSound(t, sharer)
		alone, err := kv.OpenFile(f, nil)
		must(t, err)
		wantContents(t, alone, map[string]string{"k": string(valueOf(9, 1)), "count": string(value)})
		must(t, alone.Put([]byte("k"), nil))
		wantGet(t, reader, "k", "")
		closeSound(t, alone)
		closeSound(t, reader)
	}
}

// memoryOf returns a descriptor to write to the memory of a store with one key, which is closed.
func memoryOf(t *testing.T) *os.File {
	t.Helper()
	s, err := kv.OpenMem(nil)
	must(t, err)
	must(t, s.Put([]byte("k"), valueOf(5000, 1)))
	f, err := s.File()
	must(t, err)
	defer f.Close()
	must(t, s.Close())
	w, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { w.Close() })
	return w
}

// Goal: descriptors of what is no store in memory are refused, each with its own error, and
// nothing waits or crashes. Method: a table; each is opened in every way.
func TestHostileDescriptor(t *testing.T) {
	opened := func(t *testing.T, path string, flags int) *os.File {
		f, err := os.OpenFile(path, flags, 0)
		must(t, err)
		t.Cleanup(func() { f.Close() })
		return f
	}
	damaged := func(damage func(f *os.File) error) func(t *testing.T) *os.File {
		return func(t *testing.T) *os.File {
			f := memoryOf(t)
			must(t, damage(f))
			return f
		}
	}
	for _, tc := range []struct {
		name string
		make func(t *testing.T) *os.File
		want error
	}{
		{"nil", func(*testing.T) *os.File { return nil }, fs.ErrInvalid},
		{"closed", func(t *testing.T) *os.File { f := memoryOf(t); f.Close(); return f }, fs.ErrClosed},
		{"directory", func(t *testing.T) *os.File { return opened(t, t.TempDir(), os.O_RDONLY) }, kv.ErrFormat},
		{"device", func(t *testing.T) *os.File { return opened(t, "/dev/zero", os.O_RDWR) }, kv.ErrFormat},
		{"pipe", func(t *testing.T) *os.File {
			r, w, err := os.Pipe()
			must(t, err)
			t.Cleanup(func() { r.Close(); w.Close() })
			return r
		}, kv.ErrFormat},
		{"socket", func(t *testing.T) *os.File {
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			must(t, err)
			f := os.NewFile(uintptr(fd), "socket")
			t.Cleanup(func() { f.Close() })
			return f
		}, kv.ErrFormat},
		{"store with a path", func(t *testing.T) *os.File {
			path := storePath(t)
			must(t, open(t, path, nil).Close())
			return opened(t, path, os.O_RDWR)
		}, fs.ErrInvalid},
		{"text without a path", func(t *testing.T) *os.File {
			f, err := os.Create(filepath.Join(t.TempDir(), "f"))
			must(t, err)
			t.Cleanup(func() { f.Close() })
			must(t, os.Remove(f.Name()))
			_, err = f.WriteString(strings.Repeat("hello, world\n", 9999))
			must(t, err)
			return f
		}, kv.ErrFormat},
		{"empty", damaged(func(f *os.File) error { return f.Truncate(0) }), kv.ErrFormat},
		{"a hole", damaged(func(f *os.File) error { return errors.Join(f.Truncate(0), f.Truncate(3<<40)) }), kv.ErrFormat},
		{"half a header", damaged(func(f *os.File) error { return f.Truncate(6000) }), kv.ErrCorrupt},
		{"a few bytes", damaged(func(f *os.File) error { return f.Truncate(100) }), kv.ErrCorrupt},
		{"overwritten", damaged(func(f *os.File) error {
			_, err := f.WriteAt(valueOf(100, 1), 24)
			return errors.Join(err, f.Truncate(100))
		}), kv.ErrCorrupt},
		{"half a record", damaged(func(f *os.File) error { return f.Truncate(10000) }), kv.ErrCorrupt},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, opts := range []kv.Options{{}, {ReadOnly: true}, {Shared: true}} {
				s, err := kv.OpenFile(tc.make(t), &opts)
				if err == nil {
					s.Close()
					t.Fatalf("%+v: opened", opts)
				}
				wantErr(t, err, tc.want)
			}
		})
	}
}

// Goal: memory that another process cuts off beneath an open store is an error, and no crash.
// Method: it is, and then everything is tried.
func TestMemoryCutBeneath(t *testing.T) {
	s, err := kv.OpenMem(&kv.Options{Shared: true})
	must(t, err)
	defer s.Close()
	must(t, s.Put([]byte("k"), valueOf(100_000, 1)))
	f, err := s.File()
	must(t, err)
	defer f.Close()
	w, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR, 0)
	must(t, err)
	defer w.Close()
	must(t, w.Truncate(4096))
	_, get := s.Get([]byte("k"))
	wantErr(t, get, kv.ErrFault)
	wantErr(t, s.Put([]byte("k"), nil), kv.ErrFault)
	for _, opts := range []kv.Options{{}, {ReadOnly: true}, {Shared: true, LockTimeout: time.Millisecond}} {
		if late, err := kv.OpenFile(f, &opts); err == nil {
			late.Close()
			t.Errorf("%+v: opened", opts)
		}
	}
}

// Goal: without /proc a store in memory works for itself, and File says what is missing.
// Method: a child with an empty root.
func TestMemoryWithoutProc(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: to change the root takes root")
	}
	runChild(t, "without proc", t.TempDir())
}

func withoutProc(root string) error {
	if err := syscall.Chroot(root); err != nil {
		return err
	}
	s, err := kv.OpenMem(nil)
	if err == nil {
		err = s.Put([]byte("k"), nil)
	}
	if err != nil {
		return err
	}
	if _, err := s.File(); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "/proc") {
		return fmt.Errorf("%w, want ErrUnsupported and /proc", err)
	}
	if err := s.Clear(); err != nil { // nothing was handed out
		return err
	}
	return s.Close()
}
