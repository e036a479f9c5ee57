package tests

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/mmapkv/mmapkv/kv"
)

func init() {
	roles["truncated"] = func(args []string) int { return report(useTruncated(args[0], args[1], args[2])) }
}

// truncatedUses are what a program does to a store whose file was cut short
// beneath it. Each returns the error that it met.
var truncatedUses = []struct {
	name string
	use  func(s *kv.Store, f *kv.Store) error
}{
	{"get", func(s, _ *kv.Store) error { _, err := s.Get([]byte("last")); return err }},
	{"append", func(s, _ *kv.Store) error { _, err := s.GetAppend(nil, []byte("last")); return err }},
	{"view", func(s, _ *kv.Store) error {
		return s.View([]byte("last"), func(v []byte) error { return readAll(v) })
	}},
	{"getmany", func(s, _ *kv.Store) error {
		return s.GetMany([][]byte{[]byte("key 1"), []byte("last")}, func(_ int, v []byte, _ bool) error { return readAll(v) })
	}},
	{"iterate", func(s, _ *kv.Store) error {
		it := s.Iter(nil)
		for _, v := range it.All() {
			readAll(v)
		}
		return it.Err()
	}},
	{"records", func(s, _ *kv.Store) error {
		for r, err := range s.Records(context.Background()) {
			if err != nil {
				return err
			}
			readAll(r.Value)
		}
		return nil
	}},
	{"verify", func(s, _ *kv.Store) error { return sound(s) }},
	{"copy", func(s, _ *kv.Store) error { _, err := copyOf(s); return err }},
	{"copy to a file", func(s, _ *kv.Store) error {
		f, err := os.CreateTemp("", "mmapkv-copy")
		if err != nil {
			return err
		}
		defer os.Remove(f.Name())
		_, err = s.WriteTo(f)
		return err
	}},
	{"compute", func(s, _ *kv.Store) error {
		return s.Compute([]byte("last"), func(old []byte, ok bool) ([]byte, kv.Op) { readAll(old); return nil, kv.Keep })
	}},
	{"compact", func(s, _ *kv.Store) error { _, err := s.Compact(context.Background()); return err }},
	{"sync", func(s, _ *kv.Store) error {
		err := s.Put([]byte("new"), []byte("v"))
		return errors.Join(err, s.Sync())
	}},
	{"follower", func(_, f *kv.Store) error { _, err := f.Get([]byte("last")); return err }},
	{"follower iterates", func(_, f *kv.Store) error {
		it := f.Iter(nil)
		for _, v := range it.All() {
			readAll(v)
		}
		return errors.Join(it.Err(), f.Stats().Poisoned)
	}},
	{"follower verifies", func(_, f *kv.Store) error { return sound(f) }},
}

// readAll touches every byte on the calling goroutine.
func readAll(v []byte) error {
	n := 0
	for _, b := range v {
		n += int(b)
	}
	if n < 0 {
		return errors.New("never")
	}
	return nil
}

