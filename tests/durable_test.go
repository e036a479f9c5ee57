package tests

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

// Goal: deadlines mean what they say over the whole range of times.
// Method: a table; each is read at once, after a kill, and after Close and Open.
func TestTTLRange(t *testing.T) {
	ttl := func(d time.Duration) func(s *kv.Store, k []byte) error {
		return func(s *kv.Store, k []byte) error { return s.PutTTL(k, []byte("v"), d) }
	}
	until := func(at time.Time) func(s *kv.Store, k []byte) error {
		return func(s *kv.Store, k []byte) error {
			return errors.Join(s.PutUntil(k, []byte("v"), at), s.Update(func(tx *kv.Tx) error {
				return tx.PutUntil(append([]byte("tx "), k...), []byte("v"), at)
			}))
		}
	}
	for _, tc := range []struct {
		name  string
		put   func(s *kv.Store, k []byte) error
		there bool
	}{
		{"an hour", ttl(time.Hour), true},
		{"for ever", ttl(math.MaxInt64), true},
		{"almost for ever", ttl(math.MaxInt64 - 1), true},
		{"a nanosecond", func(s *kv.Store, k []byte) error {
			err := s.PutTTL(k, []byte("v"), 1)
			time.Sleep(5 * time.Millisecond)
			return err
		}, false},
		{"until an hour ago", until(time.Now().Add(-time.Hour)), false},
		{"until an hour from now", until(time.Now().Add(time.Hour)), true},
		{"until the epoch", until(time.Unix(0, 0)), false},
		{"until just after the epoch", until(time.Unix(0, 1)), false},
		{"until just before the epoch", until(time.Unix(0, -1)), false},
		{"until the zero time", until(time.Time{}), false},
		{"until the year 1", until(time.Unix(-1<<60, 0)), false},
		{"until far beyond milliseconds", until(time.Unix(1<<60, 0)), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := storePath(t)
			s := open(t, path, nil)
			must(t, s.Put([]byte("k"), []byte("before")))
			must(t, tc.put(s, []byte("k")))
			want := map[string]string{}
			if tc.there {
				want["k"] = "v"
				if has, err := s.Has([]byte("tx k")); err != nil {
					t.Fatal(err)
				} else if has {
					want["tx k"] = "v"
				}
			}
			if n := len(want); tc.name[:5] == "until" && tc.there && n != 2 {
				t.Error("absent where it was put in a transaction")
			}
			wantContents(t, s, want)
			copyFile(t, path, path+".image")
			closeSound(t, s)
			for _, p := range []string{path, path + ".image"} {
				s = open(t, p, nil)
				wantContents(t, s, want)
				_, err := s.Compact(t.Context())
				must(t, err)
				wantContents(t, s, want)
				if s.Len() != len(want) {
					t.Errorf("%d keys after compaction, want %d", s.Len(), len(want))
				}
			}
		})
	}
	s := open(t, storePath(t), nil)
	for _, d := range []time.Duration{0, -1, math.MinInt64} {
		if err := s.PutTTL([]byte("k"), nil, d); err == nil || s.Len() > 0 {
			t.Errorf("a ttl of %v: %v, %d keys", d, err, s.Len())
		}
	}
}

// Goal: an entry is there before its deadline, absent from it on, in every way of
// reading, and its key can be used again.
// Method: a deadline in a moment; it is polled for, never timed.
func TestTTLExpires(t *testing.T) {
	path := storePath(t)
	s := open(t, path, nil)
	f := open(t, path, &kv.Options{ReadOnly: true})
	must(t, s.PutTTL([]byte("k"), []byte("v"), time.Hour))
	wantGet(t, s, "k", "v")
	wantGet(t, f, "k", "v")
	must(t, s.PutTTL([]byte("k"), []byte("v"), 50*time.Millisecond))
	poll(t, "expiry", func() bool { _, err := s.Get([]byte("k")); return err == kv.ErrNotFound })
	for name, h := range map[string]*kv.Store{"store": s, "follower": f} {
		if has, err := h.Has([]byte("k")); has || err != nil {
			t.Errorf("%s: has: %v, %v", name, has, err)
		}
		wantContents(t, h, nil)
		must(t, h.GetMany([][]byte{[]byte("k")}, func(_ int, _ []byte, ok bool) error {
			if ok {
				t.Errorf("%s: GetMany has it", name)
			}
			return nil
		}))
	}
	must(t, s.Compute([]byte("k"), func(_ []byte, ok bool) ([]byte, kv.Op) {
		if ok {
			t.Error("Compute has it")
		}
		return nil, kv.Keep
	}))
	if swapped, err := s.CompareAndSwap([]byte("k"), nil, []byte("w")); !swapped || err != nil {
		t.Errorf("swap: %v, %v", swapped, err)
	}
	wantGet(t, s, "k", "w")
	wantGet(t, f, "k", "w")
}

