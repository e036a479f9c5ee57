package tests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/kv"
)

// truthful reads all of want from s in every way. What cannot be had must be an
// error, and not absence. Whether a value is the right one is asked only of who
// verifies.
func truthful(s *kv.Store, want map[string]string, verifies bool) error {
	var errs []error
	wrong := func(how, key string, got []byte, err error) {
		value, there := want[key]
		switch {
		case err == kv.ErrNotFound && there:
			errs = append(errs, fmt.Errorf("%s: key %q is said to be absent", how, key))
		case err == nil && (!there || verifies && string(got) != value):
			errs = append(errs, fmt.Errorf("%s: key %q has %d bytes, want %d (%v)", how, key, len(got), len(value), there))
		}
	}
	keys := [][]byte{[]byte("never there")}
	for k := range want {
		keys = append(keys, []byte(k))
	}
	for _, k := range keys {
		key := string(k)
		v, err := s.Get(k)
		wrong("get", key, v, err)
		err = s.View(k, func(b []byte) error { v = bytes.Clone(b); return nil })
		wrong("view", key, v, err)
		r, err := s.Lookup(k)
		wrong("lookup", key, r.Value, err)
		if has, err := s.Has(k); err == nil && !has {
			wrong("has", key, nil, kv.ErrNotFound)
		}
		// A batch ends with the first error: so one of each key alone, too.
		s.GetMany([][]byte{k}, func(_ int, v []byte, ok bool) error {
			err := error(nil)
			if !ok {
				err = kv.ErrNotFound
			}
			wrong("getmany", key, v, err)
			return nil
		})
		if len(errs) > 0 {
			return errors.Join(errs...)
		}
	}
	it := s.Iter(nil)
	seen := 0
	for k, v := range it.All() {
		if seen++; verifies {
			wrong("iterate", string(k), v, nil)
		}
	}
	if it.Err() == nil && seen != len(want) {
		errs = append(errs, fmt.Errorf("the iteration yields %d of %d entries and no error", seen, len(want)))
	}
	return errors.Join(errs...)
}

const otherStore = "overwritten with another store"

// beneath are what somebody does to the file of a store that is open. Each returns
// what was done.
var beneath = []struct {
	name string
	do   func(rng *rand.Rand, path string, tail int64) (string, error)
}{
	{"truncated and grown again", func(rng *rand.Rand, path string, tail int64) (string, error) {
		fi, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		n := rng.Int64N(tail)
		return fmt.Sprint("at ", n), errors.Join(os.Truncate(path, n), os.Truncate(path, fi.Size()))
	}},
	{"zeroed sectors", func(rng *rand.Rand, path string, tail int64) (string, error) {
		return overwrite(rng, path, tail, 512, func(b []byte) { clear(b) })
	}},
	{"zeroed pages", func(rng *rand.Rand, path string, tail int64) (string, error) {
		return overwrite(rng, path, tail, 4096, func(b []byte) { clear(b) })
	}},
	{"zeroed bytes", func(rng *rand.Rand, path string, tail int64) (string, error) {
		return overwrite(rng, path, tail, 8, func(b []byte) { clear(b) })
	}},
	{"garbage", func(rng *rand.Rand, path string, tail int64) (string, error) {
		return overwrite(rng, path, tail, 512, func(b []byte) { copy(b, valueOf(len(b), rng.Int())) })
	}},
	{"flipped bits", func(rng *rand.Rand, path string, tail int64) (string, error) {
		return overwrite(rng, path, tail, 1, func(b []byte) { b[0] ^= 1 << rng.IntN(8) })
	}},
	{"a bit of a key", func(rng *rand.Rand, path string, tail int64) (string, error) {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		// The record last written of a key, so that the key is gone with it.
		k := fmt.Appendf(nil, "key %d ", (399-rng.IntN(100))*7%300)
		at := bytes.LastIndex(b[:tail], k) + len("key ")
		b[at] ^= 1 << rng.IntN(3)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return "", err
		}
		_, err = f.WriteAt(b[at:at+1], int64(at))
		return fmt.Sprint("at ", at), errors.Join(err, f.Close())
	}},
	{otherStore, func(rng *rand.Rand, path string, _ int64) (string, error) {
		dir, err := os.MkdirTemp("", "mmapkv-other")
		if err != nil {
			return "", err
		}
		defer os.RemoveAll(dir)
		s, err := kv.Open(filepath.Join(dir, "other"), &kv.Options{Durability: kv.SyncManual})
		if err != nil {
			return "", err
		}
		_, err = fillKeys(s, rand.New(rand.NewPCG(rng.Uint64(), 1)))
		if err = errors.Join(err, s.Close()); err != nil {
			return "", err
		}
		b, err := os.ReadFile(filepath.Join(dir, "other"))
		if err != nil {
			return "", err
		}
		// In place, as cp does: the file gets no shorter, so that no page is lost.
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return "", err
		}
		_, err = f.WriteAt(b, 0)
		return fmt.Sprint(len(b), " bytes"), errors.Join(err, f.Close())
	}},
}

