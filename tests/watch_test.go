package tests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

func init() {
	roles["watcher"] = func(args []string) int { return report(watchAndTell(args[0])) }
}

// watchAndTell prints each event.
func watchAndTell(path string) error {
	s, err := kv.Open(path, &kv.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	fmt.Println("open")
	for e := range s.Watch(context.Background(), nil) {
		if e.Err != nil {
			return e.Err
		}
		fmt.Println(eventText(&e))
	}
	return nil
}

// eventText is "key=value", or "key" for a deletion, and how many were missed.
func eventText(e *kv.Event) string {
	text := string(e.Key)
	if !e.Deleted {
		text += "=" + string(e.Value)
	}
	if e.Missed > 0 {
		text += " missed " + strconv.FormatUint(e.Missed, 10)
	}
	return text
}

// watcher takes the events of a watch one by one: between two of them its body sleeps.
type watcher struct {
	next func() (kv.Event, bool)
}

func watch(t *testing.T, events iter.Seq[kv.Event]) *watcher {
	t.Helper()
	next, stop := iter.Pull(events)
	t.Cleanup(stop)
	return &watcher{next}
}

// take takes as many events as want has, which must be those, and returns the last.
func (w *watcher) take(t *testing.T, want ...string) (last kv.Event) {
	t.Helper()
	for _, want := range want {
		e, ok := w.next()
		if !ok || e.Err != nil || eventText(&e) != want {
			t.Fatalf("the event is %s, %v, %t, want %s", eventText(&e), e.Err, ok, want)
		}
		last = e
	}
	return last
}

// takeErr takes the last event, with an error that is target.
func (w *watcher) takeErr(t *testing.T, target error) {
	t.Helper()
	e, _ := w.next()
	wantErr(t, e.Err, target)
	if e, ok := w.next(); ok {
		t.Fatalf("after the error comes %s", eventText(&e))
	}
}

// handles opens the store at path for writing, with a follower.
func handles(t *testing.T) (s *kv.Store, both map[string]*kv.Store) {
	t.Helper()
	path := storePath(t)
	s = open(t, path, &kv.Options{Durability: kv.SyncManual, CompactAt: -1})
	return s, map[string]*kv.Store{"writer": s, "follower": open(t, path, &kv.Options{ReadOnly: true})}
}

func put(t *testing.T, s *kv.Store, key, value string) {
	t.Helper()
	must(t, s.Put([]byte(key), []byte(value)))
}

func compactStore(t *testing.T, s *kv.Store) {
	t.Helper()
	_, err := s.Compact(t.Context())
	must(t, err)
}

// Goal: a watch tells first what is there, in the order of revisions, and then each change,
// with the caller's own bytes. Method: each kind of change, by a writer and its follower, with
// a prefix and without.
func TestWatch(t *testing.T) {
	s, both := handles(t)
	put(t, s, "a1", "gone")
	put(t, s, "b1", "1")
	put(t, s, "a2", "2")
	must(t, s.PutUntil([]byte("a3"), []byte("expired"), time.Now().Add(-time.Hour)))
	must(t, s.Delete([]byte("a1")))
	deadline := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	must(t, s.PutUntil([]byte("a4"), []byte{}, deadline))
	all, some := map[string]*watcher{}, map[string]*watcher{}
	for name, h := range both {
		all[name] = watch(t, h.Watch(t.Context(), nil))
		some[name] = watch(t, h.Watch(t.Context(), []byte("a")))
		all[name].take(t, "b1=1", "a2=2")
		some[name].take(t, "a2=2")
		for _, w := range []*watcher{all[name], some[name]} {
			if e := w.take(t, "a4="); e.Revision != 6 || !e.Expiry.Equal(deadline) || e.Value == nil {
				t.Fatalf("a4 is %+v", e)
			}
		}
	}
	put(t, s, "a2", "3")
	must(t, s.Delete([]byte("a2")))
	must(t, s.Delete([]byte("a2"))) // of which there is nothing to tell
	must(t, s.Update(func(tx *kv.Tx) error {
		return errors.Join(tx.Put([]byte("a5"), []byte("4")), tx.Put([]byte("b1"), []byte("5")), tx.Delete([]byte("a4")))
	}))
	must(t, s.PutUntil([]byte("a6"), []byte("6"), time.Now().Add(-time.Hour)))
	for name := range both {
		e := all[name].take(t, "a2=3", "a2", "a5=4", "b1=5", "a4")
		if e.Revision != 11 || e.Value != nil {
			t.Fatalf("a4's deletion is %+v", e)
		}
		some[name].take(t, "a2=3", "a2", "a5=4", "a4")
		for _, w := range []*watcher{all[name], some[name]} {
			if e := w.take(t, "a6=6"); !e.Expiry.Before(time.Now()) {
				t.Fatalf("a6 is %+v", e)
			}
		}
		e.Key[0], all[name] = '!', nil // nobody else's
	}
	verify(t, s)
}

// Goal: a watch goes on across compactions and clearings, whatever came while its body slept.
// Method: for each number of events that are left when that happens, each sequence of up to four steps;
// then the events are replayed, and must come to what the store has.
func TestWatchAcrossGenerations(t *testing.T) {
	steps := map[byte]func(t *testing.T, s *kv.Store){
		'c': compactStore,
		'x': func(t *testing.T, s *kv.Store) { must(t, s.Clear()) },
		'p': func(t *testing.T, s *kv.Store) { put(t, s, "b", "new"); put(t, s, "e", "5") },
		'd': func(t *testing.T, s *kv.Store) { must(t, s.Delete([]byte("c"))) },
	}
	sequences := []string{"c", "x", "cp", "xp", "pc", "px", "pcd", "pxd", "cc", "xx", "cx", "xc", "pcdc", "dcpc", "dcpx", "cxpc", "xpcd", "ccpc", "pxcd", "xcxp"}
	for _, sequence := range sequences {
		for taken := range 4 {
			t.Run(fmt.Sprint(sequence, taken), func(t *testing.T) {
				s, both := handles(t)
				for i, key := range []string{"a", "b", "c", "d"} {
					put(t, s, key, fmt.Sprint(i))
				}
				watchers, states := map[string]*watcher{}, map[string]*replay{}
				for name, h := range both {
					watchers[name], states[name] = watch(t, h.Watch(t.Context(), nil)), newReplay()
					for range taken + 1 {
						e, _ := watchers[name].next()
						states[name].event(t, &e)
					}
				}
				for _, step := range []byte(sequence) {
					steps[step](t, s)
				}
				put(t, s, "end", "")
				want, err := contents(s)
				must(t, err)
				for name, w := range watchers {
					r := states[name]
					for !r.ended {
						e, ok := w.next()
						if !ok {
							t.Fatal("the watch has ended")
						}
						r.event(t, &e)
					}
					if d := differs(r.now, want); d != "" {
						t.Errorf("%s: %s", name, d)
					}
				}
			})
		}
	}
}

// replay is what a watch has told so far.
type replay struct {
	now      map[string]string
	revision uint64 // of the last put
	events   uint64
	missed   uint64
	ended    bool // the key "end" was put
}

func newReplay() *replay { return &replay{now: map[string]string{}} }

func (r *replay) event(t *testing.T, e *kv.Event) {
	if e.Err != nil {
		t.Fatal(e.Err)
	}
	r.events, r.missed = r.events+1, r.missed+e.Missed
	key := string(e.Key)
	switch {
	case e.Deleted:
		delete(r.now, key)
		if e.Revision < r.revision {
			t.Fatalf("deletion of %q, %d, after %d", e.Key, e.Revision, r.revision)
		}
		return
	case e.Revision <= r.revision:
		t.Fatalf("put of %q, %d, after %d", e.Key, e.Revision, r.revision)
	case !e.Expiry.IsZero() && e.Expiry.Before(time.Now()):
		delete(r.now, key)
	default:
		r.now[key] = string(e.Value)
	}
	r.revision, r.ended = e.Revision, r.ended || key == "end"
}

// Goal: a watch whose body is slow is told of what is current, and how much it missed. Method: many
// more changes than it may lie behind, while the body sleeps: each change is an event, or
// missed; what is told of last is what the store has.
func TestWatchMisses(t *testing.T) {
	s, both := handles(t)
	put(t, s, "begin", "")
	watchers := map[string]*watcher{}
	for name, h := range both {
		watchers[name] = watch(t, h.Watch(t.Context(), nil))
		watchers[name].take(t, "begin=")
	}
	const n, keys = 10000, 16
	for i := range n {
		key := fmt.Sprint(i % keys)
		if i%5 == 4 {
			must(t, s.Delete([]byte(key)))
		} else {
			put(t, s, key, fmt.Sprint(i))
		}
	}
	put(t, s, "end", "")
	changes := s.Stats().Revision - 1
	want, err := contents(s)
	must(t, err)
	delete(want, "begin")
	for name, w := range watchers {
		r := newReplay()
		for !r.ended {
			e, _ := w.next()
			r.event(t, &e)
		}
		if d := differs(r.now, want); d != "" || r.events+r.missed != changes || r.events > 2000 || r.missed < 1 {
			t.Errorf("%s: %s: %d events and %d missed of %d", name, d, r.events, r.missed, changes)
		}
	}
}

// Goal: who resumes after any revision is told exactly of what came after it; and where the log
// does not have that any more, or never had it, hears so. Method: a log with each kind of
// record, before and after a compaction, a clearing and reopening.
func TestWatchResumes(t *testing.T) {
	s, _ := handles(t)
	path := s.Path()
	var want []string // by revision, from 1
	change := func() {
		for range 3 {
			put(t, s, "k", fmt.Sprint(len(want)))
			want = append(want, "k="+fmt.Sprint(len(want)))
			must(t, s.Update(func(tx *kv.Tx) error { return errors.Join(tx.Put([]byte("l"), []byte("1")), tx.Put([]byte("m"), nil)) }))
			must(t, s.Delete([]byte("l")))
			want = append(want, "l=1", "m=", "l")
		}
		must(t, s.Sync())
	}
	check := func(base int) {
		t.Helper()
		for name, h := range map[string]*kv.Store{"writer": s, "follower": open(t, path, &kv.Options{ReadOnly: true})} {
			for after := range len(want) + 2 {
				w := watch(t, h.WatchFrom(t.Context(), nil, uint64(after)))
				switch {
				case after < base:
					w.takeErr(t, kv.ErrCompacted)
				case after > len(want):
					w.takeErr(t, fs.ErrInvalid)
				case after < len(want):
					if e := w.take(t, want[after:]...); e.Revision != uint64(len(want)) {
						t.Fatalf("%s: the last event's revision is %d of %d", name, e.Revision, len(want))
					}
				default:
					checkEnding(t, h, uint64(after))
				}
			}
		}
	}
	change()
	check(0)
	compactStore(t, s)
	base := len(want)
	change()
	check(base)
	must(t, s.Close())
	s = open(t, path, nil)
	check(base)
	must(t, s.Clear())
	want = append(want, "")
	base = len(want)
	check(base)
	change()
	check(base)
}

// checkEnding fails the test unless a watch after the last revision has nothing to tell of, and
// ends with ctx.
func checkEnding(t *testing.T, s *kv.Store, after uint64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int)
	go func() {
		n := 0
		for range s.WatchFrom(ctx, nil, after) {
			n++
		}
		ended <- n
	}()
	cancel()
	if n := <-ended; n != 0 {
		t.Errorf("%d events", n)
	}
}

