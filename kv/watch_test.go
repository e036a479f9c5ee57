package kv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// puller takes the events of a watch one by one: between two of them the body sleeps.
type puller struct {
	t    *testing.T
	next func() (Event, bool)
}

func pull(t *testing.T, seq iter.Seq[Event]) *puller {
	t.Helper()
	next, stop := iter.Pull(seq)
	t.Cleanup(stop)
	return &puller{t, next}
}

// take takes the next event, which must be want: its key and value, or only its key for a
// deletion.
func (p *puller) take(want ...string) (last Event) {
	p.t.Helper()
	for _, want := range want {
		e, ok := p.next()
		key, value, put := strings.Cut(want, "=")
		if !ok || e.Err != nil || string(e.Key) != key || string(e.Value) != value || e.Deleted == put {
			p.t.Fatalf("the event is %q=%q of %d, deleted=%t, %v, %t, want %s", e.Key, e.Value, e.Revision, e.Deleted, e.Err, ok, want)
		}
		last = e
	}
	return last
}

// takeErr takes the last event, which must have an error that is target.
func (p *puller) takeErr(target error) {
	p.t.Helper()
	e, ok := p.next()
	var outer *Error
	if !ok || !errors.Is(e.Err, target) || !errors.As(e.Err, &outer) || e.Key != nil {
		p.t.Fatalf("the event is %+v, %t, want one with %v", e, ok, target)
	}
	p.takeEnd()
}

func (p *puller) takeEnd() {
	p.t.Helper()
	if e, ok := p.next(); ok {
		p.t.Fatalf("the watch goes on with %+v", e)
	}
}

// drain counts the events of a watch on a goroutine, until it ends.
func drain(seq iter.Seq[Event]) (heard func() int, ended chan struct{}) {
	var mu sync.Mutex
	n := 0
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		for range seq {
			mu.Lock()
			n++
			mu.Unlock()
		}
	}()
	return func() int { mu.Lock(); defer mu.Unlock(); return n }, ended
}

// sleeps tells whether a watch of s sleeps, and whether it will be woken.
func (s *Store) sleeps() (yes, woken bool) {
	s.waiting.mu.Lock()
	defer s.waiting.mu.Unlock()
	return s.waiting.news != nil, s.waiting.armed.file != nil
}

// eventWord is the word by which the watches of s are woken; its lowest bit, waited, says that
// somebody waits.
func eventWord(s *Store) uint32 {
	return uint32(s.gen.Load().log.current.Load().Word(crc.EventOff).Load())
}

const waited = 1

// Goal: the event word is touched only where somebody waits, and unset by who wakes him.
// Method: the word before and after puts, without a watch and with one that is asleep.
func TestEventWord(t *testing.T) {
	s := openTest(t, nil)
	mustPut(t, s, "a", "1")
	if word := eventWord(s); word != 0 {
		t.Errorf("without a watch the word is %#x", word)
	}
	ctx, cancel := context.WithCancel(t.Context())
	heard, ended := drain(s.Watch(ctx, nil))
	waitFor(t, "sleep", func() bool { return eventWord(s)&waited != 0 })
	if n := heard(); n != 1 {
		t.Errorf("%d events before it sleeps", n)
	}
	before := eventWord(s)
	mustPut(t, s, "b", "2")
	waitFor(t, "the event", func() bool { return heard() == 2 })
	if word := eventWord(s); word>>1 != before>>1+1 {
		t.Errorf("the word was %#x, and is %#x", before, word)
	}
	cancel()
	<-ended
	mustPut(t, s, "c", "3")
	if word := eventWord(s); word&waited != 0 {
		t.Errorf("the bit that nobody needs is still set: %#x", word)
	}
	if s.waiting.any() {
		t.Error("a watch is left")
	}
}

