package mmapfile

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

const draftSuffix = ".draft-"

// hostileName is what a program may call itself.
const hostileName = "\x1b[2J\n) (x"

func init() {
	children["users"] = func(path string) error {
		if err := os.WriteFile("/proc/self/comm", []byte(hostileName), 0); err != nil {
			return err
		}
		f, err := Open(path, ReadOnly)
		if err == nil {
			fmt.Println("open")
			_, err = io.Copy(io.Discard, os.Stdin)
		}
		runtime.KeepAlive(f)
		return err
	}
}

// users returns who has the file at path open, by process id.
func users(t *testing.T, path string) (byPID map[int]User, all bool) {
	t.Helper()
	list, all, err := Users(path, path+draftSuffix)
	must(t, err)
	if !slices.IsSortedFunc(list, func(a, b User) int { return a.PID - b.PID }) {
		t.Errorf("not by process id: %+v", list)
	}
	byPID = make(map[int]User)
	for _, u := range list {
		byPID[u.PID] = u
	}
	return byPID, all
}

// Goal: who has a file open is found, with the locks that he holds, whatever he calls
// himself, and whether that is still the file at the path; who has another file of the
// same name is not.
// Method: two children and this process, which takes one lock after the other.
func TestUsers(t *testing.T) {
	f, path := newTestFile(t, 1)
	other, _ := newTestFile(t, 1)
	defer runtime.KeepAlive(other)
	writer, _ := startChild(t, "lock", path)
	reader, _ := startChild(t, "users", path)
	got, _ := users(t, path)
	name := filepath.Base(os.Args[0])
	name = name[:min(len(name), 15)]
	for _, want := range []User{
		{PID: os.Getpid(), Name: got[os.Getpid()].Name},
		{PID: writer.Process.Pid, Name: name, Lock: ExclusiveLock},
		{PID: reader.Process.Pid, Name: hostileName},
	} {
		if u, ok := got[want.PID]; !ok || !reflect.DeepEqual(u, want) {
			t.Errorf("%+v, want %+v", u, want)
		}
	}
	if len(got) != 3 {
		t.Errorf("%d users, want 3: %+v", len(got), got)
	}

	must(t, writer.Process.Kill())
	_ = writer.Wait()
	us := func() User { got, _ = users(t, path); return got[os.Getpid()] }
	must(t, f.TryShare())
	for b, share := range []bool{true, false, true, false} {
		_, err := f.TryLockByte(ByteLock(b), share)
		must(t, err)
	}
	part := unix.Flock_t{Type: unix.F_WRLCK, Start: 100, Len: 1} // somebody else's
	must(t, unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_SETLK, &part))
	if u := us(); u.Lock != SharedLock || !slices.Equal(u.ByteLocks, []ByteLock{1, 3}) || len(got) != 2 {
		t.Errorf("%+v", got)
	}

	must(t, os.WriteFile(path+".next", nil, 0o600))
	must(t, os.Rename(path+".next", path))
	if u := us(); !u.Replaced || !got[reader.Process.Pid].Replaced {
		t.Errorf("nobody has a file that was replaced: %+v", got)
	}
	must(t, f.Close())
	must(t, reader.Process.Kill())
	_ = reader.Wait()
	if us(); len(got) != 0 {
		t.Errorf("left over: %+v", got)
	}
}