// Goal: what another process does to the store arrives, whoever of the two watches; a watcher that is
// killed harms nobody. Method: a writer in a child, and then a watcher in a child, asleep when it
// is killed.
func TestWatchAcrossProcesses(t *testing.T) {
	path := storePath(t)
	w := startServant(t, "obedient", path)
	f := open(t, path, &kv.Options{ReadOnly: true})
	events := watch(t, f.Watch(t.Context(), nil))
	v := func(n int) string { return string(valueOf(n, 1)) }
	for _, step := range []struct {
		order string
		want  []string
	}{
		{"put 10", []string{"k=" + v(10)}},
		{"tx 100", []string{"k=" + v(100), "l=" + v(100)}},
		{"put 3000000", []string{"k=" + v(3000000)}}, // growth
		{"compact", nil},
		{"put 11", []string{"k=" + v(11)}},
		{"delete", []string{"k"}},
		{"clear", []string{"l"}},
		{"put 12", []string{"k=" + v(12)}},
		{"reopen", nil},
		{"put 13", []string{"k=" + v(13)}},
	} {
		w.order(t, step.order)
		events.take(t, step.want...)
	}
	must(t, w.cmd.Process.Kill())
	w.cmd.Wait()
	s := open(t, path, nil)
	put(t, s, "k", "after the kill")
	events.take(t, "k=after the kill")

	child := startServant(t, "watcher", path)
	child.hear(t, "k=after the kill")
	for i := range 20 {
		put(t, s, "k", fmt.Sprint(i))
		child.hear(t, fmt.Sprint("k=", i))
	}
	must(t, child.cmd.Process.Kill())
	child.cmd.Wait()
	put(t, s, "k", "to nobody")
	child = startServant(t, "watcher", path)
	child.hear(t, "k=to nobody")
	must(t, os.Chmod(path, 0o400))
	put(t, s, "l", "1")
	child.hear(t, "l=1")
}

