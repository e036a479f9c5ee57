package tests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/internal/invariants"
	"github.com/mmapkv/mmapkv/kv"
)

// crowd runs goroutines until one fails or the time is over. The time decides
// only how much is tried.
type crowd struct {
	stop chan struct{}
	errs chan error
	wg   sync.WaitGroup
}

func newCrowd() *crowd { return &crowd{stop: make(chan struct{}), errs: make(chan error, 100)} }

// loop calls fn again and again, with the number of the call.
func (c *crowd) loop(name string, fn func(n int) error) {
	c.wg.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-c.stop:
				return
			default:
			}
			if err := fn(n); err != nil {
				c.errs <- fmt.Errorf("%s, call %d: %w", name, n, err)
				return
			}
		}
	})
}

func (c *crowd) run(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case err := <-c.errs:
		t.Error(err)
	case <-time.After(d * time.Duration(*scaleFlag)):
	}
	close(c.stop)
	c.wg.Wait()
	select {
	case err := <-c.errs:
		t.Error(err)
	default:
	}
}

const crowdKeys = 64

func crowdKey(k int) string { return fmt.Sprintf("key %d", k) }

// Goal: the contract of concurrent use: no reader sees a value that was not
// written to that key, nor a key go back, nor half a transaction, whatever
// writers, growth, compaction, snapshots and followers do meanwhile.
// Method: all of them at once on values that describe themselves. A round with
// Clear, where keys may vanish, and one without.
func TestConcurrency(t *testing.T) {
	for _, tc := range []struct {
		name  string
		clear bool
		opts  kv.Options
	}{
		{"periodic", false, kv.Options{SyncEvery: time.Millisecond, SyncBytes: 1 << 16, CompactAt: 0.3}},
		{"always", false, kv.Options{Durability: kv.SyncAlways}},
		{"manual, clear", true, kv.Options{Durability: kv.SyncManual, VerifyReads: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := storePath(t)
			s := open(t, path, &tc.opts)
			f := open(t, path, &kv.Options{ReadOnly: true})
			c := newCrowd()
			var cleared atomic.Bool
			cleared.Store(tc.clear)
			var writing sync.Mutex // numbers are drawn and written under it, so that they ascend per key
			seq := uint64(0)
			for w := range 3 {
				rng := rand.New(rand.NewPCG(uint64(w), 5))
				c.loop("writer", func(int) error {
					k := crowdKey(rng.IntN(crowdKeys))
					size := rng.IntN(200)
					if rng.IntN(200) == 0 {
						size = rng.IntN(1 << 20)
					}
					writing.Lock()
					defer writing.Unlock()
					seq++
					switch rng.IntN(4) {
					case 0:
						return s.Compute([]byte(k), func(old []byte, ok bool) ([]byte, kv.Op) { return statement(k, seq, size), kv.Write })
					case 1:
						return s.Update(func(tx *kv.Tx) error {
							return errors.Join(tx.Put([]byte("pair a"), statement("pair a", seq, size)), tx.Put([]byte(k), statement(k, seq, 0)),
								tx.Put([]byte("pair b"), statement("pair b", seq, 10)))
						})
					}
					return s.Put([]byte(k), statement(k, seq, size))
				})
			}
			// A writer that races with the others, on keys of its own.
			c.loop("lone writer", func(n int) error {
				k := "lone"
				if n%5 == 4 {
					return s.Delete([]byte(k))
				}
				return s.Put([]byte(k), statement(k, uint64(n), n%700))
			})
			for name, r := range map[string]*kv.Store{"reader": s, "follower": f} {
				for range 2 {
					readAlong(c, name, r, &cleared)
				}
			}
			c.loop("snapshots", func(int) error { return snapshotHolds(s) })
			c.loop("follower's snapshots", func(int) error { return snapshotHolds(f) })
			c.loop("copies", func(n int) error { return copyHolds(s, filepath.Join(filepath.Dir(path), fmt.Sprint("copy", n))) })
			c.loop("compactions", func(int) error {
				time.Sleep(2 * time.Millisecond)
				_, err := s.Compact(t.Context())
				return err
			})
			c.loop("verify", func(int) error { return errors.Join(sound(s), s.Sync()) })
			if tc.clear {
				c.loop("clear", func(int) error { time.Sleep(7 * time.Millisecond); return s.Clear() })
			}
			c.run(t, 1500*time.Millisecond)
		})
	}
}

