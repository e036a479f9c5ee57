package mmapfile

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// Goal: those who share the lock exclude who wants it alone, and the other way round, and each
// error says how it is held. Method: three Files of one process.
func TestShare(t *testing.T) {
	f, path := newTestFile(t, 1)
	g, h := openTest(t, path, ReadWrite), openTest(t, path, ReadWrite)
	wantLocked := func(err error, shared bool) {
		t.Helper()
		var locked *LockedError
		if !errors.As(err, &locked) || locked.Shared != shared || locked.PID != os.Getpid() {
			t.Fatalf("%v, want a lock of process %d, shared %v", err, os.Getpid(), shared)
		}
	}
	must(t, f.TryShare())
	must(t, g.TryShare())
	wantLocked(h.TryLock(8), true)
	must(t, f.Close())
	wantLocked(h.TryLock(8), true)
	must(t, g.Close())
	must(t, h.TryLock(8))
	wantLocked(openTest(t, path, ReadWrite).TryShare(), false)
}

// Goal: a byte lock is its holder's, or that of all who share it; each is independent of the
// others, and Close frees it. Method: three Files of one process, and one that only reads and asks.
func TestByteLock(t *testing.T) {
	f, path := newTestFile(t, 1)
	g, h := openTest(t, path, ReadWrite), openTest(t, path, ReadOnly)
	try := func(f *File, b ByteLock, share, want bool) {
		t.Helper()
		if had, err := f.TryLockByte(b, share); err != nil || had != want {
			t.Fatalf("lock %d: %v, %v, want %v", b, had, err, want)
		}
	}
	locked := func(f *File, b ByteLock, want bool) {
		t.Helper()
		if is, err := f.ByteLocked(b); err != nil || is != want {
			t.Fatalf("lock %d is locked: %v, %v, want %v", b, is, err, want)
		}
	}
	must(t, f.TryShare()) // so that Close frees byte locks
	try(f, 0, false, true)
	try(f, 0, false, true) // again
	try(g, 0, false, false)
	try(g, 0, true, false)
	try(g, 1, false, true)
	locked(f, 0, false) // by another
	locked(g, 0, true)
	locked(h, 0, true)
	must(t, f.UnlockByte(0))
	locked(h, 0, false)
	try(f, 2, true, true)
	try(g, 2, true, true)
	try(g, 2, false, false)
	must(t, f.Close())
	try(g, 2, false, true)
}

// Goal: the lock of a name is held by all who take it, whatever files have the name, and by
// nobody once they have closed it. Method: two of one name, and one of another.
func TestNameLock(t *testing.T) {
	dir := t.TempDir()
	open := func(name string) *NameLock {
		t.Helper()
		l, err := OpenName(dir + "/" + name)
		must(t, err)
		return l
	}
	shared := func(l *NameLock, want bool) {
		t.Helper()
		if is, err := l.Shared(); err != nil || is != want {
			t.Fatalf("shared: %v, %v, want %v", is, err, want)
		}
	}
	a, b, other := open("a"), open("a"), open("b")
	defer b.Close()
	defer other.Close()
	shared(b, false)
	must(t, a.Share())
	shared(a, false) // by another
	shared(b, true)
	shared(other, false)
	must(t, b.Share())
	shared(a, true)
	a.Close()
	shared(b, false)
}

// Goal: who has the lock is read off the kernel's table. Method: lines of it, some of them nonsense.
func TestFindHolder(t *testing.T) {
	const table = `1: FLOCK  ADVISORY  WRITE 4711 fd:00:131 0 EOF
2: POSIX  ADVISORY  WRITE 12 fd:00:132 0 EOF
2: -> FLOCK  ADVISORY  WRITE 13 fd:00:132 0 EOF
3: FLOCK  ADVISORY  READ 14 fd:00:132 0 EOF
4: OFDLCK ADVISORY  READ -1 fd:00:133 0 EOF
5: FLOCK  ADVISORY  READ -1 fd:00:134 0 EOF
nonsense
6: FLOCK
`
	for file, want := range map[string]struct {
		pid    int
		shared bool
	}{"fd:00:131": {4711, false}, "fd:00:132": {14, true}, "fd:00:133": {}, "fd:00:134": {0, true}, "fd:00:13": {}} {
		if pid, shared := findHolder(strings.NewReader(table), file); pid != want.pid || shared != want.shared {
			t.Errorf("%s: process %d, shared %v; want %v", file, pid, shared, want)
		}
	}
}

// Goal: who waits is woken by another process, through a mapping of its own of the file; and
// without being woken, it wakes up in time. Method: a child wakes, again and again, as long as
// we announce that we wait.
func TestEvent(t *testing.T) {
	f, path := newTestFile(t, 1)
	event := f.Mapping().Event(16)
	if event.Waited() {
		t.Fatal("somebody waits")
	}
	seen := event.Announce()
	event.Wait(seen, time.Millisecond)
	if !event.Waited() {
		t.Fatal("the announcement is gone")
	}
	event.Wake(WakeAll)
	if event.Waited() {
		t.Fatal("who was woken waits")
	}
	event.Wait(seen, time.Hour) // it was woken since

	child, line := startChild(t, "wake", path)
	if line != "waking" {
		t.Fatal(line)
	}
	for range 100 {
		event.Wait(event.Announce(), time.Hour)
	}
	must(t, child.Process.Kill())
}