// Goal: many watches of a store sleep in one, and go on when that one ends. Method: the
// first to sleep, and each after it, is ended while the others sleep; all others hear of the
// next put.
func TestWatchesSleepInOne(t *testing.T) {
	s := openTest(t, nil)
	const n = 8
	var heard [n]func() int
	var cancel [n]func()
	for i := range n {
		var ctx context.Context
		ctx, cancel[i] = context.WithCancel(t.Context())
		var ended chan struct{}
		heard[i], ended = drain(s.Watch(ctx, nil))
		stop := cancel[i]
		cancel[i] = func() { stop(); <-ended }
		waitFor(t, "sleep", func() bool { yes, woken := s.sleeps(); return yes && woken })
	}
	for i := range n {
		mustPut(t, s, "k", fmt.Sprint(i))
		for j := i; j < n; j++ {
			waitFor(t, "the event", func() bool { return heard[j]() == i+1 })
		}
		cancel[i]()
		if got := heard[i](); got != i+1 {
			t.Errorf("watch %d heard %d events", i, got)
		}
	}
}

// Goal: Close ends the watches, asleep or not, and after it they leave the file alone.
// Method: the file's time and bytes when Close has returned, and once all have ended.
func TestWatchEndsWithClose(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "store"), nil)
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, "k", "1")
	p := pull(t, s.Watch(t.Context(), nil))
	p.take("k=1")
	var all []chan struct{}
	for range 4 {
		_, ended := drain(s.Watch(t.Context(), nil))
		all = append(all, ended)
	}
	waitFor(t, "sleep", func() bool { _, woken := s.sleeps(); return woken })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, ended := range all {
		<-ended
	}
	p.takeEnd()
	after, err := os.Stat(s.Path())
	if err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("modified at %v, closed at %v, %v", after.ModTime(), before.ModTime(), err)
	}
	pull(t, s.Watch(t.Context(), nil)).takeEnd()
}

// guardedDisk is one whose files may not be written to.
type guardedDisk struct{ disk }

func (d guardedDisk) Open(path string, mode mmapfile.Mode) (file, error) {
	if mode == mmapfile.ReadWrite {
		return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.EACCES}
	}
	return d.disk.Open(path, mode)
}

