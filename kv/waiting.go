package kv

import (
	"sync"
	"time"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// waiting is where the watches of a store wait for something new. One, whichever comes
// first, sleeps for all, with a thread of its own; the others wait for its news.
//
// A watch looks whether there is anything new once more after it has joined the others.
// What is published after that, the first hears of: it looks after it took the first place.
type waiting struct {
	mu      sync.Mutex
	watches int           // guarded by mu: those that go on
	news    chan struct{} // guarded by mu: closed when the first sleeps no more; nil: nobody does
	armed   event         // guarded by mu: what the first sleeps on
	over    bool          // guarded by mu: the store closes, and none of this may touch its file again

	// writable is the file of g, open for writing, where the store itself is open for reading only.
	// nil: it may not be written to. Guarded by mu.
	writable file
	g        *generation
}

// Where nobody wakes it, a watch looks for itself: after pollFirst, and then each time
// twice as long after, up to pollLast.
const (
	pollFirst = time.Millisecond
	pollLast  = 20 * time.Millisecond
)

func (t *waiting) join() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.watches++
}

func (t *waiting) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.watches--; t.watches == 0 {
		t.letGo()
	}
}

// letGo closes the file that was opened for the watches. The caller holds mu.
func (t *waiting) letGo() {
	if t.writable != nil {
		t.writable.Close()
	}
	t.writable, t.g = nil, nil
}

// any tells whether anybody watches.
func (t *waiting) any() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.watches > 0
}

// kick wakes the first, so that it looks whether it is to end.
func (t *waiting) kick() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kickFirst()
}

// kickFirst is kick. The caller holds mu.
func (t *waiting) kickFirst() {
	if t.armed.file != nil {
		t.armed.kick()
	}
}

// end wakes the first for good.
func (t *waiting) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kickFirst()
	t.over, t.armed = true, event{}
	t.letGo()
}

// wait returns when there may be something new for w, or w is to end.
func (t *waiting) wait(w *watch) {
	t.mu.Lock()
	news, first := t.news, t.news == nil
	if first {
		news = make(chan struct{})
		t.news = news
	}
	t.mu.Unlock()
	if !first {
		if !w.hasNews() {
			pause(w, news)
		}
		return
	}
	t.sleep(w)
	t.mu.Lock()
	t.news, t.armed = nil, event{}
	t.mu.Unlock()
	close(news)
}

// sleep is wait of the first.
func (t *waiting) sleep(w *watch) {
	for poll := pollFirst; ; poll = min(2*poll, pollLast) {
		e, seen, err := t.arm(w)
		if err != nil || w.hasNews() || w.ended() {
			return
		}
		if e.file == nil {
			pause(w, time.After(poll))
		} else if err := e.with(func(e mmapfile.Event) { e.Wait(seen, watchPatience) }); err != nil {
			return // whoever looks next meets it too
		}
	}
}

// pause waits for c, or until w is to end.
func pause[T any](w *watch, c <-chan T) {
	select {
	case <-c:
	case <-w.ctx.Done():
	case <-w.s.closing.Done():
	}
}

// arm says in the file that somebody waits. Where that is not allowed, e has no file.
func (t *waiting) arm(w *watch) (e event, seen uint32, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return event{}, 0, ErrClosed
	}
	if t.armed.file, err = t.mayWrite(w.s, w.g); t.armed.file == nil || err != nil {
		return event{}, 0, err
	}
	err = t.armed.with(func(e mmapfile.Event) { seen = e.Announce() })
	return t.armed, seen, err
}

// mayWrite returns the file in which the event of g may be set, or nil. The caller holds mu.
func (t *waiting) mayWrite(s *Store, g *generation) (file, error) {
	if !s.opts.ReadOnly {
		return g.file, nil
	}
	if t.g != g {
		t.letGo()
		t.g, t.writable = g, s.openWritable(g)
	}
	// The time of a file that nobody has open for writing must stay: by it the next to open it tells
	// that the checkpoint is good. Who closes it in between leaves it to an Open to read the log.
	holder, err := g.holder()
	if holder == 0 || err != nil {
		return nil, err
	}
	return t.writable, nil
}

func (g *generation) holder() (holder uint64, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	return g.log.current.Load().Word(crc.HolderOff).Load(), nil
}

// openWritable opens the file of g once more, for writing, or returns nil.
func (s *Store) openWritable(g *generation) file {
	f, err := s.disk.Open(s.path, mmapfile.ReadWrite)
	if err != nil {
		return nil
	}
	is, err := f.Identity()
	want, wantErr := g.file.Identity()
	if err != nil || wantErr != nil || is.Inode != want.Inode || is.Length < crc.HeaderSize {
		f.Close()
		return nil
	}
	return f
}