// readAlong reads keys in every way and checks that none goes back.
func readAlong(c *crowd, name string, s *kv.Store, cleared *atomic.Bool) {
	newest := map[string]uint64{}
	see := func(key string, value []byte, ok bool) error {
		if !ok {
			if newest[key] > 0 && !cleared.Load() {
				return fmt.Errorf("key %q was there and is gone", key)
			}
			return nil
		}
		got, err := seqOf(key, value)
		if err == nil && got < newest[key] {
			err = fmt.Errorf("key %q went from %d to %d", key, newest[key], got)
		}
		newest[key] = max(newest[key], got)
		return err
	}
	c.loop(name, func(n int) error {
		key := crowdKey(n % crowdKeys)
		switch n % 4 {
		case 0:
			v, err := s.Get([]byte(key))
			if err != nil && err != kv.ErrNotFound {
				return err
			}
			return see(key, v, err == nil)
		case 1:
			err := s.View([]byte(key), func(v []byte) error { return see(key, v, true) })
			if err == kv.ErrNotFound {
				return see(key, nil, false)
			}
			return err
		case 2:
			keys := [][]byte{[]byte(crowdKey(n % 7)), []byte(key), []byte(crowdKey(n % 11))}
			return s.GetMany(keys, func(i int, v []byte, ok bool) error { return see(string(keys[i]), v, ok) })
		}
		// A, then B, of a pair always written together: B is never the older.
		a, err := readSeq(s, "pair a")
		if err != nil {
			return err
		}
		b, err := readSeq(s, "pair b")
		if err == nil && b < a && !cleared.Load() {
			err = fmt.Errorf("saw half a transaction: a is %d and then b %d", a, b)
		}
		return err
	})
}

// snapshotHolds iterates and checks that all is of one moment.
func snapshotHolds(s *kv.Store) error {
	seqs := map[string]uint64{}
	it := s.Iter(nil)
	for k, v := range it.All() {
		n, err := seqOf(string(k), v)
		if err != nil {
			return err
		}
		if _, twice := seqs[string(k)]; twice {
			return fmt.Errorf("key %q twice", k)
		}
		seqs[string(k)] = n
	}
	if seqs["pair a"] != seqs["pair b"] {
		return fmt.Errorf("snapshot of half a transaction: %d and %d", seqs["pair a"], seqs["pair b"])
	}
	return it.Err()
}

// copyHolds writes the store to path, opens that, and checks it.
func copyHolds(s *kv.Store, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	defer f.Close()
	if _, err := s.WriteTo(f); err != nil {
		return err
	}
	c, err := kv.Open(path, nil)
	if err != nil {
		return err
	}
	return errors.Join(snapshotHolds(c), sound(c), c.Close())
}

