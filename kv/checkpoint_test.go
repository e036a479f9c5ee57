package kv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/internal/invariants"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// contents are the entries that a store is to show.
type contents map[string]string

// exactly returns in what s differs from want, by every way of reading that has a way
// of its own through the index.
func (want contents) exactly(s *Store) error {
	keys, asked := make([][]byte, 0, len(want)), []string(nil)
	for key, value := range want {
		if got, err := s.Get([]byte(key)); err != nil || string(got) != value {
			return fmt.Errorf("key %.30q has %.30q, %v, want %.30q", key, got, err, value)
		}
		keys, asked = append(keys, []byte(key)), append(asked, value)
	}
	keys = append(keys, []byte("was never there"))
	err := s.GetMany(keys, func(i int, value []byte, ok bool) error {
		if ok != (i < len(asked)) || ok && string(value) != asked[i] {
			return fmt.Errorf("GetMany: key %.30q has %.30q, %v", keys[i], value, ok)
		}
		return nil
	})
	if err != nil {
		return err
	}
	it, n := s.Iter(nil), 0
	for key, value := range it.All() {
		if v, ok := want[string(key)]; !ok || v != string(value) {
			return fmt.Errorf("iteration: key %.30q has %.30q, want %.30q, %v", key, value, v, ok)
		}
		n++
	}
	if it.Err() != nil || n != len(want) || s.Len() != n {
		return fmt.Errorf("iteration yields %d keys of %d, Len says %d: %w", n, len(want), s.Len(), it.Err())
	}
	r, err := s.Verify(s.closing)
	if err == nil && len(r.Violations) > 0 {
		err = fmt.Errorf("verify: %v", r.Violations)
	}
	return err
}

// must fails the test unless s shows exactly want.
func (want contents) must(t testing.TB, s *Store) {
	t.Helper()
	if err := want.exactly(s); err != nil {
		t.Fatal(err)
	}
}

// put writes to both.
func (want contents) put(t testing.TB, s *Store, key, value string) {
	t.Helper()
	mustPut(t, s, key, value)
	want[key] = value
}

// byCheckpoint tells whether the index of s came from one.
func byCheckpoint(s *Store) bool { return s.gen.Load().unverified.Load() > 0 }

