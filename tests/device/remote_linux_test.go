//go:build amd64 || arm64

package device

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapkv/mmapkv/kv"
)

// request is what a parent asks of a remote.
type request struct {
	Do         string        // "open", "put", "put durable", ...: see obey
	Path       string        // to open
	Durability kv.Durability // to open with
	Shared     bool          // to open with
	Keys       []string
	Size       int // bytes of each value
}

// reply is what a remote answers.
type reply struct {
	Err     string   // text; "": none
	Is      []string // names of what it is, from errorNames
	Reads   map[string]reply
	Missing []kv.Range
}

func (r *reply) is(name string) bool {
	for _, is := range r.Is {
		if is == name {
			return true
		}
	}
	return false
}

// errorNames are the errors that tests tell apart.
var errorNames = map[string]error{
	"fault": kv.ErrFault, "poisoned": kv.ErrPoisoned, "full": kv.ErrFull, "corrupt": kv.ErrCorrupt, "not found": kv.ErrNotFound,
	"EIO": syscall.EIO,
}

func replyOf(err error) (r reply) {
	if err == nil {
		return r
	}
	r.Err = err.Error()
	for name, target := range errorNames {
		if errors.Is(err, target) {
			r.Is = append(r.Is, name)
		}
	}
	var typed *kv.Error
	if errors.As(err, &typed) {
		r.Is = append(r.Is, "typed")
	}
	return r
}

// pageful is the value of key in tests of single pages: larger than a page, and
// like no other.
func pageful(key string, size int) []byte {
	v := make([]byte, 0, size+len(key)+8)
	for i := 0; len(v) < size; i++ {
		v = fmt.Appendf(v, "%s %d ", key, i)
	}
	return v[:size]
}

// remote is a child that does what it is told. The process that serves a device
// must not touch a mapping of a file on it: a page fault would wait for itself.
type remote struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
	bad bytes.Buffer // its stderr
}

func newRemote(t *testing.T) *remote {
	t.Helper()
	r := &remote{t: t, cmd: child("obey")}
	out, err := r.cmd.StdoutPipe()
	if err == nil {
		r.in, err = r.cmd.StdinPipe()
	}
	r.out = json.NewDecoder(bufio.NewReader(out))
	r.cmd.Stderr = &r.bad
	if err == nil {
		err = r.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.cmd.ProcessState == nil {
			r.cmd.Process.Kill()
			r.cmd.Wait()
		}
	})
	return r
}

// ask has the remote do something. A remote that dies of it fails the test.
func (r *remote) ask(q request) (a reply) {
	r.t.Helper()
	err := json.NewEncoder(r.in).Encode(q)
	late := time.AfterFunc(childLimit, func() { r.cmd.Process.Signal(unix.SIGQUIT) })
	defer late.Stop()
	if err == nil {
		err = r.out.Decode(&a)
	}
	if err != nil {
		r.cmd.Wait()
		r.t.Fatalf("%s: %v; the child: %v %.3000s", q.Do, err, r.cmd.ProcessState, r.bad.String())
	}
	return a
}

// do is ask where no error is expected.
func (r *remote) do(q request) reply {
	r.t.Helper()
	a := r.ask(q)
	if a.Err != "" {
		r.t.Fatalf("%s: %s", q.Do, a.Err)
	}
	return a
}

// end lets the remote end.
func (r *remote) end() {
	r.t.Helper()
	r.in.Close()
	if err := r.cmd.Wait(); err != nil || r.bad.Len() > 0 {
		r.t.Fatalf("the child: %v %.3000s", err, r.bad.String())
	}
}

func init() {
	roles["obey"] = func([]string) int {
		var s *kv.Store
		in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
		for {
			var q request
			if err := in.Decode(&q); err == io.EOF {
				return 0
			} else if err != nil {
				panic(err)
			}
			var a reply
			s, a = obey(s, q)
			if err := out.Encode(a); err != nil {
				panic(err)
			}
		}
	}
}

// obey does what q asks for with the store that is open.
func obey(s *kv.Store, q request) (*kv.Store, reply) {
	var err error
	switch q.Do {
	case "open", "salvage":
		s, err = kv.Open(q.Path, &kv.Options{Durability: q.Durability, Shared: q.Shared, Salvage: q.Do == "salvage"})
	case "close":
		err = s.Close()
	case "sync":
		err = s.Sync()
	case "compact":
		_, err = s.Compact(context.Background())
	case "put", "put durable":
		for _, k := range q.Keys {
			put := s.Put
			if q.Do == "put durable" {
				put = s.PutDurable
			}
			err = errors.Join(err, put([]byte(k), pageful(k, q.Size)))
		}
	case "update durable":
		err = s.Update(func(tx *kv.Tx) error {
			tx.Durable()
			var err error
			for _, k := range q.Keys {
				err = errors.Join(err, tx.Put([]byte(k), pageful(k, q.Size)))
			}
			return err
		})
	case "verify":
		var r kv.Report
		if r, err = s.Verify(context.Background()); err == nil && len(r.Violations) > 0 {
			err = fmt.Errorf("%v", r.Violations)
		}
	case "write slack":
		err = writeSlack(s)
	case "drop":
		err = dropPages(s.Path())
	case "read":
		reads := map[string]reply{}
		for _, k := range q.Keys {
			v, err := s.Get([]byte(k))
			if err == nil && !bytes.Equal(v, pageful(k, q.Size)) {
				err = fmt.Errorf("%s has %d bytes that nobody wrote: %.60q", k, len(v), v)
			}
			reads[k] = replyOf(err)
		}
		return s, reply{Reads: reads, Missing: s.Stats().Missing}
	default:
		err = fmt.Errorf("cannot %q", q.Do)
	}
	a := replyOf(err)
	if s != nil {
		a.Missing = s.Stats().Missing
	}
	return s, a
}

// writeSlack writes zeros to the blocks behind the log, which were allocated and never written.
// When the first write of such a block fails, ext4 takes the next one for done, and reads zeros
// all the same once the page is gone.
func writeSlack(s *kv.Store) error {
	f, err := os.OpenFile(s.Path(), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st := s.Stats()
	if _, err := f.WriteAt(make([]byte, st.FileBytes-st.Tail), st.Tail); err != nil {
		return err
	}
	return f.Sync()
}

// dropPages makes the kernel forget the pages of a file, which are clean, so that
// the next who looks at one reads it from the device. More than once, since the store may
// still be bringing in what it writes next: the kernel keeps all of a folio of which a page is mapped.
func dropPages(path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for range 3 {
		err = errors.Join(unmapPages(path), f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// unmapPages takes the pages of a file out of the page table.
func unmapPages(path string) error {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(maps)) {
		var from, to uintptr
		if !strings.Contains(line, path) { // a mapping goes by the file's first name
			continue
		}
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil {
			return err
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return errno
		}
	}
	return nil
}
