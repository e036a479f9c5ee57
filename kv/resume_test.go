package kv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/internal/invariants"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// copiedDisk is the operating system's, on which the copy of a file is the file itself.
var copiedDisk = wrapDisk{osDisk{}, func(_ string, f file) file { return copiedFile{f} }}

type copiedFile struct{ file }

func (f copiedFile) Identity() (mmapfile.Identity, error) {
	id, err := f.file.Identity()
	id.Inode = 1
	return id, err
}

// atlas is a closed store of many segments, and what its checkpoint says of them.
type atlas struct {
	path  string
	want  contents
	head  crc.Checkpoint
	index *index // as it was: for its hash and its directory
}

// atlasOf makes a store with so many keys, of which some have been overwritten and
// others deleted.
func atlasOf(t *testing.T, keys int) *atlas {
	t.Helper()
	a := &atlas{path: filepath.Join(t.TempDir(), "store"), want: contents{}}
	s, err := openOn(copiedDisk, a.path, &Options{Durability: SyncManual, CheckpointBytes: 1, CompactAt: -1})
	if err != nil {
		t.Fatal(err)
	}
	s.checkpointing.Store(true)
	for i := range keys + keys/4 {
		a.want.put(t, s, fmt.Sprint("key ", i%keys), fmt.Sprint("value ", i))
	}
	for i := 0; i < keys; i += 17 {
		if err := s.Delete(fmt.Append(nil, "key ", i)); err != nil {
			t.Fatal(err)
		}
		delete(a.want, fmt.Sprint("key ", i))
	}
	a.index = s.gen.Load().index
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(a.path + indexSuffix)
	if err == nil {
		a.head, err = crc.DecodeCheckpoint(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// segmentOf returns in which segment of the checkpoint key is.
func (a *atlas) segmentOf(key string) int {
	h, at := a.index.hash.sum([]byte(key)), uint64(0)
	for i, seg := range a.head.Segments {
		if at += 1 << (64 - seg.Depth); h < at || at == 0 {
			return i
		}
	}
	panic("no segment has it")
}

// keysIn returns some keys of the segments.
func (a *atlas) keysIn(segments []int, n int) (keys []string) {
	in := make(map[int]bool)
	for _, i := range segments {
		in[i] = true
	}
	for key := range a.want {
		if in[a.segmentOf(key)] {
			if keys = append(keys, key); len(keys) == n {
				break
			}
		}
	}
	return keys
}

// copyTo copies the store, with a byte changed in each of the segments.
func (a *atlas) copyTo(t *testing.T, segments []int) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "store")
	for _, suffix := range []string{"", indexSuffix} {
		b, err := os.ReadFile(a.path + suffix)
		if err == nil && suffix != "" {
			for _, i := range segments {
				b[crc.SlotsOff(len(a.head.Segments), i, a.head.SlotCount)+int64(i)%100] ^= 4
			}
		}
		fi, err2 := os.Stat(a.path + suffix)
		if err = errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(path+suffix, b, 0o600), os.Chtimes(path+suffix, fi.ModTime(), fi.ModTime())); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// open opens a copy by its checkpoint. Nothing is loaded or verified in the background.
func (a *atlas) open(t *testing.T, path string, readOnly bool) *Store {
	t.Helper()
	s := openCopied(t, path, &Options{ReadOnly: readOnly, SyncEvery: time.Hour})
	t.Cleanup(func() { s.Close() })
	return s
}

// openCopied opens a copy, whose checkpoint must be taken, with more options: one that
// takes no other beside the test.
func openCopied(t *testing.T, path string, opts *Options) *Store {
	t.Helper()
	opts.Durability, opts.CheckpointBytes, opts.CompactAt = SyncManual, 1, -1
	s, err := openOn(copiedDisk, path, opts)
	if err != nil {
		t.Fatal(err)
	}
	s.checkpointing.Store(true)
	if !byCheckpoint(s) {
		s.Close()
		t.Fatal("not opened by its checkpoint")
	}
	return s
}

// Goal: damage to segments of a checkpoint shows in nothing, whatever meets it first:
// what is read, written and deleted is right before and after they are rebuilt from
// the log, and the next checkpoint is whole. Method: a table of what is done first, on
// copies of a store of which one segment, several, or all are damaged, closed or killed
// with more written behind the checkpoint; the model says what is there after it.
func TestSegmentDamage(t *testing.T) {
	keys := 30_000
	if invariants.Enabled {
		keys = 20_000
	}
	a := atlasOf(t, keys)
	k := a.killed(t, func(s *Store, want contents) { writeBehind(t, s, want) })
	n := len(a.head.Segments)
	if n < 8 {
		t.Fatalf("%d segments", n)
	}
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	type deed struct {
		name string
		do   func(s *Store, want contents, keys []string) error
	}
	deeds := []deed{
		{"all is read", func(*Store, contents, []string) error { return nil }},
		{"Get", func(s *Store, want contents, keys []string) error {
			for _, key := range keys {
				if v, err := s.Get([]byte(key)); err != nil || string(v) != want[key] {
					return fmt.Errorf("%q has %q, %w", key, v, err)
				}
			}
			return nil
		}},
		{"Get of absent keys", func(s *Store, want contents, _ []string) error {
			for i := range 1000 {
				if _, err := s.Get(fmt.Append(nil, "absent ", i)); err != ErrNotFound {
					return err
				}
			}
			return nil
		}},
		{"Put", func(s *Store, want contents, keys []string) (err error) {
			for _, key := range keys {
				want[key] = "put"
				err = errors.Join(err, s.Put([]byte(key), []byte("put")))
			}
			return err
		}},
		{"Put of new keys", func(s *Store, want contents, _ []string) (err error) {
			for i := range 1000 {
				key := fmt.Sprint("new ", i)
				want[key] = "put"
				err = errors.Join(err, s.Put([]byte(key), []byte("put")))
			}
			return err
		}},
		{"Delete", func(s *Store, want contents, keys []string) (err error) {
			for _, key := range keys {
				delete(want, key)
				err = errors.Join(err, s.Delete([]byte(key)))
			}
			return err
		}},
		{"Delete of absent keys", func(s *Store, want contents, _ []string) (err error) {
			before := s.Stats().Revision
			for i := range 1000 {
				err = errors.Join(err, s.Delete(fmt.Append(nil, "absent ", i)))
			}
			if s.Stats().Revision != before {
				err = errors.Join(err, errors.New("was a mutation"))
			}
			return err
		}},
		{"Update", func(s *Store, want contents, keys []string) error {
			return s.Update(func(tx *Tx) (err error) {
				for i, key := range keys {
					if v, getErr := tx.Get([]byte(key)); getErr != nil || string(v) != want[key] {
						return fmt.Errorf("%q has %q, %w", key, v, getErr)
					}
					if i%2 == 0 {
						want[key] = "updated"
						err = errors.Join(err, tx.Put([]byte(key), []byte("updated")))
					} else {
						delete(want, key)
						err = errors.Join(err, tx.Delete([]byte(key)))
					}
				}
				return err
			})
		}},
		{"CompareAndSwap", func(s *Store, want contents, keys []string) error {
			for _, key := range keys {
				if ok, err := s.CompareAndSwap([]byte(key), []byte(want[key]), []byte("swapped")); err != nil || !ok {
					return fmt.Errorf("%q: %v, %w", key, ok, err)
				}
				want[key] = "swapped"
			}
			return nil
		}},
		{"Iter, and writes while it goes on", func(s *Store, want contents, keys []string) error {
			it, snapshot := s.Iter(nil), maps.Clone(want)
			for _, key := range keys {
				want[key] = "put"
				if err := s.Put([]byte(key), []byte("put")); err != nil {
					return err
				}
			}
			n := 0
			for key, value := range it.All() {
				if snapshot[string(key)] != string(value) {
					return fmt.Errorf("%q has %q, want %q", key, value, snapshot[string(key)])
				}
				n++
			}
			if n != len(snapshot) {
				return fmt.Errorf("%d keys of %d", n, len(snapshot))
			}
			return it.Err()
		}},
		{"Compact", func(s *Store, _ contents, _ []string) error { _, err := s.Compact(s.closing); return err }},
		{"Clear", func(s *Store, want contents, _ []string) error { clear(want); return s.Clear() }},
		{"WriteTo", func(s *Store, _ contents, _ []string) error { _, err := s.WriteTo(&bytes.Buffer{}); return err }},
		{"Verify", func(s *Store, want contents, _ []string) error {
			r, err := s.Verify(s.closing)
			if err == nil && (len(r.Violations) > 0 || int(r.Keys) != len(want)) {
				err = fmt.Errorf("%d keys of %d, %v", r.Keys, len(want), r.Violations)
			}
			return err
		}},
		{"a checkpoint is taken", func(s *Store, _ contents, _ []string) error {
			f, err := s.writeCheckpoint(s.gen.Load(), mmapfile.BootID())
			if err == nil {
				err = f.Close()
			}
			return err
		}},
		{"loaded in the background", func(s *Store, _ contents, _ []string) error {
			g := s.gen.Load()
			s.loadRest(t.Context(), g)
			s.verifyRest(g)
			if g.index.saved != nil || g.unverified.Load() != 0 {
				return fmt.Errorf("not loaded, or %d bytes not verified", g.unverified.Load())
			}
			return nil
		}},
		{"Close", func(s *Store, _ contents, _ []string) error { return s.Close() }},
	}
	for _, tc := range []struct {
		of      *atlas
		damaged []int
	}{{a, nil}, {a, []int{0}}, {a, []int{n - 1}}, {a, []int{n / 2, n/2 + 1}}, {a, all}, {k, nil}, {k, []int{n / 2, n/2 + 1}}} {
		a, damaged := tc.of, tc.damaged
		for i, d := range deeds {
			few := len(damaged) < 2 && a != k || len(damaged) == n && invariants.Enabled
			if few && (i%4 != 1 || invariants.Enabled) {
				continue // in which nothing differs
			}
			t.Run(fmt.Sprintf("%d damaged, killed %v, first %s", len(damaged), a == k, d.name), func(t *testing.T) {
				path, want := a.copyTo(t, damaged), maps.Clone(a.want)
				touch := damaged
				if touch == nil {
					touch = all
				}
				s := a.open(t, path, false)
				if err := d.do(s, want, a.keysIn(touch, 50)); err != nil {
					t.Fatal(err)
				}
				if d.name != "Close" {
					want.must(t, s)
					want.put(t, s, "one more", "value")
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
				}
				s = a.open(t, path, true)
				for _, i := range all {
					if i < len(s.gen.Load().index.segs) && d.name != "Close" && !holdsUp(s, i) {
						t.Errorf("segment %d of the next checkpoint is damaged", i)
					}
				}
				want.must(t, s)
			})
		}
	}
}

// holdsUp tells whether segment i of the checkpoint that s was opened by is whole.
func holdsUp(s *Store, i int) bool {
	ix := s.gen.Load().index
	ix.mu.Lock()
	defer ix.mu.Unlock()
	at := uint64(0)
	for _, seg := range ix.segs[:i] {
		at += 1 << (64 - seg.depth)
	}
	return ix.saved.read(make([]uint64, ix.saved.SlotCount), uint32(i), at) == nil
}

// Goal: readers and writers go on while damaged segments are loaded and rebuilt in the
// background, and each finds what it should. Method: as many goroutines as there are
// parts of the keys, each of which alone writes its part and knows what is there;
// followers that opened the same checkpoint look on; of a closed store, and of a killed one.
func TestSegmentDamageMeanwhile(t *testing.T) {
	closed := atlasOf(t, 30_000)
	k := closed.killed(t, func(s *Store, want contents) { writeBehind(t, s, want) })
	for round := range 4 {
		a := []*atlas{closed, k}[round%2]
		damaged := []int{round, round + 4}
		path := a.copyTo(t, damaged)
		s := a.open(t, path, false)
		follower := a.open(t, path, true)
		s.finishResume(s.gen.Load())
		follower.finishResume(follower.gen.Load())
		const parts = 4
		models := [parts]contents{}
		for i := range models {
			models[i] = contents{}
		}
		for key, value := range a.want {
			models[len(key)%2+2*(int(key[len(key)-1])%2)][key] = value
		}
		var all sync.WaitGroup
		failed := make(chan error, 3*parts)
		for i, model := range models {
			rng := rand.New(rand.NewPCG(uint64(round), uint64(i)))
			keys := make([]string, 0, len(model))
			for key := range model {
				keys = append(keys, key)
			}
			all.Go(func() {
				for range 3000 {
					key := keys[rng.IntN(len(keys))]
					v, err := s.Get([]byte(key))
					if was, ok := model[key]; ok && (err != nil || string(v) != was) || !ok && err != ErrNotFound {
						failed <- fmt.Errorf("%q has %q, %v, want %q", key, v, err, was)
						return
					}
					switch rng.IntN(3) {
					case 0:
						model[key] = fmt.Sprint(rng.Uint64())
						err = s.Put([]byte(key), []byte(model[key]))
					case 1:
						delete(model, key)
						err = s.Delete([]byte(key))
					default:
						err = nil
					}
					if err != nil {
						failed <- err
						return
					}
				}
			})
			all.Go(func() {
				for i := range 3000 {
					key := fmt.Sprint("key ", i*7%30_000)
					if _, err := follower.Get([]byte(key)); err != nil && err != ErrNotFound {
						failed <- fmt.Errorf("the follower: %w", err)
						return
					}
				}
			})
		}
		all.Wait()
		select {
		case err := <-failed:
			t.Fatal(err)
		default:
		}
		want := contents{}
		for _, model := range models {
			maps.Copy(want, model)
		}
		want.must(t, s)
		want.must(t, follower)
		if err := errors.Join(follower.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// Goal: who only reads, and follows, is right with damaged segments too: in what was
// there, in what the writer does meanwhile, and after a compaction, which makes it open
// the next checkpoint. Method: a follower whose segments are met by reads, before and
// after the writer has changed and deleted their keys; of a closed store, and of a killed one.
func TestFollowerOfDamagedSegments(t *testing.T) {
	closed := atlasOf(t, 30_000)
	k := closed.killed(t, func(s *Store, want contents) { writeBehind(t, s, want) })
	all := make([]int, len(closed.head.Segments))
	for i := range all {
		all[i] = i
	}
	for _, tc := range []struct {
		of      *atlas
		damaged []int
	}{{closed, nil}, {closed, []int{1, 3}}, {closed, all}, {k, nil}, {k, []int{1, 3}}} {
		a, damaged := tc.of, tc.damaged
		path, want := a.copyTo(t, damaged), maps.Clone(a.want)
		f := a.open(t, path, true)
		s := a.open(t, path, false)
		for i, key := range a.keysIn(all, 3000) {
			if i%3 == 0 {
				delete(want, key)
				if err := s.Delete([]byte(key)); err != nil {
					t.Fatal(err)
				}
			} else {
				want.put(t, s, key, "changed")
			}
		}
		want.must(t, f)
		late := a.open(t, a.copyTo(t, damaged), true)
		a.want.must(t, late)
		if _, err := s.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		takeCheckpoint(t, s)
		want.put(t, s, "after it", "value")
		want.must(t, f)
		if !byCheckpoint(f) && f.gen.Load().checkpoint.Load() == 0 {
			t.Error("the follower has read the whole log of the next generation")
		}
		want.must(t, s)
	}
}

// harmUnseen changes the log at off as a medium does that rots: no length and no time
// tells of it.
func harmUnseen(t *testing.T, path string, off int64, change func(b []byte), n int) {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	harm(t, path, off, change, n)
	if err := os.Chtimes(path, fi.ModTime(), fi.ModTime()); err != nil {
		t.Fatal(err)
	}
}

// partsOfRecord are where a record can be damaged.
var partsOfRecord = []struct {
	name string
	at   func(rec []byte) int
}{
	{"sum", func([]byte) int { return 3 }},
	{"length", func([]byte) int { return crc.FrameSize - 8 }},
	{"length made huge", func([]byte) int { return crc.FrameSize - 6 }},
	{"flags", func([]byte) int { return crc.FrameSize - 4 }},
	{"incompatible flags", func([]byte) int { return crc.FrameSize - 1 }},
	{"key", func(rec []byte) int { return bytes.Index(rec, []byte("key ")) + 4 }},
	{"value", func(rec []byte) int { return bytes.Index(rec, []byte("value ")) + 6 }},
	{"before the value", func(rec []byte) int { return bytes.Index(rec, []byte("value ")) - 2 }},
}

// Goal: damage below a checkpoint of which neither the length nor the time of the log
// tells is never a wrong value, nor an absent key: a read of it is ErrCorrupt, the
// background pass finds it, hook, log and Stats are told, all else is served and can be
// written, nothing is poisoned; and once it is known, Open refuses.
// Method: each part of a record, live or dead, damaged while the store is closed; each
// key read before the background pass and after it; a small index and one of several
// segments.
func TestUnseenDamage(t *testing.T) {
	for _, keys := range []int{500, 9000} {
		a := atlasOf(t, keys)
		for i, part := range partsOfRecord {
			if invariants.Enabled && (i%2 == 0) != (keys == 500) {
				continue
			}
			for _, live := range []bool{true, false} {
				t.Run(fmt.Sprintf("%d keys, %s, live %v", keys, part.name, live), func(t *testing.T) {
					path, want := a.copyTo(t, nil), maps.Clone(a.want)
					s := a.open(t, path, true)
					var rec Record
					n := 0
					for r, err := range s.Records(s.closing) {
						if err != nil {
							t.Fatal(err)
						}
						// Any but the last records, whose bytes TailSum knows.
						if n++; n > 20+i && !r.Deleted && r.Live == live {
							rec = r
							rec.Key = bytes.Clone(r.Key)
							break
						}
					}
					at := part.at(s.gen.Load().bytes()[rec.Off : rec.Off+rec.Len])
					s.Close()
					harmUnseen(t, path, rec.Off+int64(at), flip, 1)

					w := &witness{}
					s = openCopied(t, path, w.options())
					defer s.Close()
					g := s.gen.Load()
					covered := g.unverified.Load()
					readAll := func() {
						t.Helper()
						for key, value := range want {
							v, err := s.Get([]byte(key))
							if live && key == string(rec.Key) {
								if !errors.Is(err, ErrCorrupt) {
									t.Errorf("the damaged one is %q, %v", v, err)
								}
							} else if err != nil || string(v) != value {
								t.Errorf("%q has %q, %v, want %q", key, v, err, value)
							}
						}
						if it := s.Iter(nil); live {
							for range it.All() {
							}
							if !errors.Is(it.Err(), ErrCorrupt) {
								t.Errorf("iteration: %v", it.Err())
							}
						}
					}
					readAll()
					if live && (len(w.told) == 0 || w.told[0].Ranges[0].Off != rec.Off || s.Stats().Corruptions == 0) {
						t.Errorf("a read met it, and the hook was told %v, Stats of %d", w.told, s.Stats().Corruptions)
					}
					// As many more keys as make the index grow.
					for i := range keys + keys/2 {
						want.put(t, s, fmt.Sprint("new ", i), "value")
					}
					readAll()
					s.loadRest(t.Context(), g)
					s.verifyRest(g)
					if n := g.unverified.Load(); n != covered {
						t.Errorf("%d bytes count as not verified, of %d", n, covered)
					}
					if len(w.told) != 1 || w.told[0].Ranges[0].Off != rec.Off || s.Stats().Corruptions == 0 {
						t.Errorf("the hook was told of %v, the damage is at %d; Stats tell of %d", w.told, rec.Off, s.Stats().Corruptions)
					}
					readAll()
					if r, err := s.Verify(t.Context()); err != nil || len(r.Violations) == 0 {
						t.Errorf("Verify: %v, %v", r.Violations, err)
					}
					// It leaves dead records behind, the damaged one too.
					if _, err := s.Compact(t.Context()); live != errors.Is(err, ErrCorrupt) || !live && err != nil {
						t.Errorf("Compact: %v", err)
					}
					// It can be written over, and is then as any other key.
					want.put(t, s, string(rec.Key), "mended")
					if v, err := s.Get(rec.Key); err != nil || string(v) != "mended" {
						t.Errorf("written over, it is %q, %v", v, err)
					}
					if err := errors.Join(s.poisoned(), s.Sync(), s.Close()); err != nil {
						t.Error(err)
					}
					s, err := openOn(copiedDisk, path, nil)
					if errors.Is(err, ErrCorrupt) != live && !strings.Contains(part.name, "flags") {
						t.Errorf("opened again: %v", err)
					}
					if err == nil {
						s.Close()
					}
				})
			}
		}
	}
}

// Goal: where a damaged segment cannot be rebuilt, for the log is damaged too, its keys
// are ErrCorrupt, to read and to write, and all others go on: no panic, no hang,
// nothing poisoned, nothing half done. Method: both are damaged while the store is
// closed; every kind of operation, on keys of damaged segments and of others.
func TestLostSegments(t *testing.T) {
	a := atlasOf(t, 30_000)
	lost := []int{2, 5}
	bad := a.keysIn(lost, 1<<30)
	for _, background := range []bool{false, true} {
		path, want := a.copyTo(t, lost), maps.Clone(a.want)
		harmUnseen(t, path, crc.HeaderSize+40_000, flip, 1)
		w := &witness{}
		s := openCopied(t, path, w.options())
		defer s.Close()
		if background {
			s.loadRest(t.Context(), s.gen.Load())
			s.verifyRest(s.gen.Load())
		}
		isBad := make(map[string]bool)
		for _, key := range bad {
			isBad[key] = true
		}
		corrupt := 0 // of the others: the damaged record itself
		readAll := func() {
			t.Helper()
			corrupt = 0
			for key, value := range want {
				v, err := s.Get([]byte(key))
				switch {
				case isBad[key] && !errors.Is(err, ErrCorrupt):
					t.Fatalf("%q of a lost segment is %q, %v", key, v, err)
				case !isBad[key] && errors.Is(err, ErrCorrupt):
					corrupt++
				case !isBad[key] && (err != nil || string(v) != value):
					t.Fatalf("%q has %q, %v, want %q", key, v, err, value)
				}
			}
			if corrupt > 1 {
				t.Fatalf("%d keys of whole segments are corrupt", corrupt)
			}
		}
		readAll()
		before := s.Stats()
		for name, err := range map[string]error{
			"Put":     s.Put([]byte(bad[0]), []byte("x")),
			"Delete":  s.Delete([]byte(bad[1])),
			"Compute": s.Compute([]byte(bad[2]), func([]byte, bool) ([]byte, Op) { return nil, Write }),
			"Update": s.Update(func(tx *Tx) error {
				return errors.Join(tx.Put([]byte("fine"), []byte("x")), tx.Put([]byte(bad[3]), []byte("x")), tx.Delete([]byte("key 1")))
			}),
			"Iter":    s.Iter(nil).Err(),
			"WriteTo": func() error { _, err := s.WriteTo(&bytes.Buffer{}); return err }(),
			"Compact": func() error { _, err := s.Compact(s.closing); return err }(),
			"Verify":  func() error { _, err := s.Verify(s.closing); return err }(),
			"GetMany": s.GetMany([][]byte{[]byte("absent"), []byte(bad[4])}, func(int, []byte, bool) error { return nil }),
		} {
			var e *Error
			if !errors.Is(err, ErrCorrupt) || !errors.As(err, &e) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if after := s.Stats(); after.Revision != before.Revision || after.Tail != before.Tail || after.Poisoned != nil {
			t.Errorf("before %+v, after %+v", before, after)
		}
		if len(w.told) == 0 {
			t.Error("the hook was not called")
		}
		n := 0
		for i := range 20_000 {
			key := fmt.Sprint("new ", i)
			if slot := a.segmentOf(key); slot == lost[0] || slot == lost[1] {
				if err := s.Put([]byte(key), nil); !errors.Is(err, ErrCorrupt) {
					t.Fatalf("put into a lost segment: %v", err)
				}
				continue
			}
			want.put(t, s, key, "value")
			n++
		}
		if n == 0 {
			t.Fatal("nothing was written")
		}
		readAll()
		if err := errors.Join(s.poisoned(), s.Sync(), s.Close()); err != nil {
			t.Error(err)
		}
		if _, err := openOn(copiedDisk, path, nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("opened again: %v", err)
		}
	}
}

// Goal: who has written to a closed store's log makes Open read all of it, and refuse
// what it damaged, as without a checkpoint. Method: a byte changed, with the time that
// this leaves; a byte behind; the time alone, of a whole log.
func TestLogTouched(t *testing.T) {
	a := atlasOf(t, 2000)
	for _, readOnly := range []bool{true, false} {
		path := a.copyTo(t, nil)
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		harm(t, path, crc.HeaderSize+20_000, flip, 1)
		// The clock of a file system may not have gone on since the copy was made.
		if err := os.Chtimes(path, fi.ModTime(), fi.ModTime().Add(1)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := openOn(copiedDisk, path, &Options{ReadOnly: readOnly}); !errors.Is(err, ErrCorrupt) {
				t.Errorf("read-only %v: damaged, it opens: %v", readOnly, err)
			}
		}
		for _, touch := range []func() error{
			func() error { return os.Chtimes(path, fi.ModTime(), fi.ModTime().Add(1)) },
			func() error {
				return errors.Join(os.Truncate(path, fi.Size()+1), os.Chtimes(path, fi.ModTime(), fi.ModTime()))
			},
		} {
			path = a.copyTo(t, nil)
			if err := touch(); err != nil {
				t.Fatal(err)
			}
			s, err := openOn(copiedDisk, path, &Options{ReadOnly: readOnly})
			if err != nil {
				t.Fatal(err)
			}
			if byCheckpoint(s) {
				t.Errorf("read-only %v: opened by the checkpoint", readOnly)
			}
			a.want.must(t, s)
			s.Close()
		}
	}
}

// Goal: an index that was loaded, or not yet, grows as any other: its segments split,
// its directory doubles, and all stays right. Method: as many keys more as there were,
// some segments having been met before and others not; and some more after the next
// Open.
func TestResumedGrows(t *testing.T) {
	keys := 200_000
	if testing.Short() || invariants.Enabled {
		keys = 40_000
	}
	a := atlasOf(t, keys)
	want := maps.Clone(a.want)
	for round := range 2 {
		s := a.open(t, a.path, false)
		ix := s.gen.Load().index
		for _, key := range a.keysIn([]int{0, 1, 2, 3}, 100) {
			mustGet(t, s, key, want[key])
		}
		if ix.saved == nil || ix.saved.left == len(ix.segs) {
			t.Fatal("all is loaded, or nothing")
		}
		before := len(ix.segs)
		for i := range keys >> (3 * round) {
			want.put(t, s, fmt.Sprint("round ", round, " ", i), "value")
		}
		if round == 0 && len(ix.segs) < before*3/2 {
			t.Errorf("%d segments, %d before", len(ix.segs), before)
		}
		want.must(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := a.open(t, a.path, true)
	want.must(t, s)
}

// Goal: FORMAT.md says all that it takes to find a key in a checkpoint. Method: its words,
// without the index's own code: each key of a store with segments of several depths,
// and of one with a small segment.
func TestCheckpointByFormat(t *testing.T) {
	for _, keys := range []int{100, 30_000} {
		a := atlasOf(t, keys)
		log, err := os.ReadFile(a.path)
		file, err2 := os.ReadFile(a.path + indexSuffix)
		if err = errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		header, err := crc.DecodeHeader(log)
		if err != nil {
			t.Fatal(err)
		}
		word := func(off int64) uint64 { return binary.LittleEndian.Uint64(file[off:]) }
		hash := func(key string) uint64 {
			product := new(big.Int).SetUint64(xxhash.Sum64String(key) ^ header.HashSeed)
			product.Mul(product, new(big.Int).SetUint64(0x9e3779b97f4a7c15))
			lower := new(big.Int).And(product, new(big.Int).SetUint64(math.MaxUint64)).Uint64()
			h := lower ^ product.Rsh(product, 64).Uint64()
			x := h >> 32
			x = (x + x*(1<<32-x)>>32*1431655765>>32) % (1 << 32)
			return x<<32 | h%(1<<32)
		}
		slotCount, segments := int64(word(120)&(1<<32-1)), int64(word(124)&(1<<32-1))
		first := (4096 + 16*segments + 4095) / 4096 * 4096
		find := func(key string) (off int64) {
			h, at := hash(key), float64(0)
			segment := int64(0)
			for ; ; segment++ {
				if at += math.Ldexp(1, -int(file[4096+16*segment+12])); math.Ldexp(float64(h>>20), -44) < at {
					break
				}
			}
			buckets := slotCount / 8
			for d := range int64(4) {
				bucket := (int64(h%uint64(buckets)) + d) % buckets
				empty := false
				for i := range int64(8) {
					slot := word(first + 8*(segment*slotCount+8*bucket+i))
					empty = empty || slot == 0
					if slot > 1 && slot>>42 == h>>42 && slot>>40&3 == uint64(d) {
						p, ok := crc.Payload(log, int64(slot&(1<<40-1))*8)
						if k, isEntry := codec.Key(p); ok && isEntry && string(k) == key {
							return int64(slot&(1<<40-1)) * 8
						}
					}
				}
				if empty {
					break
				}
			}
			return 0
		}
		for key, value := range a.want {
			p, _ := crc.Payload(log, find(key))
			if v, _, ok := codec.Value(p); !ok || string(v) != value {
				t.Fatalf("%d keys: %q has %q, want %q", keys, key, v, value)
			}
		}
		if off := find("key 0"); off != 0 {
			t.Errorf("a deleted key is at %d", off)
		}
	}
}