// Goal: Stats tells how far the log is durable, and it is so after each of the
// things that promise it.
// Method: each in turn, after a write that promises nothing.
func TestDurablePoints(t *testing.T) {
	k, v := []byte("k"), []byte("v")
	for _, tc := range []struct {
		name string
		d    kv.Durability
		do   func(s *kv.Store) error
		want bool
	}{
		{"put", kv.SyncManual, func(s *kv.Store) error { return s.Put(k, v) }, false},
		{"put, always", kv.SyncAlways, func(s *kv.Store) error { return s.Put(k, v) }, true},
		{"delete, always", kv.SyncAlways, func(s *kv.Store) error { return s.Delete([]byte("first")) }, true},
		{"compute, always", kv.SyncAlways, func(s *kv.Store) error {
			return s.Compute(k, func([]byte, bool) ([]byte, kv.Op) { return v, kv.Write })
		}, true},
		{"put durable", kv.SyncManual, func(s *kv.Store) error { return s.PutDurable(k, v) }, true},
		{"sync", kv.SyncManual, func(s *kv.Store) error { return s.Sync() }, true},
		{"transaction", kv.SyncManual, func(s *kv.Store) error {
			return s.Update(func(tx *kv.Tx) error { return tx.Put(k, v) })
		}, false},
		{"durable transaction", kv.SyncManual, func(s *kv.Store) error {
			return s.Update(func(tx *kv.Tx) error { tx.Durable(); return tx.Put(k, v) })
		}, true},
		{"transaction, always", kv.SyncAlways, func(s *kv.Store) error {
			return s.Update(func(tx *kv.Tx) error { return tx.Put(k, v) })
		}, true},
		{"compact", kv.SyncManual, func(s *kv.Store) error { _, err := s.Compact(t.Context()); return err }, true},
		{"clear", kv.SyncManual, func(s *kv.Store) error { return s.Clear() }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := storePath(t)
			s := open(t, path, &kv.Options{Durability: tc.d})
			must(t, s.Put([]byte("first"), v))
			must(t, tc.do(s))
			st := s.Stats()
			if got := st.DurableRevision == st.Revision && st.DurableTail == st.Tail; got != tc.want {
				t.Errorf("durable is revision %d of %d, tail %d of %d", st.DurableRevision, st.Revision, st.DurableTail, st.Tail)
			}
			must(t, s.Close())
			info, err := kv.Inspect(path)
			must(t, err)
			if info.DurableRevision != st.Revision || info.DurableTail != info.FileBytes || info.Holder != 0 {
				t.Errorf("after Close: %+v, want revision %d", info, st.Revision)
			}
		})
	}
}

// Goal: with SyncPeriodic writes become durable by themselves, by time and by
// bytes, and with SyncManual they do not.
// Method: poll Stats.
func TestSyncPeriodic(t *testing.T) {
	for _, tc := range []struct {
		name string
		opts kv.Options
	}{
		{"time", kv.Options{SyncEvery: 10 * time.Millisecond}},
		{"bytes", kv.Options{SyncEvery: time.Hour, SyncBytes: 10000}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := open(t, storePath(t), &tc.opts)
			for round := range 5 {
				must(t, s.Put(fmt.Append(nil, round), valueOf(20000, round)))
				revision := s.Stats().Revision
				poll(t, "the write as durable", func() bool { return s.Stats().DurableRevision >= revision })
			}
		})
	}
}