// Goal: all events of a transaction follow each other, and what they say is what the store says.
// Method: goroutines transact while watches look on; each transaction puts one value of its own to
// several keys.
func TestWatchTransactions(t *testing.T) {
	s, both := handles(t)
	const writers, rounds, keys = 4, 50, 5 // fewer changes than a watch may lie behind
	for i := range writers {
		go func() {
			for n := range rounds {
				err := s.Update(func(tx *kv.Tx) error {
					for k := range keys {
						if err := tx.Put(fmt.Append(nil, k), fmt.Append(nil, i, "-", n)); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		}()
	}
	for name, h := range both {
		var seen []string // the values of the transaction so far
		whole := 0
		for e := range h.WatchFrom(t.Context(), nil, 0) {
			if e.Err != nil || e.Missed != 0 {
				t.Fatal(name, e.Err, e.Missed)
			}
			seen = append(seen, string(e.Value))
			if len(seen) < keys {
				continue
			}
			if slices.Compact(slices.Clone(seen))[0] != seen[keys-1] || len(slices.Compact(seen)) != 1 {
				t.Fatalf("%s: a transaction of %v", name, seen)
			}
			seen = nil
			if whole++; whole == writers*rounds {
				break
			}
		}
	}
}

// Goal: whatever is done to a store, what a watch tells comes to what the store has; and it tells
// nothing that was not so. Method: random work with compactions and clearings, beside
// watches of both kinds of handles that start at random and dawdle; each value names its key and
// number, and the last write is the sign to compare.
func TestWatchModel(t *testing.T) {
	for _, seed := range seeds(6) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			s, both := handles(t)
			rnd := rand.New(rand.NewPCG(uint64(seed), 1))
			var states []*replay
			var all []chan error
			begin := func() {
				for name, h := range both {
					prefix := []string{"", "k1"}[rnd.IntN(2)]
					r, ended, dawdle := newReplay(), make(chan error, 1), rnd.IntN(3)
					go func() { ended <- watchModel(t, h, name, prefix, r, dawdle) }()
					states, all = append(states, r), append(all, ended)
				}
			}
			begin()
			for i := range 6000 {
				modelStep(t, s, rnd, i)
				if i%1500 == 700 {
					begin()
				}
			}
			must(t, s.Update(func(tx *kv.Tx) error {
				return errors.Join(tx.Put([]byte("k1 end"), []byte("k1 end/")), tx.Put([]byte("end"), []byte("end/")))
			}))
			want, err := contents(s)
			must(t, err)
			for i, r := range states {
				must(t, <-all[i])
				wanted := maps.Clone(want)
				if _, whole := r.now["end"]; !whole {
					maps.DeleteFunc(wanted, func(key, _ string) bool { return !strings.HasPrefix(key, "k1") })
				}
				if d := differs(r.now, wanted); d != "" {
					t.Errorf("watch %d, %d events, %d missed: %s", i, r.events, r.missed, d)
				}
			}
		})
	}
}

// watchModel replays a watch until the last write.
func watchModel(t *testing.T, h *kv.Store, name, prefix string, r *replay, dawdle int) error {
	for e := range h.Watch(t.Context(), []byte(prefix)) {
		if e.Err != nil {
			return fmt.Errorf("%s: %w", name, e.Err)
		}
		if !bytes.HasPrefix(e.Key, []byte(prefix)) || !e.Deleted && !bytes.HasPrefix(e.Value, append(e.Key, '/')) {
			return fmt.Errorf("%s: %q=%q", name, e.Key, e.Value)
		}
		if !e.Deleted && e.Revision <= r.revision || e.Revision < r.revision {
			return fmt.Errorf("%s: %q, %d after %d", name, e.Key, e.Revision, r.revision)
		}
		r.event(t, &e)
		if r.ended || prefix != "" && string(e.Key) == "k1 end" {
			return nil
		}
		if dawdle > 0 && e.Revision%97 == 0 {
			time.Sleep(time.Duration(dawdle) * 5 * time.Millisecond)
		}
	}
	return fmt.Errorf("%s: the watch has ended", name)
}

// modelStep does one thing at random, the i-th.
func modelStep(t *testing.T, s *kv.Store, rnd *rand.Rand, i int) {
	t.Helper()
	key := func() []byte { return fmt.Append(nil, "k", rnd.IntN(40)) }
	value := func(key []byte) []byte {
		return append(fmt.Append(bytes.Clone(key), "/", i), make([]byte, rnd.IntN(300))...)
	}
	k := key()
	switch n := rnd.IntN(1000); {
	case n < 3:
		must(t, s.Clear())
	case n < 10:
		compactStore(t, s)
	case n < 60:
		must(t, s.Update(func(tx *kv.Tx) error {
			for range 1 + rnd.IntN(200) {
				k := key()
				if rnd.IntN(3) == 0 {
					must(t, tx.Delete(k))
				} else {
					must(t, tx.Put(k, value(k)))
				}
			}
			return nil
		}))
	case n < 100:
		must(t, s.PutUntil(k, value(k), time.Now().Add(-time.Minute)))
	case n < 140:
		must(t, s.PutTTL(k, value(k), time.Hour))
	case n < 300:
		must(t, s.Delete(k))
	default:
		must(t, s.Put(k, value(k)))
	}
}