// overwrite changes one to eight pieces of the log of a file, each of size bytes.
func overwrite(rng *rand.Rand, path string, tail int64, size int, change func(b []byte)) (what string, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for range 1 + rng.IntN(8) {
		at := crc.HeaderSize + rng.Int64N(tail-crc.HeaderSize)/int64(size)*int64(size)
		b := make([]byte, min(int64(size), tail-at))
		if _, err = f.ReadAt(b, at); err != nil {
			return what, err
		}
		change(b)
		if _, err = f.WriteAt(b, at); err != nil {
			return what, err
		}
		what += fmt.Sprint(" ", at)
	}
	return what, nil
}

// fillKeys puts some hundred keys, some twice, and returns what the store has then.
// Keys and the lengths of the values do not depend on rng; so two stores have them
// at the same offsets.
func fillKeys(s *kv.Store, rng *rand.Rand) (map[string]string, error) {
	want := map[string]string{}
	salt := rng.Int()
	for i := range 400 {
		k := fmt.Sprintf("key %d %0*d", i*7%300, i*7%300%60, 0)
		want[k] = string(valueOf(i*i*31%3000, salt+i))
		if err := s.Put([]byte(k), []byte(want[k])); err != nil {
			return nil, err
		}
	}
	return want, nil
}

// Goal: a file that somebody changes beneath open stores is never read as if
// a key had not been there; who verifies reads gets no wrong value either; Verify
// finds it; and no later Open takes it for whole.
// Method: a writer and two followers that verify or do not, on a file to which things
// are done that a seed draws. All is read again, also after the writer's index has
// grown, and after a compaction, which may not bless anything.
func TestChangedBeneath(t *testing.T) {
	for _, tc := range beneath {
		t.Run(tc.name, func(t *testing.T) {
			for _, seed := range seeds(8) {
				path, image := storePath(t), storePath(t)
				rng := rand.New(rand.NewPCG(uint64(seed), 8))
				opts := kv.Options{Durability: kv.SyncManual, CompactAt: -1, VerifyReads: seed%2 == 0}
				err := changeBeneath(rng, path, image, opts, tc.do)
				if tc.name == otherStore && errors.Is(err, errOpens) {
					err = nil // it is one
				}
				if err != nil {
					t.Fatalf("seed %d, %+v: %v; the file as it was changed is kept at %s", seed, opts, err, keep(t, image))
				}
			}
		})
	}
}

var errOpens = errors.New("what is left opens")