// Goal: a follower that may not write to the file watches it all the same, and leaves it
// as it is. Method: a disk that refuses to open it so; the writer puts, transacts, compacts and
// clears while the watch is asleep.
func TestWatchWithoutPermission(t *testing.T) {
	s := openTest(t, nil)
	mustPut(t, s, "a", "1")
	f, err := openOn(guardedDisk{osDisk{}}, s.Path(), &Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := pull(t, f.Watch(t.Context(), nil))
	p.take("a=1")
	later := func(write func() error, want ...string) {
		t.Helper()
		done := make(chan error, 1)
		go func() {
			waitFor(t, "sleep", func() bool { yes, woken := f.sleeps(); return yes && !woken })
			if word := eventWord(s); word != 0 {
				done <- fmt.Errorf("the word is %#x", word)
			} else {
				done <- write()
			}
		}()
		p.take(want...)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	later(func() error { return s.Put([]byte("b"), []byte("2")) }, "b=2")
	later(func() error {
		return s.Update(func(tx *Tx) error {
			return errors.Join(tx.Put([]byte("c"), []byte("3")), tx.Delete([]byte("a")), tx.Put([]byte("d"), nil))
		})
	}, "c=3", "a", "d=")
	later(func() error {
		_, err := s.Compact(t.Context())
		return errors.Join(err, s.Put([]byte("e"), []byte("4")))
	}, "e=4")
	later(s.Clear, "b", "c", "d", "e")
}

// Goal: where nobody has the store open for writing, to watch it leaves its file as it is, so
// that its checkpoint stays good; the next writer's changes arrive. Method: the file's time
// and what Open reads, after a watch was asleep.
func TestWatchOfClosedStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	w, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10000 {
		mustPut(t, w, fmt.Sprint(i), "1")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f := openTestAt(t, path, &Options{ReadOnly: true})
	heard, _ := drain(f.Watch(t.Context(), []byte("99")))
	waitFor(t, "sleep", func() bool {
		f.waiting.mu.Lock()
		defer f.waiting.mu.Unlock()
		return f.waiting.g != nil // it was asked whether the file may be written to
	})
	after, err := os.Stat(path)
	if _, woken := f.sleeps(); woken || err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("woken=%t; modified at %v, closed at %v, %v", woken, after.ModTime(), before.ModTime(), err)
	}
	w = openTestAt(t, path, nil)
	if w.Stats().Checkpoint == 0 {
		t.Error("Open read the log")
	}
	mustPut(t, w, "999999", "2")
	waitFor(t, "the event", func() bool { return heard() == 112 })
	waitFor(t, "a sleep from which it is woken", func() bool { _, woken := f.sleeps(); return woken })
}

// stiffFile is one that does not grow with what others write.
type stiffFile struct{ file }

func (f stiffFile) Refresh() error { return syscall.EIO }

// Goal: a watch whose follower could not take in the end of a generation that was replaced
// tells all the same how that and the next differ. Method: the file's growth is hidden
// from the follower; a compaction follows while the body is asleep.
func TestWatchWithoutTheRest(t *testing.T) {
	s := openTest(t, nil)
	for _, kv := range []string{"a", "b", "c", "d"} {
		mustPut(t, s, kv, "1")
	}
	f := openTestAt(t, s.Path(), &Options{ReadOnly: true})
	p := pull(t, f.Watch(t.Context(), nil))
	p.take("a=1", "b=1")
	g := f.gen.Load()
	g.file = stiffFile{g.file}
	mustPut(t, s, "big", string(make([]byte, 3<<20)))
	mustPut(t, s, "b", "2")
	if err := errors.Join(s.Delete([]byte("c")), s.Delete([]byte("big"))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, "d", "2")
	p.take("c=1", "d=1", "c")
	if e := p.take("b=2"); e.Missed != 1 { // big
		t.Errorf("%d missed before b", e.Missed)
	}
	if e := p.take("d=2"); e.Missed != 2 { // the deletions, one of which was told of
		t.Errorf("%d missed before d", e.Missed)
	}
}

// Goal: a page that is gone is the last event, and no signal. Method: the file is cut short
// beneath a watch that has begun.
func TestWatchFault(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "store"), &Options{Durability: SyncManual})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mustPut(t, s, "a", "1")
	p := pull(t, s.Watch(t.Context(), nil))
	p.take("a=1")
	mustPut(t, s, "b", string(make([]byte, 1<<20)))
	if err := os.Truncate(s.Path(), crc.HeaderSize); err != nil {
		t.Fatal(err)
	}
	p.takeErr(ErrFault)
}

// Goal: a watch holds no more than the generation that it reads, and lets that go. Method: the
// generations are garbage once the body, which slept through compactions, has gone on.
func TestWatchHoldsOneGeneration(t *testing.T) {
	s := openTest(t, nil)
	mustPut(t, s, "a", "1")
	p := pull(t, s.Watch(t.Context(), nil))
	p.take("a=1")
	gone := make(chan uint64, 3)
	for range 3 {
		g := s.gen.Load()
		runtime.AddCleanup(g, func(n uint64) { gone <- n }, g.header.Generation)
		if _, err := s.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	collect := func(want ...uint64) {
		t.Helper()
		left := make(map[uint64]bool)
		for _, n := range want {
			left[n] = true
		}
		waitFor(t, "the end of a generation", func() bool {
			runtime.GC()
			for {
				select {
				case n := <-gone:
					if !left[n] {
						t.Fatalf("generation %d is gone", n)
					}
					delete(left, n)
				default:
					return len(left) == 0
				}
			}
		})
	}
	collect(2, 3)
	mustPut(t, s, "b", "2")
	p.take("b=2") // of how the two generations differ
	mustPut(t, s, "c", "3")
	p.take("c=3")
	collect(1)
}