// Goal: what an expiry hid stays hidden after a compaction that was under way.
// Method: the progress hook holds the compaction when it has copied the live
// entry; then that is replaced by one which has expired, or is deleted.
func TestCompactKeepsExpiry(t *testing.T) {
	for _, tc := range []struct {
		name  string
		write func(s *kv.Store) error
		want  string // "": absent
	}{
		{"expired", func(s *kv.Store) error { return s.PutUntil([]byte("k"), []byte("new"), time.Now().Add(-time.Hour)) }, ""},
		{"expired in a transaction", func(s *kv.Store) error {
			return s.Update(func(tx *kv.Tx) error { return tx.PutUntil([]byte("k"), nil, time.Now().Add(-time.Hour)) })
		}, ""},
		{"deleted", func(s *kv.Store) error { return s.Delete([]byte("k")) }, ""},
		{"written", func(s *kv.Store) error { return s.Put([]byte("k"), []byte("new")) }, "new"},
		{"expired and written", func(s *kv.Store) error {
			return errors.Join(s.PutUntil([]byte("k"), nil, time.Now().Add(-time.Hour)), s.Put([]byte("k"), []byte("new")))
		}, "new"},
		{"deleted, written, deleted", func(s *kv.Store) error {
			return errors.Join(s.Delete([]byte("k")), s.Put([]byte("k"), []byte("new")), s.Delete([]byte("k")))
		}, ""},
	} {
		// With so much beside it that the compaction goes through the index again, or little.
		for _, much := range []string{"", ", then much", ", after much"} {
			t.Run(tc.name+much, func(t *testing.T) {
				ask, done := make(chan struct{}), make(chan error)
				var once sync.Once
				path := storePath(t)
				s := open(t, path, &kv.Options{CompactAt: -1, Hooks: &kv.Hooks{Progress: func(op string, n, total int64) {
					if op == "compact" && n >= total {
						once.Do(func() { ask <- struct{}{}; <-done })
					}
				}}})
				must(t, s.Put([]byte("k"), []byte("old")))
				must(t, s.Put([]byte("other"), []byte("stays")))
				failed := make(chan error, 1)
				fill := func(when string) (err error) {
					for i := 0; i < 1000 && much == when; i++ {
						err = errors.Join(err, s.Put([]byte("filler"), make([]byte, 1000)))
					}
					return err
				}
				go func() {
					<-ask
					failed <- errors.Join(fill(", after much"), tc.write(s), fill(", then much"))
					close(done)
				}()
				_, err := s.Compact(t.Context())
				must(t, err)
				must(t, <-failed)
				revision := s.Stats().Revision
				want := map[string]string{"other": "stays"}
				if much != "" {
					want["filler"] = string(make([]byte, 1000))
				}
				if tc.want != "" {
					want["k"] = tc.want
				}
				wantContents(t, s, want)
				copyFile(t, path, path+".image")
				closeSound(t, s)
				for _, p := range []string{path, path + ".image"} {
					s = open(t, p, nil)
					wantContents(t, s, want)
					if got := s.Stats().Revision; got != revision {
						t.Errorf("reopened at revision %d, was %d", got, revision)
					}
				}
			})
		}
	}
}

// Goal: who keeps what a callback was lent finds out in his tests.
// Method: builds that check invariants overwrite it; others need not.
func TestKeptSlices(t *testing.T) {
	if !invariants.Enabled {
		t.Skip("SKIPPED: only builds with -race or -tags invariants overwrite what was lent")
	}
	s := open(t, storePath(t), nil)
	must(t, s.Put([]byte("key"), []byte("value")))
	var kept [][]byte
	must(t, s.View([]byte("key"), func(v []byte) error { kept = append(kept, v); return nil }))
	must(t, s.GetMany([][]byte{[]byte("key")}, func(_ int, v []byte, _ bool) error { kept = append(kept, v); return nil }))
	must(t, s.Compute([]byte("key"), func(v []byte, _ bool) ([]byte, kv.Op) { kept = append(kept, v); return nil, kv.Keep }))
	for k, v := range s.Iter(nil).All() {
		kept = append(kept, k, v)
	}
	if len(kept) != 5 {
		t.Fatalf("%d slices", len(kept))
	}
	for i, v := range kept {
		if bytes.Contains([]byte("key value"), v) {
			t.Errorf("slice %d still reads %q", i, v)
		}
	}
}