func changeBeneath(rng *rand.Rand, path, image string, opts kv.Options, do func(*rand.Rand, string, int64) (string, error)) (err error) {
	s, err := kv.Open(path, &opts)
	if err != nil {
		return err
	}
	defer s.Close()
	want, err := fillKeys(s, rng)
	if err != nil {
		return err
	}
	if err = s.Sync(); err != nil {
		return err
	}
	var followers [2]*kv.Store
	for i := range followers {
		if followers[i], err = kv.Open(path, &kv.Options{ReadOnly: true, VerifyReads: i == 1}); err != nil {
			return err
		}
		defer followers[i].Close()
		if d, err := compare(followers[i], want); d != "" || err != nil {
			return fmt.Errorf("before: %s %w", d, err)
		}
	}
	tail := s.Stats().Tail
	before, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	what, err := do(rng, path, tail)
	if err != nil {
		return err
	}
	after, err := os.ReadFile(path)
	if err = errors.Join(err, os.WriteFile(image, after, 0o600)); err != nil {
		return err
	}
	if bytes.Equal(before[crc.HeaderSize:tail], after[crc.HeaderSize:tail]) {
		return nil // the padding was zeroed, or the like
	}
	read := func(when string) error {
		for name, err := range map[string]error{
			"the writer": truthful(s, want, opts.VerifyReads), "a follower": truthful(followers[0], want, false),
			"the follower that verifies": truthful(followers[1], want, true),
		} {
			if err != nil {
				return fmt.Errorf("%s, %s: %s: %w", what, when, name, err)
			}
		}
		if sound(s) == nil || sound(followers[0]) == nil {
			return fmt.Errorf("%s, %s: Verify finds nothing", what, when)
		}
		return nil
	}
	if err := read("at once"); err != nil {
		return err
	}
	// What is written then is read as any other; the index grows on the way.
	whole := maps.Clone(want)
	for i := range 600 {
		k := fmt.Append(nil, "later ", i)
		if err := s.Put(k, k); err != nil {
			if !errors.Is(err, kv.ErrPoisoned) && !errors.Is(err, kv.ErrCorrupt) {
				return fmt.Errorf("%s: put: %w", what, err)
			}
			break
		}
		want[string(k)] = string(k)
	}
	if err := read("after writes"); err != nil {
		return err
	}
	if _, err := s.Compact(context.Background()); err == nil {
		return fmt.Errorf("%s: compacted", what)
	}
	// The image is that of a death in this moment; Close comes to the same.
	for range 2 {
		for _, ro := range []bool{true, false} {
			again, err := kv.Open(image, &kv.Options{ReadOnly: ro})
			if err == nil {
				d, cmpErr := compare(again, whole)
				err = errors.Join(cmpErr, again.Close())
				return fmt.Errorf("%s: %w: %s, %v", what, errOpens, d, err)
			}
		}
		s.Close()
		if b, err := os.ReadFile(path); err != nil {
			return err
		} else if err := os.WriteFile(image, b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Goal: who follows a file that is said to be replaced goes on with the same store,
// or with an error, and never with another one.
// Method: a table of what is at the path then; without the word, each of them
// changes nothing for who has the file open.
func TestFollowerElsewhere(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(t *testing.T, path, to string)
		want error // nil: it goes on, with "2"
	}{
		{"another store", func(t *testing.T, _, to string) {
			s := open(t, to, nil)
			must(t, s.Put([]byte("k"), []byte("another's")))
			must(t, s.Close())
		}, os.ErrNotExist},
		{"an empty store", func(t *testing.T, _, to string) { must(t, open(t, to, nil).Close()) }, os.ErrNotExist},
		{"a damaged store", func(t *testing.T, path, to string) {
			b, err := os.ReadFile(path)
			must(t, err)
			b[crc.HeaderSize+crc.FrameSize+3] ^= 1
			clear(b[crc.HolderOff : crc.HolderOff+16])
			must(t, os.WriteFile(to, b, 0o600))
		}, kv.ErrCorrupt},
		{"a text", func(t *testing.T, _, to string) { must(t, os.WriteFile(to, []byte("text"), 0o600)) }, kv.ErrFormat},
		{"nothing", func(*testing.T, string, string) {}, os.ErrNotExist},
		{"a later copy of it", func(t *testing.T, path, to string) {
			copyFile(t, path, to)
			s := open(t, to, nil)
			must(t, s.Put([]byte("k"), []byte("2")))
			must(t, s.Close())
		}, nil},
	} {
		for _, superseded := range []bool{false, true} {
			t.Run(fmt.Sprint(tc.name, ", superseded=", superseded), func(t *testing.T) {
				path := storePath(t)
				s, err := kv.Open(path, nil)
				must(t, err)
				defer s.Close()
				must(t, s.Put([]byte("k"), []byte("1")))
				must(t, s.Sync())
				f, err := kv.Open(path, &kv.Options{ReadOnly: true})
				must(t, err)
				defer f.Close()
				tc.make(t, path, path+".there")
				if superseded {
					supersede(t, path)
				}
				if os.Rename(path+".there", path) != nil {
					must(t, os.Remove(path))
				}
				switch {
				case !superseded:
					wantGet(t, f, "k", "1")
					must(t, s.Put([]byte("k"), []byte("3")))
					wantGet(t, f, "k", "3")
					wantGet(t, s, "k", "3")
				case tc.want == nil:
					wantGet(t, f, "k", "2")
				default:
					for range 2 {
						_, err := f.Get([]byte("k"))
						wantErr(t, err, tc.want)
						if n := f.Len(); n != 0 {
							t.Errorf("Len is %d", n)
						}
					}
					wantGet(t, s, "k", "1")
				}
			})
		}
	}
}

// Goal: a directory that is removed beneath an open store changes nothing for the
// handle but that it cannot compact.
// Method: all operations after it.
func TestDirectoryGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	must(t, os.Mkdir(dir, 0o700))
	s := open(t, filepath.Join(dir, "store"), &kv.Options{Durability: kv.SyncAlways})
	must(t, s.Put([]byte("k"), []byte("1")))
	f := open(t, s.Path(), &kv.Options{ReadOnly: true})
	must(t, os.RemoveAll(dir))
	must(t, s.Put([]byte("l"), valueOf(300000, 2)))
	want := map[string]string{"k": "1", "l": string(valueOf(300000, 2))}
	if _, err := s.Compact(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("compact: %v", err)
	}
	if err := s.Clear(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("clear: %v", err)
	}
	must(t, s.Put([]byte("m"), []byte("3")))
	want["m"] = "3"
	wantContents(t, s, want)
	wantContents(t, f, want)
	_, err := kv.Open(s.Path(), nil)
	wantErr(t, err, os.ErrNotExist)
	must(t, f.Close())
	closeSound(t, s)
}

// Goal: bytes that somebody appends to the file of an open store never show, and
// the store grows over them.
// Method: garbage, and records that verified where they were; the file is opened as
// a death would leave it, after each further write, and after Close.
func TestAppendedBeneath(t *testing.T) {
	path := storePath(t)
	s := open(t, path, &kv.Options{Durability: kv.SyncManual, CompactAt: -1})
	want := map[string]string{"k": "v"}
	must(t, s.Put([]byte("k"), []byte("v")))
	for i := range 12 {
		b, err := os.ReadFile(path)
		must(t, err)
		if i%2 == 0 {
			b = valueOf(50000+i, i)
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		_, err = f.Write(b)
		must(t, errors.Join(err, f.Close()))
		k := fmt.Sprint("key ", i)
		want[k] = string(valueOf(20000*i, i))
		must(t, s.Put([]byte(k), []byte(want[k])))
		if i%3 == 0 {
			must(t, s.Sync())
		}
		wantContents(t, s, want)
		copyFile(t, path, path+".image")
		image := open(t, path+".image", nil)
		wantContents(t, image, want)
		closeSound(t, image)
	}
	closeSound(t, s)
	s = open(t, path, nil)
	wantContents(t, s, want)
	if fi, err := os.Stat(path); err != nil || fi.Size() != s.Stats().Tail {
		t.Errorf("%d bytes, the log ends at %d: %v", fi.Size(), s.Stats().Tail, err)
	}
}