// useTruncated cuts the file of an open store short, leaving so many of its
// bytes, and uses it. Where what is used is gone, that is an error and no more.
func useTruncated(path, leave, name string) error {
	s, err := kv.Open(path, &kv.Options{CompactAt: -1, Durability: kv.SyncManual})
	if err != nil {
		return err
	}
	for i := range 20 {
		if err := s.Put(fmt.Append(nil, "key ", i), valueOf(60000, i)); err != nil {
			return err
		}
	}
	if err := s.Put([]byte("last"), valueOf(60000, 99)); err != nil {
		return err
	}
	if err := s.Sync(); err != nil {
		return err
	}
	f, err := kv.Open(path, &kv.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	n, _ := strconv.ParseInt(leave, 10, 64)
	if n < 0 {
		n += s.Stats().Tail
	}
	if err := os.Truncate(path, n); err != nil {
		return err
	}
	for _, u := range truncatedUses {
		if u.name != name {
			continue
		}
		err := u.use(s, f)
		if !errors.Is(err, kv.ErrFault) && !errors.Is(err, kv.ErrCorrupt) && !errors.Is(err, errUnsound) {
			return fmt.Errorf("%s met no fault: %v", name, err)
		}
	}
	// Whatever happened, the process goes on, and lets go of the store.
	_, err = s.Get([]byte("key 1"))
	fmt.Println(err, s.Put([]byte("more"), valueOf(1000, 1)), s.Close(), f.Close())
	// And nobody takes what is left for a whole store.
	if again, err := kv.Open(path, nil); err == nil {
		defer again.Close()
		return fmt.Errorf("the truncated file opens, with %d of 21 keys", again.Len())
	}
	return nil
}

// Goal: a file that is cut short beneath an open store is an error, not the end
// of the process.
// Method: a child for each use and length; a child that dies is the failure.
func TestTruncated(t *testing.T) {
	for _, u := range truncatedUses {
		t.Run(u.name, func(t *testing.T) {
			for _, leave := range []string{"0", "4096", "8192", "500000", "-20000"} {
				path := storePath(t)
				out := runChild(t, "truncated", path, leave, u.name)
				t.Logf("leaving %s: %s", leave, out)
			}
		})
	}
}

// Goal: a write that faults poisons; reads of what is left go on.
// Method: a file cut beneath the page that the next record goes to.
func TestTruncatedPoisons(t *testing.T) {
	path := storePath(t)
	s, err := kv.Open(path, &kv.Options{Durability: kv.SyncManual})
	must(t, err)
	must(t, s.Put([]byte("k"), []byte("v")))
	for range 4 {
		must(t, s.Put([]byte("filler"), valueOf(3000, 1)))
	}
	must(t, os.Truncate(path, 12288))
	wantErr(t, s.Put([]byte("k"), valueOf(9000, 1)), kv.ErrPoisoned)
	wantErr(t, s.Put([]byte("k"), []byte("w")), kv.ErrPoisoned)
	wantErr(t, s.Sync(), kv.ErrPoisoned)
	wantErr(t, s.Update(func(tx *kv.Tx) error { return tx.Put([]byte("k"), nil) }), kv.ErrPoisoned)
	if p := s.Stats().Poisoned; !errors.Is(p, kv.ErrPoisoned) {
		t.Errorf("Stats says %v", p)
	}
	wantGet(t, s, "k", "v")
	if err := s.Close(); !errors.Is(err, kv.ErrPoisoned) {
		t.Errorf("close: %v", err)
	}
}

// Goal: a path that is unlinked or replaced beneath an open store changes
// nothing for the handle: it reads and writes its own file, which is gone when
// it closes. That a new store can be at the path then is how it is today.
// Method: both, and what the next Open finds.
func TestPathGone(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(t *testing.T, path string)
		next map[string]string
	}{
		{"unlinked", func(t *testing.T, path string) { must(t, os.Remove(path)) }, map[string]string{}},
		{"replaced", func(t *testing.T, path string) {
			s := open(t, path+".other", nil)
			must(t, s.Put([]byte("other"), []byte("store")))
			must(t, s.Close())
			must(t, os.Rename(path+".other", path))
		}, map[string]string{"other": "store"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := storePath(t)
			s := open(t, path, nil)
			must(t, s.Put([]byte("k"), []byte("1")))
			tc.do(t, path)
			wantGet(t, s, "k", "1")
			must(t, s.Put([]byte("k"), valueOf(200000, 2)))
			must(t, s.Sync())
			// To compact would replace what is not this store, or bring it back.
			if _, err := s.Compact(t.Context()); err == nil {
				t.Error("compacted over what has come to the path")
			}
			if err := s.Clear(); err == nil {
				t.Error("cleared over what has come to the path")
			}
			wantContents(t, s, map[string]string{"k": string(valueOf(200000, 2))})
			verify(t, s)
			next := open(t, path, nil)
			wantContents(t, next, tc.next)
			must(t, next.Close())
			must(t, s.Close())
		})
	}
}