// Goal: what Get returned, and what Put was given, is the caller's.
// Method: both are overwritten, and the store looked at again.
func TestOwnSlices(t *testing.T) {
	s := open(t, storePath(t), nil)
	key, value := []byte("key"), []byte("value")
	must(t, s.Put(key, value))
	copy(key, "xxx")
	copy(value, "xxxxx")
	wantGet(t, s, "key", "value")
	got, err := s.Get([]byte("key"))
	must(t, err)
	copy(got, "yyyyy")
	_ = append(got, "overrun"...)
	wantGet(t, s, "key", "value")
}

// everyMethod calls each method that can fail and returns the errors by name.
func everyMethod(s *kv.Store) map[string]error {
	k := []byte("key 1")
	errs := map[string]error{}
	_, errs["Get"] = s.Get(k)
	_, errs["GetAppend"] = s.GetAppend(nil, k)
	errs["GetMany"] = s.GetMany([][]byte{k}, func(int, []byte, bool) error { return nil })
	errs["View"] = s.View(k, func([]byte) error { return nil })
	_, errs["Has"] = s.Has(k)
	errs["Put"] = s.Put(k, k)
	errs["PutDurable"] = s.PutDurable(k, k)
	errs["PutTTL"] = s.PutTTL(k, k, time.Hour)
	errs["PutUntil"] = s.PutUntil(k, k, time.Now().Add(time.Hour))
	errs["Delete"] = s.Delete(k)
	errs["Compute"] = s.Compute(k, func([]byte, bool) ([]byte, kv.Op) { return k, kv.Write })
	_, errs["CompareAndSwap"] = s.CompareAndSwap(k, nil, k)
	errs["Update"] = s.Update(func(tx *kv.Tx) error { return tx.Put(k, k) })
	_, errs["Iter"] = contents(s)
	for _, err := range s.Records(context.Background()) {
		errs["Records"] = errors.Join(errs["Records"], err)
	}
	errs["Clear"] = s.Clear()
	errs["Sync"] = s.Sync()
	_, errs["Compact"] = s.Compact(context.Background())
	_, errs["Verify"] = s.Verify(context.Background())
	_, errs["WriteTo"] = s.WriteTo(io.Discard)
	return errs
}

// Goal: after Close everything but Close returns ErrClosed, Close the same as
// before; on a handle that only reads, every mutation returns ErrReadOnly.
// Method: every method.
func TestEveryMethodRefuses(t *testing.T) {
	path := storePath(t)
	s := open(t, path, nil)
	must(t, s.Put([]byte("key 1"), nil))
	it := s.Iter(nil)
	r := open(t, path, &kv.Options{ReadOnly: true})
	reads := map[string]bool{"Get": true, "GetAppend": true, "GetMany": true, "View": true, "Has": true, "Iter": true, "Records": true, "Verify": true, "WriteTo": true}
	for name, err := range everyMethod(r) {
		if reads[name] && err != nil || !reads[name] && !errors.Is(err, kv.ErrReadOnly) {
			t.Errorf("read-only: %s: %v", name, err)
		}
	}
	for _, h := range []*kv.Store{s, r} {
		must(t, h.Close())
		must(t, h.Close())
		for name, err := range everyMethod(h) {
			if !errors.Is(err, kv.ErrClosed) {
				t.Errorf("closed: %s: %v", name, err)
			}
		}
		if h.Len() != 0 {
			t.Errorf("closed: Len is %d", h.Len())
		}
	}
	n := 0
	for range it.All() {
		n++
	}
	if n != 1 && !errors.Is(it.Err(), kv.ErrClosed) {
		t.Errorf("an iterator from before Close yields %d entries, %v", n, it.Err())
	}
}

