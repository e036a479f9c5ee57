package tests

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/kv"
)

func init() {
	roles["holder"] = func(args []string) int { return report(holdOpen(args[0])) }
	roles["obedient"] = func(args []string) int { return report(obey(args[0])) }
	roles["locked"] = func(args []string) int { return report(expectLocked(args[0], args[1])) }
}

// holdOpen opens the store, says so, and does nothing more.
func holdOpen(path string) error {
	s, err := kv.Open(path, nil)
	if err != nil {
		return err
	}
	if err := s.Put([]byte("by the child"), []byte("1")); err != nil {
		return err
	}
	fmt.Println("open")
	io.Copy(io.Discard, os.Stdin)
	return s.Close()
}

func expectLocked(path, pid string) error {
	_, err := kv.Open(path, nil)
	if !errors.Is(err, kv.ErrLocked) || !strings.Contains(err.Error(), pid) {
		return fmt.Errorf("open: %v, want ErrLocked naming %s", err, pid)
	}
	return nil
}

// obey is a writer that does what each line of its input says and answers when
// it has returned.
func obey(path string) error {
	s, err := kv.Open(path, nil)
	if err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	fmt.Println("open")
	for in.Scan() {
		word, arg, _ := strings.Cut(in.Text(), " ")
		size, _ := strconv.Atoi(arg)
		switch word {
		case "put":
			err = s.Put([]byte("k"), valueOf(size, 1))
		case "tx":
			err = s.Update(func(tx *kv.Tx) error {
				return errors.Join(tx.Put([]byte("k"), valueOf(size, 1)), tx.Put([]byte("l"), valueOf(size, 1)))
			})
		case "delete":
			err = s.Delete([]byte("k"))
		case "compact":
			_, err = s.Compact(context.Background())
		case "clear":
			err = s.Clear()
		case "reopen":
			if err = s.Close(); err == nil {
				s, err = kv.Open(path, nil)
			}
		}
		if err != nil {
			return err
		}
		fmt.Println("done")
	}
	return s.Close()
}

// servant is a child with a pipe to and from it.
type servant struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startServant(t *testing.T, role, path string) *servant {
	t.Helper()
	v := &servant{cmd: child(role, path)}
	v.start(t)
	return v
}

// start starts the command, which says "open" first.
func (v *servant) start(t *testing.T) {
	t.Helper()
	var err error
	v.in, err = v.cmd.StdinPipe()
	must(t, err)
	out, err := v.cmd.StdoutPipe()
	must(t, err)
	v.out = bufio.NewScanner(out)
	v.cmd.Stderr = os.Stderr
	must(t, v.cmd.Start())
	t.Cleanup(func() { v.in.Close(); v.kill() })
	v.hear(t, "open")
}

func (v *servant) kill() {
	v.cmd.Process.Kill()
	v.cmd.Wait()
}

func (v *servant) tell(t *testing.T, line string) {
	t.Helper()
	_, err := io.WriteString(v.in, line+"\n")
	must(t, err)
}

func (v *servant) hear(t *testing.T, want string) {
	t.Helper()
	if !v.out.Scan() || v.out.Text() != want {
		t.Fatalf("the child says %q, want %q", v.out.Text(), want)
	}
}

func (v *servant) order(t *testing.T, line string) {
	t.Helper()
	v.tell(t, line)
	v.hear(t, "done")
}

// Goal: one writer at a time, in this process or another; the second hears who,
// at once; with a timeout it waits; a killed holder's lock is free at once.
// Method: the steps of that sentence.
func TestLock(t *testing.T) {
	path := storePath(t)
	s := open(t, path, nil)
	_, err := kv.Open(path, nil)
	wantErr(t, err, kv.ErrLocked)
	if !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("does not name us, %d: %v", os.Getpid(), err)
	}
	runChild(t, "locked", path, strconv.Itoa(os.Getpid()))

	// After a compaction the lock is on another inode.
	_, err = s.Compact(t.Context())
	must(t, err)
	runChild(t, "locked", path, strconv.Itoa(os.Getpid()))
	must(t, s.Clear())
	runChild(t, "locked", path, strconv.Itoa(os.Getpid()))

	_, err = kv.Open(path, &kv.Options{LockTimeout: 50 * time.Millisecond})
	wantErr(t, err, kv.ErrLocked)

	got := make(chan error, 1)
	go func() {
		s, err := kv.Open(path, &kv.Options{LockTimeout: 30 * time.Second})
		if err == nil {
			err = errors.Join(s.Put([]byte("after"), nil), s.Close())
		}
		got <- err
	}()
	time.Sleep(30 * time.Millisecond)
	_, err = s.Compact(t.Context()) // the one who waits looks at an inode that goes
	must(t, err)
	must(t, s.Put([]byte("before"), nil))
	must(t, s.Close())
	must(t, <-got)

	holder := startServant(t, "holder", path)
	_, err = kv.Open(path, nil)
	wantErr(t, err, kv.ErrLocked)
	if info, err := kv.Inspect(path); err != nil || info.Holder != holder.cmd.Process.Pid {
		t.Errorf("Inspect says %d holds it, %v; want %d", info.Holder, err, holder.cmd.Process.Pid)
	}
	must(t, holder.cmd.Process.Kill())
	holder.cmd.Wait()
	s = open(t, path, nil)
	wantContents(t, s, map[string]string{"before": "", "after": "", "by the child": "1"})
}