// Goal: a file that was made under another name and then linked to its own is found as
// well, also when it has been replaced, but not before it has its name.
func TestUsersOfDraft(t *testing.T) {
	path := newPath(t)
	draft := path + draftSuffix + "1"
	must(t, os.WriteFile(path, nil, 0o600))
	f, err := Create(draft, 0o600, pageSize)
	must(t, err)
	defer f.Close()
	expect := func(what string, want ...User) {
		t.Helper()
		got, _, err := Users(path, path+draftSuffix)
		must(t, err)
		for i := range got {
			got[i].Name = ""
		}
		if !slices.EqualFunc(got, want, func(a, b User) bool { return reflect.DeepEqual(a, b) }) {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	expect("a draft")
	u := User{PID: os.Getpid()}
	if found, moved, err := u.lookOnce(path, path+draftSuffix); found || !moved || err != nil {
		t.Errorf("with a draft: found %v, may move %v, %v", found, moved, err)
	}
	must(t, os.Remove(path))
	must(t, os.Link(draft, path))
	expect("linked", User{PID: os.Getpid()})
	must(t, os.Remove(draft))
	expect("its draft removed", User{PID: os.Getpid()})
	must(t, os.Remove(path))
	must(t, os.WriteFile(path, nil, 0o600))
	expect("replaced", User{PID: os.Getpid(), Replaced: true})
}

// Goal: who goes from one file of the path to the next all the time is found all the
// same.
// Method: this process does, as a store does that is compacted.
func TestUsersMoving(t *testing.T) {
	f, path := newTestFile(t, 1)
	stop := make(chan struct{})
	moved := make(chan error)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				moved <- f.Close()
				return
			default:
			}
			draft := fmt.Sprint(path, draftSuffix, i)
			next, err := Create(draft, 0o600, pageSize)
			if err == nil {
				err = os.Rename(draft, path)
			}
			if err == nil {
				err = f.Close()
			}
			if f = next; err != nil {
				<-stop
				moved <- err
				return
			}
		}
	}()
	const looks = 100
	missed := 0
	for range looks {
		list, _, err := Users(path, path+draftSuffix)
		must(t, err)
		if !slices.ContainsFunc(list, func(u User) bool { return u.PID == os.Getpid() }) {
			missed++
		}
	}
	close(stop)
	must(t, <-moved)
	if missed > 0 {
		t.Errorf("%d of %d looks missed it", missed, looks)
	}
}

// Goal: a user who may not look into other users' processes sees at least who holds a
// lock on the whole file, and hears that there may be more.
// Method: a thread of this process becomes such a user.
func TestUsersUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	f, path := newTestFile(t, 1)
	must(t, f.Close())
	must(t, os.Chmod(filepath.Dir(path), 0o755))
	must(t, os.Chmod(filepath.Dir(filepath.Dir(path)), 0o755))
	writer, _ := startChild(t, "lock", path)
	reader, _ := startChild(t, "users", path)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		const nobody, same = 65534, ^uintptr(0)
		if _, _, err := unix.RawSyscall(unix.SYS_SETRESUID, same, nobody, same); err != 0 {
			t.Error(err)
			return
		}
		list, all, err := Users(path, path+draftSuffix)
		want := User{PID: writer.Process.Pid, Lock: ExclusiveLock}
		if len(list) == 1 {
			want.Name = list[0].Name
		}
		if err != nil || all || len(list) != 1 || !reflect.DeepEqual(list[0], want) || want.Name == "" {
			t.Errorf("%+v, all %v, %v; want %+v", list, all, err, want)
		}
	}()
	<-done
	_ = reader
}

// Goal: a line of the kernel's list is read as it is meant, and one that is none does
// no harm.
func TestParseLock(t *testing.T) {
	for _, c := range []struct {
		name, line string
		want       lockLine
	}{
		{"of the whole file", "1: FLOCK  ADVISORY  WRITE 4242 fe:00:99 0 EOF\n", lockLine{"FLOCK", "WRITE", 4242, "fe:00:99", 0}},
		{"of a part", "\t2: OFDLCK ADVISORY  WRITE -1 fe:00:99 4611686018427387905 4611686018427387905\n", lockLine{"OFDLCK", "WRITE", -1, "fe:00:99", byteLocks + 1}},
		{"that waits", "1: -> FLOCK  ADVISORY  WRITE 4243 fe:00:99 0 EOF\n", lockLine{}},
		{"cut short", "1: FLOCK  ADVISORY", lockLine{}},
		{"empty", "", lockLine{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := parseLock(c.line); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}