// Goal: Close beside any other call makes that call finish or return ErrClosed.
// Method: goroutines that call everything; Close in the middle; what was
// acknowledged is there afterwards.
func TestCloseBesideOthers(t *testing.T) {
	rounds := 30 * *scaleFlag
	for round := range rounds {
		path := storePath(t)
		s := open(t, path, &kv.Options{Durability: kv.Durability(round % 3), SyncEvery: time.Millisecond, SyncBytes: 100})
		must(t, s.Put([]byte("key 1"), []byte("key 1")))
		var wg sync.WaitGroup
		var acked atomic.Int64
		wg.Go(func() {
			for n := int64(1); s.Put([]byte("counter"), fmt.Append(nil, n)) == nil; n++ {
				acked.Store(n)
			}
		})
		for range 3 {
			wg.Go(func() {
				for {
					for name, err := range everyMethodButClear(s) {
						if errors.Is(err, kv.ErrClosed) {
							return
						}
						if err != nil && err != kv.ErrNotFound {
							t.Errorf("round %d: %s: %v", round, name, err)
							return
						}
					}
				}
			})
		}
		time.Sleep(time.Duration(round%10) * 300 * time.Microsecond)
		must(t, s.Close())
		wg.Wait()
		s = open(t, path, nil)
		if acked.Load() > 0 {
			v, err := s.Get([]byte("counter"))
			var n int64
			fmt.Sscan(string(v), &n)
			if err != nil || n < acked.Load() {
				t.Errorf("round %d: %d acknowledged, %q there, %v", round, acked.Load(), v, err)
			}
		}
		closeSound(t, s)
	}
}

func everyMethodButClear(s *kv.Store) map[string]error {
	k := []byte("key 1")
	errs := map[string]error{}
	errs["Put"] = s.Put(k, k)
	errs["View"] = s.View(k, func([]byte) error { return nil })
	errs["Update"] = s.Update(func(tx *kv.Tx) error { return errors.Join(tx.Put(k, k), tx.Put([]byte("key 2"), k)) })
	_, errs["Iter"] = contents(s)
	errs["Sync"] = s.Sync()
	_, errs["Compact"] = s.Compact(context.Background())
	_, errs["Verify"] = s.Verify(context.Background())
	_, errs["WriteTo"] = s.WriteTo(io.Discard)
	return errs
}

// Goal: a compaction that Close ends says so.
// Method: Close, a moment after a compaction of 20 MiB began.
func TestCloseDuringCompact(t *testing.T) {
	for range 10 {
		s := open(t, storePath(t), &kv.Options{CompactAt: -1, Durability: kv.SyncManual})
		for i := range 20 {
			must(t, s.Put([]byte{byte(i)}, valueOf(1<<20, i)))
		}
		result := make(chan error)
		go func() { _, err := s.Compact(context.Background()); result <- err }()
		time.Sleep(time.Millisecond)
		must(t, s.Close())
		if err := <-result; err != nil && !errors.Is(err, kv.ErrClosed) {
			t.Fatalf("compact: %v", err)
		}
	}
}

// Goal: Close of a follower is the end of it, also where it is switching to
// another generation at that moment.
// Method: many times, a reader and a writer that clears beside Close.
func TestFollowerClose(t *testing.T) {
	path := storePath(t)
	s := open(t, path, nil)
	must(t, s.Put([]byte("k"), []byte("1")))
	for round := range 200 * *scaleFlag {
		f, err := kv.Open(path, &kv.Options{ReadOnly: true})
		must(t, err)
		var stop atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() {
			for !stop.Load() {
				if _, err := f.Get([]byte("k")); errors.Is(err, kv.ErrClosed) {
					return
				} else if err != nil && err != kv.ErrNotFound {
					t.Errorf("round %d: %v", round, err)
					return
				}
			}
		})
		wg.Go(func() {
			if err := s.Clear(); err != nil {
				t.Error(err)
			}
		})
		if round%2 == 0 {
			time.Sleep(time.Duration(round%50) * 10 * time.Microsecond)
		}
		must(t, f.Close())
		_, err = f.Get([]byte("k"))
		stop.Store(true)
		wg.Wait()
		if _, again := f.Get([]byte("k")); !errors.Is(err, kv.ErrClosed) || !errors.Is(again, kv.ErrClosed) {
			t.Fatalf("round %d: after Close: %v, then %v", round, err, again)
		}
	}
}