// Goal: a follower in another process than the writer sees each write once it
// returned, in whatever way the writer goes on.
// Method: the writer, a child, does one thing at a time, and answers; then the
// two followers, one of them opened just now, must see it.
func TestFollower(t *testing.T) {
	path := storePath(t)
	w := startServant(t, "obedient", path)
	f := open(t, path, &kv.Options{ReadOnly: true})
	for _, tc := range []struct {
		order string
		size  int // of k; -1: absent
		pair  bool
	}{
		{"put 10", 10, false},
		{"put 0", 0, false},
		{"tx 100", 100, true},
		{"put 3000000", 3000000, false}, // growth
		{"compact", 3000000, false},
		{"put 11", 11, false},
		{"compact", 11, false},
		{"compact", 11, false},
		{"delete", -1, false},
		{"tx 70000", 70000, true},
		{"clear", -1, false},
		{"put 12", 12, false},
		{"reopen", 12, false},
		{"put 13", 13, false},
		{"delete", -1, false},
		{"reopen", -1, false},
		{"put 40000000", 40000000, false},
		{"clear", -1, false},
		{"clear", -1, false},
		{"reopen", -1, false},
		{"tx 5", 5, true},
	} {
		w.order(t, tc.order)
		fresh, err := kv.Open(path, &kv.Options{ReadOnly: true})
		must(t, err)
		for name, s := range map[string]*kv.Store{"follower": f, "fresh": fresh} {
			got, err := s.Get([]byte("k"))
			if tc.size < 0 && err != kv.ErrNotFound || tc.size >= 0 && (err != nil || string(got) != string(valueOf(tc.size, 1))) {
				t.Fatalf("after %q the %s has %d bytes, %v", tc.order, name, len(got), err)
			}
			if tc.pair {
				if l, err := s.Get([]byte("l")); err != nil || string(l) != string(got) {
					t.Fatalf("after %q the %s has half of it: %v", tc.order, name, err)
				}
			}
			verify(t, s)
		}
		must(t, fresh.Close())
	}
	must(t, w.cmd.Process.Kill())
	w.cmd.Wait()
	wantGet(t, f, "k", string(valueOf(5, 1)))
}

// supersede sets the bit in the tail word of a file that says it is, or is about
// to be, replaced.
func supersede(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var word [8]byte
	_, err = f.ReadAt(word[:], crc.TailOff)
	must(t, err)
	binary.LittleEndian.PutUint64(word[:], binary.LittleEndian.Uint64(word[:])|crc.Superseded)
	_, err = f.WriteAt(word[:], crc.TailOff)
	must(t, err)
}

// Goal: a writer that dies in the last steps of a compaction leaves no follower
// behind, on whichever file.
// Method: both states that it can leave are made: the file says that it is
// replaced and the rename never came; or it came.
func TestFollowerAfterDeadCompaction(t *testing.T) {
	for _, renamed := range []bool{false, true} {
		t.Run(fmt.Sprint("renamed=", renamed), func(t *testing.T) {
			path := storePath(t)
			s := open(t, path, nil)
			must(t, s.Put([]byte("k"), []byte("1")))
			must(t, s.Close())
			f := open(t, path, &kv.Options{ReadOnly: true})
			wantGet(t, f, "k", "1")
			copyFile(t, path, path+".image")
			supersede(t, path)
			wantGet(t, f, "k", "1")
			late := open(t, path, &kv.Options{ReadOnly: true})
			wantGet(t, late, "k", "1")
			if renamed {
				must(t, os.Rename(path+".image", path))
			}
			s = open(t, path, nil)
			for _, v := range []string{"2", "3"} {
				must(t, s.Put([]byte("k"), []byte(v)))
				wantGet(t, f, "k", v)
				wantGet(t, late, "k", v)
			}
			_, err := s.Compact(t.Context())
			must(t, err)
			must(t, s.Put([]byte("k"), []byte("4")))
			wantGet(t, f, "k", "4")
			wantGet(t, late, "k", "4")
			if _, err := os.Stat(path + ".next"); err == nil {
				t.Error("the compaction's file is still there")
			}
		})
	}
}

// Goal: a follower that was opened in the very moment of a compaction follows
// all the same.
// Method: followers are opened while another goroutine compacts and clears; when
// it is still, each must see what is written next.
func TestFollowerOpensInCompaction(t *testing.T) {
	path := storePath(t)
	s := open(t, path, &kv.Options{Durability: kv.SyncManual, CompactAt: -1})
	for round := range 100 * *scaleFlag {
		value := fmt.Append(nil, "round ", round)
		quit, quiet := make(chan struct{}), make(chan error, 1)
		go func() {
			for {
				select {
				case <-quit:
					quiet <- nil
					return
				default:
				}
				_, err := s.Compact(context.Background())
				if err == nil {
					err = s.Clear()
				}
				if err != nil {
					quiet <- err
					return
				}
			}
		}()
		var followers []*kv.Store
		for range 8 {
			f, err := kv.Open(path, &kv.Options{ReadOnly: true})
			must(t, err)
			followers = append(followers, f)
		}
		close(quit)
		must(t, <-quiet)
		must(t, s.Put([]byte("k"), value))
		for _, f := range followers {
			poll(t, "the write after the compactions", func() bool {
				got, err := f.Get([]byte("k"))
				if err != nil && err != kv.ErrNotFound {
					t.Fatal(err)
				}
				return string(got) == string(value)
			})
			must(t, f.Close())
		}
	}
}

// Goal: many creators and openers of one path end with one store.
// Method: goroutines that all open, put a key of their own, and close.
func TestCreateRace(t *testing.T) {
	path := storePath(t)
	results := make(chan error)
	const n = 8
	for i := range n {
		go func() {
			s, err := kv.Open(path, &kv.Options{LockTimeout: 30 * time.Second})
			if err == nil {
				err = errors.Join(s.Put([]byte{byte(i)}, nil), s.Close())
			}
			results <- err
		}()
	}
	for range n {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	s := open(t, path, nil)
	if s.Len() != n {
		t.Errorf("%d keys of %d", s.Len(), n)
	}
	if left := filesAt(path + ".*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