// takeCheckpoint takes one as the background does.
func takeCheckpoint(t testing.TB, s *Store) {
	t.Helper()
	f, err := s.writeCheckpoint(s.gen.Load(), mmapfile.BootID())
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// stillDisk is an imageDisk that syncs nothing, for those who open very many files.
type stillDisk struct{ wrapDisk }

var still = stillDisk{wrapDisk{imageDisk, func(_ string, f file) file { return stillFile{f} }}}

type stillFile struct{ file }

func (stillFile) Sync(_, _ int64) error { return nil }
func (stillFile) SyncFile() error       { return nil }

func (stillDisk) OpenDir(string) (directory, error) {
	return heldDir{func() error { return nil }}, nil
}

// openStill opens the store at path. No checkpoint is taken, nor anything verified, in
// the background.
func openStill(path string, readOnly bool) (*Store, error) {
	s, err := openOn(still, path, &Options{ReadOnly: readOnly, Durability: SyncManual, SyncEvery: time.Hour, CompactAt: -1, CheckpointBytes: 1})
	if err == nil {
		s.checkpointing.Store(true)
	}
	return s, err
}

// stillLife is a small store with a checkpoint, as files.
type stillLife struct {
	name       string
	log, index []byte
	want       contents
}

// bury makes the holder of a log, who is this process, one who is no more.
func bury(log []byte) []byte {
	binary.LittleEndian.PutUint64(log[crc.HolderOff:], math.MaxInt32)
	return log
}

// stillLives are what a store leaves that was closed; and one that was killed, with a
// checkpoint that the background took, behind which the log goes on. older are
// the files of the closed one at an earlier time, and other those of another store.
func stillLives(t *testing.T) (lives []stillLife, older, other stillLife) {
	t.Helper()
	dir := t.TempDir()
	read := func(name, path string, want contents) stillLife {
		log, err := os.ReadFile(path)
		index, err2 := os.ReadFile(path + indexSuffix)
		if err = errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		if name == "killed" {
			bury(log)
		}
		return stillLife{name, log, index, maps.Clone(want)}
	}
	open := func(path string) *Store {
		s, err := openStill(path, false)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	closed := func(name, path string, s *Store, want contents) stillLife {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return read(name, path, want)
	}
	fill := func(s *Store, want contents, from int) {
		for i := from; i < from+30; i++ {
			want.put(t, s, fmt.Sprint("key ", i%40), fmt.Sprint("value ", i))
		}
		err := s.Update(func(tx *Tx) error {
			return errors.Join(tx.Put([]byte("a"), fmt.Append(nil, from)), tx.Put([]byte("b"), fmt.Append(nil, from)), tx.Delete([]byte("key 3")))
		})
		if err = errors.Join(err, s.Delete([]byte("key 7"))); err != nil {
			t.Fatal(err)
		}
		want["a"], want["b"] = fmt.Sprint(from), fmt.Sprint(from)
		delete(want, "key 3")
		delete(want, "key 7")
	}
	path, want := filepath.Join(dir, "store"), contents{}
	s := open(path)
	fill(s, want, 0)
	older = closed("older", path, s, want)
	s = open(path)
	fill(s, want, 25)
	lives = append(lives, closed("closed", path, s, want))
	s = open(path)
	fill(s, want, 100)
	takeCheckpoint(t, s)
	want.put(t, s, "key 1", "behind the checkpoint")
	want.put(t, s, "one more", "behind the checkpoint")
	if err := s.Delete([]byte("key 2")); err != nil {
		t.Fatal(err)
	}
	delete(want, "key 2")
	lives = append(lives, read("killed", path, want))
	s.Close()
	path, want = filepath.Join(dir, "other"), contents{}
	s = open(path)
	fill(s, want, 0)
	other = closed("other", path, s, want)
	return lives, older, other
}

// lay puts the files of l where a store at path has them.
func (l *stillLife) lay(t *testing.T, path string, index []byte) {
	t.Helper()
	if err := errors.Join(overwrite(path, l.log), overwrite(path+indexSuffix, index)); err != nil {
		t.Fatal(err)
	}
}

// overwrite gives a file the bytes b, without a moment in which it is empty: for a file
// that begins anew some file systems wait for the device.
func overwrite(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	return errors.Join(err, f.Truncate(int64(len(b))), f.Close())
}

// shows fails the test unless the store at path, with whatever beside it, shows what l
// has, to those who only read, who change nothing, and to those who write.
func (l *stillLife) shows(t *testing.T, path, damage string, alsoWrite bool) (resumed bool) {
	t.Helper()
	try := func(how string, readOnly bool, then func(s *Store) error) {
		t.Helper()
		s, err := openStill(path, readOnly)
		if err != nil {
			t.Fatalf("%s, %s: %s: %v", l.name, damage, how, err)
		}
		resumed = resumed || byCheckpoint(s) && how != "opened again"
		err = l.want.exactly(s)
		if err == nil && then != nil {
			err = then(s)
		}
		if err = errors.Join(err, s.Close()); err != nil {
			t.Fatalf("%s, %s: %s: %v", l.name, damage, how, err)
		}
	}
	index, _ := os.ReadFile(path + indexSuffix)
	try("read", true, nil)
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, l.log) {
		t.Fatalf("%s, %s: reading has changed the log (%v)", l.name, damage, err)
	}
	if after, _ := os.ReadFile(path + indexSuffix); !bytes.Equal(after, index) {
		t.Fatalf("%s, %s: reading has changed the checkpoint", l.name, damage)
	}
	if !alsoWrite {
		return resumed
	}
	again := stillLife{name: l.name, want: maps.Clone(l.want)}
	try("written on", false, func(s *Store) error {
		again.want["new"] = "value"
		return errors.Join(s.Put([]byte("new"), []byte("value")), s.Delete([]byte("key 5")))
	})
	delete(again.want, "key 5")
	was := l.want
	l.want = again.want
	try("opened again", true, nil)
	l.want = was
	return resumed
}

// Goal: whatever becomes of a checkpoint, the store opens and shows exactly what it has,
// and Verify finds nothing. Method: the checkpoint of a closed store and that of a
// killed one, with every byte changed, of every length, and in other ways; the files
// are the same to the store though their copies are others.
func TestCheckpointDamage(t *testing.T) {
	lives, older, other := stillLives(t)
	path := filepath.Join(t.TempDir(), "store")
	for _, l := range lives {
		tries, resumed := 0, 0
		try := func(damage string, index []byte, alsoWrite bool) {
			t.Helper()
			l.lay(t, path, index)
			tries++
			if l.shows(t, path, damage, alsoWrite) {
				resumed++
			}
		}
		if try("undamaged", l.index, true); resumed != 1 {
			t.Fatalf("%s: not opened by its checkpoint", l.name)
		}
		step := 1
		if testing.Short() || invariants.Enabled {
			step = 16
		}
		for i := 0; i < len(l.index); i += step {
			b := bytes.Clone(l.index)
			b[i] ^= 1 << (i % 8)
			try(fmt.Sprintf("byte %d changed", i), b, i%64 == 0 || i/64%8 == i%8 && i < 768)
		}
		whole := resumed
		for n := 0; n < len(l.index); n += max(1, step, n/64) {
			try(fmt.Sprintf("cut to %d bytes", n), l.index[:n], n%32 == 0)
		}
		if resumed != whole {
			t.Errorf("%s: opened by a checkpoint that was cut", l.name)
		}
		for _, n := range []int{1, 8, 511, 4096, 100_000} {
			try(fmt.Sprintf("%d bytes of garbage behind", n), append(bytes.Clone(l.index), bytes.Repeat([]byte{0xa5}, n)...), true)
		}
		for _, unit := range []int{64, sectorSize, pageSize} {
			for at := 0; at+unit <= len(l.index); at += unit {
				for _, fill := range []byte{0, 0xff} {
					b := bytes.Clone(l.index)
					copy(b[at:], bytes.Repeat([]byte{fill}, unit))
					try(fmt.Sprintf("%d bytes at %d filled with %d", unit, at, fill), b, at%sectorSize == 0)
				}
				b := bytes.Clone(l.index)
				copy(b[at:at+unit], older.index[at:])
				try(fmt.Sprintf("%d bytes at %d of an older one", unit, at), b, at%sectorSize == 0)
				to := (at + 3*unit) % (len(l.index) / unit * unit)
				copy(b, l.index)
				copy(b[at:at+unit], l.index[to:])
				copy(b[to:to+unit], l.index[at:])
				try(fmt.Sprintf("%d bytes at %d swapped with those at %d", unit, at, to), b, at%sectorSize == 0)
			}
		}
		whole = resumed
		try("another store's", other.index, true)
		if resumed != whole {
			t.Errorf("%s: opened by another store's checkpoint", l.name)
		}
		try("an older one", older.index, true)
		unmarked := bytes.Clone(older.index)
		clear(unmarked[crc.CloseMarkOff : crc.CloseMarkOff+crc.CloseMarkSize])
		if whole = resumed; true {
			try("an older one of a store that was killed", unmarked, true)
		}
		if resumed != whole+1 {
			t.Errorf("%s: not opened by an older checkpoint of its own", l.name)
		}
		t.Logf("%s: %d kinds of damage, %d of them to a segment or to bytes that say nothing", l.name, tries, resumed)
	}
}

// Goal: what is no file in the checkpoint's place does not matter either, and is not
// followed nor waited for. Method: a directory, symbolic links, no permission.
func TestCheckpointNoFile(t *testing.T) {
	lives, _, _ := stillLives(t)
	for _, tc := range []struct {
		name string
		make func(path string) error
	}{
		{"a directory", func(index string) error { return os.MkdirAll(index+"/x", 0o700) }},
		{"a link to nothing", func(index string) error { return os.Symlink(index+" none", index) }},
		{"a link to the log", func(index string) error { return os.Symlink(strings.TrimSuffix(index, indexSuffix), index) }},
		{"a link to a device", func(index string) error { return os.Symlink("/dev/null", index) }},
		{"a directory where the next one is made", func(index string) error { return os.MkdirAll(index+"-new/x", 0o700) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, l := range lives {
				path := filepath.Join(t.TempDir(), "store")
				l.lay(t, path, l.index)
				if !strings.HasSuffix(tc.name, "made") {
					os.Remove(path + indexSuffix)
				}
				if err := tc.make(path + indexSuffix); err != nil {
					t.Fatal(err)
				}
				l.shows(t, path, tc.name, true)
			}
		})
	}
}

// Goal: a checkpoint is that of the very log beside it: not of one of the same
// generation that an older copy was continued to. Method: a store is copied and goes on
// in two ways, of the same length and with the same end, with values short and so long
// that the end is all value; each log with the other's checkpoint, of a kill, of
// which no length or time is known.
func TestCheckpointOfAnotherFuture(t *testing.T) {
	for _, size := range []int{10, 3000, 10_000, 100_000} {
		dir := t.TempDir()
		at := func(i int) string { return filepath.Join(dir, fmt.Sprint(i), "store") }
		var lives [2]stillLife
		for i := range lives {
			if err := os.Mkdir(filepath.Dir(at(i)), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		want := contents{}
		s, err := openStill(at(0), false)
		if err != nil {
			t.Fatal(err)
		}
		want.put(t, s, "before", "both")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(at(0))
		if err == nil {
			err = os.WriteFile(at(1), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range lives {
			s, err := openStill(at(i), false)
			if err != nil {
				t.Fatal(err)
			}
			s.clock.advance((1 << 41) + int64(i)*1000) // the stamps of another second
			l := stillLife{want: maps.Clone(want)}
			l.want.put(t, s, fmt.Sprint("key ", i), "value")
			l.want.put(t, s, "the last", string(make([]byte, size)))
			takeCheckpoint(t, s)
			l.log, err = os.ReadFile(at(i))
			bury(l.log)
			if err == nil {
				l.index, err = os.ReadFile(at(i) + indexSuffix)
			}
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
			lives[i] = l
		}
		path := filepath.Join(dir, "store")
		for i := range lives {
			l := &lives[i]
			l.name = fmt.Sprint("values of ", size)
			l.lay(t, path, lives[1-i].index)
			if l.shows(t, path, "the other's checkpoint", true) {
				t.Errorf("values of %d: opened by the checkpoint of another future", size)
			}
			l.lay(t, path, l.index)
			if !l.shows(t, path, "its own", true) {
				t.Errorf("values of %d: not opened by its own checkpoint", size)
			}
		}
	}
}

// Goal: records that were never synced and are gone, though the machine was not started
// again (the device was away for a moment, or a sync failed and the kernel let the
// pages go), end the log as without a checkpoint, be it that one covers them. Method: a
// killed store's log loses a record, or sectors, behind the durable mark; and before
// it, where that is damage, which a read meets.
func TestCheckpointCoversUnsynced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	s, err := openStill(path, false)
	if err != nil {
		t.Fatal(err)
	}
	states := []contents{{}} // by revision
	var ends []int64
	put := func(i int) {
		now := maps.Clone(states[len(states)-1])
		now.put(t, s, fmt.Sprint("key ", i), strings.Repeat(fmt.Sprint(i, " "), 100))
		states = append(states, now)
		ends = append(ends, s.gen.Load().end.Load())
	}
	for i := range 20 {
		put(i)
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	durable := s.gen.Load().end.Load()
	for i := range 60 {
		put(i + 10)
	}
	takeCheckpoint(t, s)
	put(100)
	log, err := os.ReadFile(path)
	index, err2 := os.ReadFile(path + indexSuffix)
	if err = errors.Join(err, err2, s.Close()); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "image")
	l := stillLife{name: "killed", log: bury(log), want: states[len(states)-1]}
	l.lay(t, image, index)
	if !l.shows(t, image, "whole", true) {
		t.Fatal("not opened by its checkpoint")
	}
	end := ends[len(ends)-2] // what the checkpoint covers
	for off := (durable + sectorSize - 1) / sectorSize * sectorSize; off < end; off += sectorSize {
		for _, n := range []int64{sectorSize, end - off} {
			l.log = bytes.Clone(log)
			clear(l.log[off:min(off+n, int64(len(log)))])
			whole := 0 // records before the loss
			for whole < len(ends) && ends[whole] <= off {
				whole++
			}
			l.want = states[whole]
			l.lay(t, image, index)
			if l.shows(t, image, fmt.Sprintf("%d bytes at %d lost", n, off), true) {
				t.Errorf("%d bytes at %d lost: opened by the checkpoint", n, off)
			}
		}
	}
}

// Goal: a checkpoint that was not synced serves in the boot in which it was taken, and in
// no other, for nobody knows what of it and of its log the machine has lost; one that
// was synced serves in any. Method: of a killed store and a closed one, the boot that
// the checkpoint names and that which the log's header has, each this one, another, or
// none.
func TestCheckpointOfAnotherBoot(t *testing.T) {
	lives, _, _ := stillLives(t)
	path := filepath.Join(t.TempDir(), "store")
	here, other := mmapfile.BootID(), mmapfile.BootID()+1
	for _, l := range lives {
		head, err := crc.DecodeCheckpoint(l.index)
		if err != nil {
			t.Fatal(err)
		}
		boots := []uint64{here, other}
		if head.Boot == 0 {
			boots = []uint64{0}
		}
		log := l.log
		for _, boot := range boots {
			for _, noted := range []uint64{here, other, 0} {
				h := head
				h.Boot = boot
				l.log = bytes.Clone(log)
				binary.LittleEndian.PutUint64(l.log[crc.BootOff:], noted)
				index := bytes.Clone(l.index)
				copy(index, crc.EncodeCheckpoint(&h))
				clear(index[crc.CloseMarkOff : crc.CloseMarkOff+crc.CloseMarkSize])
				l.lay(t, path, index)
				want := boot == 0 || boot == here && noted == here
				if got := l.shows(t, path, "another boot", true); got != want {
					t.Errorf("%s: the checkpoint names boot %x, the log %x, this is %x: opened by it: %v", l.name, boot, noted, here, got)
				}
			}
		}
	}
}

// Goal: a checkpoint is taken where it is worth it, and only then; and what lies
// there stays true of the store. Method: a table of what is done to a store, and
// what must be beside it afterwards.
func TestCheckpointKept(t *testing.T) {
	fill := func(t *testing.T, s *Store, n int) {
		for i := range n {
			mustPut(t, s, fmt.Sprint(i), "value")
		}
	}
	for _, tc := range []struct {
		name  string
		opts  Options
		do    func(t *testing.T, s *Store)
		there bool // after Close
	}{
		{"a store of a few records", Options{}, func(t *testing.T, s *Store) { fill(t, s, 1000) }, false},
		{"a store of some size", Options{}, func(t *testing.T, s *Store) { fill(t, s, 10_000) }, true},
		{"asked for", Options{CheckpointBytes: 1}, func(t *testing.T, s *Store) { fill(t, s, 1) }, true},
		{"an empty store", Options{CheckpointBytes: 1}, func(*testing.T, *Store) {}, true},
		{"asked not to", Options{CheckpointBytes: -1}, func(t *testing.T, s *Store) { fill(t, s, 10_000) }, false},
		{"cleared", Options{}, func(t *testing.T, s *Store) {
			fill(t, s, 10_000)
			if err := s.Clear(); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"compacted to nearly nothing", Options{}, func(t *testing.T, s *Store) {
			for range 10_000 {
				mustPut(t, s, "key", "value")
			}
			if _, err := s.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"damaged", Options{}, func(t *testing.T, s *Store) {
			fill(t, s, 10_000)
			s.found(&CorruptError{Ranges: []Range{{Off: crc.HeaderSize, Len: 8}}, What: "a test says so"})
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store")
			for _, earlier := range []bool{false, true} {
				s, err := Open(path, &tc.opts)
				if err != nil {
					t.Fatal(err)
				}
				tc.do(t, s)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if _, err := os.Stat(path + indexSuffix); (err == nil) != tc.there {
					t.Errorf("there is a checkpoint: %v, want %v", err == nil, tc.there)
				}
				if _, err := os.Stat(path + newIndexSuffix); err == nil {
					t.Error("half of one was left")
				}
				s = openUnsound(t, path, &Options{ReadOnly: true, CheckpointBytes: tc.opts.CheckpointBytes})
				if n := s.gen.Load().checkpoint.Load(); (n > 0) != tc.there {
					t.Errorf("opened by a checkpoint of %d bytes, want %v", n, tc.there)
				}
				mustVerify(t, s)
				s.Close()
				if earlier {
					break
				}
				// Once more, with a checkpoint of all there was.
				if s, err = Open(path, &Options{CheckpointBytes: 1}); err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Goal: the checkpoint of an old generation is gone as soon as there is a new one.
// Method: Clear and Compact of a store that lies beside one.
func TestCheckpointOfOldGeneration(t *testing.T) {
	for name, do := range map[string]func(s *Store) error{
		"Clear":   (*Store).Clear,
		"Compact": func(s *Store) error { _, err := s.Compact(s.closing); return err },
	} {
		s := openTest(t, &Options{Durability: SyncManual, SyncEvery: time.Hour, CompactAt: -1})
		mustPut(t, s, "k", "v")
		takeCheckpoint(t, s)
		if err := do(s); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(s.Path() + indexSuffix); !errors.Is(err, fs.ErrNotExist) || s.Stats().Checkpoint != 0 {
			t.Errorf("%s: the old checkpoint: %v, Stats tell of %d", name, err, s.Stats().Checkpoint)
		}
	}
}

// Goal: with CheckpointBytes below 0, none is read. Method: one is there that would
// be used; a writer takes it away, who only reads leaves it.
func TestCheckpointNotRead(t *testing.T) {
	for _, readOnly := range []bool{true, false} {
		path, _ := checkpointedStore(t, 10)
		s, err := openOn(osDisk{}, path, &Options{ReadOnly: readOnly, CheckpointBytes: -1})
		if err != nil {
			t.Fatal(err)
		}
		if byCheckpoint(s) {
			t.Errorf("read-only %v: it was read", readOnly)
		}
		if _, err := os.Stat(path + indexSuffix); (err == nil) != readOnly {
			t.Errorf("read-only %v: it is there: %v", readOnly, err == nil)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// checkpointedStore is a closed store with so many keys, and a checkpoint.
func checkpointedStore(t testing.TB, keys int) (path string, want contents) {
	t.Helper()
	path, want = filepath.Join(t.TempDir(), "store"), contents{}
	s, err := Open(path, &Options{Durability: SyncManual, SyncEvery: time.Hour, CheckpointBytes: 1, CompactAt: -1})
	if err != nil {
		t.Fatal(err)
	}
	s.checkpointing.Store(true)
	for i := range keys {
		want.put(t, s, fmt.Sprint("key ", i), fmt.Sprint("value ", i))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path, want
}

// Goal: to open and close a store writes no checkpoint anew, at whatever size, and what
// is there serves the next Open. Method: the file stays the same one, and but for the
// close mark with the same bytes; after a write it is another.
func TestCheckpointNotWrittenAnew(t *testing.T) {
	path, want := checkpointedStore(t, 100)
	look := func() (os.FileInfo, []byte) {
		fi, err := os.Stat(path + indexSuffix)
		b, err2 := os.ReadFile(path + indexSuffix)
		if err = errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		clear(b[crc.CloseMarkOff : crc.CloseMarkOff+crc.CloseMarkSize])
		return fi, b
	}
	for round := range 3 {
		first, was := look()
		s, err := Open(path, &Options{CheckpointBytes: 1})
		if err != nil {
			t.Fatal(err)
		}
		if s.Stats().Checkpoint == 0 {
			t.Error("not opened by it")
		}
		want.must(t, s)
		if round == 2 {
			want.put(t, s, "new", "value")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		second, is := look()
		if same := os.SameFile(first, second) && bytes.Equal(was, is); same != (round < 2) {
			t.Errorf("round %d: it is the same: %v", round, same)
		}
	}
	s, err := openOn(osDisk{}, path, &Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !byCheckpoint(s) {
		t.Error("not opened by what the last Close left")
	}
}

// Goal: a store whose index was rebuilt from the log leaves a checkpoint that the next
// Open takes, and so does one that was compacted. Method: the checkpoint is removed, and
// the store opened and closed.
func TestCheckpointAfterRebuild(t *testing.T) {
	path, want := checkpointedStore(t, 5000)
	for _, how := range []string{"rebuilt", "compacted"} {
		if err := os.Remove(path + indexSuffix); err != nil {
			t.Fatal(err)
		}
		s := openTestAt(t, path, &Options{CheckpointBytes: 1 << 20})
		if byCheckpoint(s) {
			t.Fatal("opened by a checkpoint that is not there")
		}
		if how == "compacted" {
			if _, err := s.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		again := openTestAt(t, path, &Options{CheckpointBytes: 1 << 20})
		if !byCheckpoint(again) {
			t.Errorf("%s: the checkpoint of Close is not taken", how)
		}
		want.must(t, again)
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Goal: who only reads uses a checkpoint and changes nothing. Method: bytes and times of
// both files, of a closed store and beside a writer, before and after.
func TestCheckpointReadOnly(t *testing.T) {
	path, want := checkpointedStore(t, 5000)
	files := func() string {
		all := ""
		for _, name := range []string{path, path + indexSuffix} {
			fi, err := os.Stat(name)
			b, err2 := os.ReadFile(name)
			if err = errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			all += fmt.Sprint(fi.ModTime().UnixNano(), " ") + string(b)
		}
		return all
	}
	read := func() {
		before := files()
		s := openTestAt(t, path, &Options{ReadOnly: true})
		if s.Stats().Checkpoint == 0 {
			t.Error("not opened by it")
		}
		want.must(t, s)
		s.background.Wait()
		if n := s.gen.Load().unverified.Load(); n != 0 {
			t.Errorf("all was verified, and %d bytes count as not", n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if files() != before {
			t.Error("a file has changed")
		}
	}
	read()
	s := openTestAt(t, path, &Options{Durability: SyncManual, SyncEvery: time.Hour, CheckpointBytes: 1})
	s.checkpointing.Store(true)
	s.background.Wait()
	read()
	want.put(t, s, "new", "value")
	want.put(t, s, "key 0", "changed")
	s.background.Wait() // memory and disk are looked after ahead of the tail
	read()
}

// Goal: no store gets a name that another's checkpoint would have. Method: both names,
// by themselves and by a link.
func TestCheckpointNames(t *testing.T) {
	for _, suffix := range []string{indexSuffix, newIndexSuffix} {
		path := filepath.Join(t.TempDir(), "store"+suffix)
		var e *Error
		if _, err := Open(path, nil); !errors.Is(err, fs.ErrInvalid) || !errors.As(err, &e) || !strings.Contains(err.Error(), suffix) {
			t.Errorf("%s: %v", suffix, err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: there is now a file", suffix)
		}
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Symlink(path, path+" link")); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path+" link", nil); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("a link to %s: %v", suffix, err)
		}
	}
}

// Goal: who may read the store may read the checkpoint, and nobody else. Method: the
// store's permissions and, as root, its owner are changed.
func TestCheckpointOwner(t *testing.T) {
	path, _ := checkpointedStore(t, 10)
	id := os.Getuid()
	if id == 0 {
		id = 12345
	}
	if err := errors.Join(os.Chmod(path, 0o640), os.Chown(path, id, id)); err != nil && os.Getuid() == 0 {
		t.Fatal(err)
	}
	s, err := Open(path, &Options{CheckpointBytes: 1, Perm: 0o666})
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, "k", "v")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var log, index syscall.Stat_t
	if err := errors.Join(syscall.Stat(path, &log), syscall.Stat(path+indexSuffix, &index)); err != nil {
		t.Fatal(err)
	}
	if index.Mode != log.Mode || index.Uid != log.Uid || index.Gid != log.Gid || index.Mode&0o777 != 0o640 {
		t.Errorf("%o of %d:%d, the store has %o of %d:%d", index.Mode, index.Uid, index.Gid, log.Mode, log.Uid, log.Gid)
	}
}

// Goal: where the system does not name its boot, no checkpoint is taken that would be
// valid in another. Method: it does not.
func TestCheckpointWithoutBoot(t *testing.T) {
	known := mmapfile.BootID
	mmapfile.BootID = func() uint64 { return 0 }
	defer func() { mmapfile.BootID = known }()
	s := openTest(t, &Options{Durability: SyncManual, SyncEvery: time.Hour, CheckpointBytes: 1})
	mustPut(t, s, "k", "v")
	s.checkpointIfDue(s.gen.Load())
	s.background.Wait()
	if n := s.Stats().Checkpoint; n != 0 {
		t.Errorf("one was taken, of %d bytes", n)
	}
}

// brokenIndexDisk is the operating system's, where one kind of call fails for the
// checkpoint.
type brokenIndexDisk struct {
	osDisk
	kind  string
	errno error
	fails bool
}

type brokenIndexFile struct {
	file
	disk *brokenIndexDisk
}

func (d *brokenIndexDisk) fail(kind, path string) error {
	if d.fails && d.kind == kind && strings.Contains(path, indexSuffix) {
		return &fs.PathError{Op: kind, Path: path, Err: d.errno}
	}
	return nil
}

func (d *brokenIndexDisk) Open(path string, mode mmapfile.Mode) (file, error) {
	if err := d.fail("Open", path); err != nil {
		return nil, err
	}
	f, err := d.osDisk.Open(path, mode)
	if err == nil && strings.Contains(path, indexSuffix) {
		return &brokenIndexFile{f, d}, nil
	}
	return f, err
}

func (d *brokenIndexDisk) Create(path string, perm fs.FileMode, size int64) (file, error) {
	if err := d.fail("Create", path); err != nil {
		return nil, err
	}
	f, err := d.osDisk.Create(path, perm, size)
	if err == nil && strings.Contains(path, indexSuffix) {
		return &brokenIndexFile{f, d}, nil
	}
	return f, err
}

func (d *brokenIndexDisk) Rename(old, new string) error {
	if err := d.fail("Rename", new); err != nil {
		return err
	}
	return d.osDisk.Rename(old, new)
}

func (d *brokenIndexDisk) Remove(path string) error {
	if err := d.fail("Remove", path); err != nil {
		return err
	}
	return d.osDisk.Remove(path)
}

func (f *brokenIndexFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.disk.fail("WriteAt", indexSuffix); err != nil {
		return 0, err
	}
	return f.file.WriteAt(p, off)
}

func (f *brokenIndexFile) SyncFile() error {
	if err := f.disk.fail("SyncFile", indexSuffix); err != nil {
		return err
	}
	return f.file.SyncFile()
}

// Goal: that a checkpoint cannot be taken fails neither a write nor Close, nor does it
// poison, and whatever is left there shows nothing wrong. Method: each call about it
// fails, when there is one already and when there is none, and then no more.
func TestCheckpointFails(t *testing.T) {
	for _, kind := range []string{"Open", "Create", "WriteAt", "SyncFile", "Rename", "Remove"} {
		for _, errno := range []error{syscall.ENOSPC, syscall.EACCES, syscall.EIO} {
			for _, already := range []bool{false, true} {
				name := fmt.Sprint(kind, " ", errno, " already ", already)
				path, want := filepath.Join(t.TempDir(), "store"), contents{}
				if already {
					path, want = checkpointedStore(t, 200)
				}
				d := &brokenIndexDisk{kind: kind, errno: errno, fails: true}
				for round := range 4 {
					d.fails = round != 2
					s, err := openOn(d, path, &Options{Durability: SyncManual, SyncEvery: time.Hour, CheckpointBytes: 1})
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					want.must(t, s)
					want.put(t, s, fmt.Sprint("round ", round), "value")
					s.checkpointIfDue(s.gen.Load())
					want.put(t, s, fmt.Sprint("round ", round, " on"), "value")
					s.background.Wait()
					want.must(t, s)
					if err := s.poisoned(); err != nil {
						t.Errorf("%s: poisoned: %v", name, err)
					}
					if err := s.Close(); err != nil {
						t.Errorf("%s: close: %v", name, err)
					}
				}
				s, err := openOn(osDisk{}, path, &Options{ReadOnly: true})
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				want.must(t, s)
				s.Close()
			}
		}
	}
}
