package kv

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mmapkv/mmapkv/crc"
)

// witness hears what a store tells of damage.
type witness struct {
	log  bytes.Buffer
	told []*CorruptError
}

func (w *witness) options() *Options {
	return &Options{
		Logger: slog.New(slog.NewTextHandler(&w.log, nil)),
		Hooks:  &Hooks{Corrupted: func(err *CorruptError) { w.told = append(w.told, err) }},
	}
}

// lines counts the lines of the log that tell of damage.
func (w *witness) lines() int { return strings.Count(w.log.String(), "damage was found") }

// openUnsound opens a store that is not verified when the test ends.
func openUnsound(t *testing.T, path string, opts *Options) *Store {
	t.Helper()
	s, err := Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// recordOf returns the record of key.
func recordOf(t *testing.T, s *Store, key string) Record {
	t.Helper()
	r, err := s.Lookup([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// harm changes the bytes of the file at off, through another descriptor, and
// returns what they were.
func harm(t *testing.T, path string, off int64, change func(b []byte), n int) (undo func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	was := bytes.Clone(b)
	change(b)
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
	return func() { harm(t, path, off, func(b []byte) { copy(b, was) }, n) }
}

func flip(b []byte) { b[0] ^= 1 }

// waysToRead are all of them, each of which returns the value of key.
var waysToRead = []struct {
	name string
	read func(s *Store, key []byte) (value []byte, err error)
}{
	{"Get", func(s *Store, key []byte) ([]byte, error) { return s.Get(key) }},
	{"GetAppend", func(s *Store, key []byte) ([]byte, error) { return s.GetAppend(nil, key) }},
	{"View", func(s *Store, key []byte) (value []byte, err error) {
		err = s.View(key, func(v []byte) error { value = bytes.Clone(v); return nil })
		return value, err
	}},
	{"Has", func(s *Store, key []byte) ([]byte, error) {
		ok, err := s.Has(key)
		if err == nil && !ok {
			err = ErrNotFound
		}
		return []byte("value"), err
	}},
	{"GetMany", func(s *Store, key []byte) (value []byte, err error) {
		err = s.GetMany([][]byte{key}, func(_ int, v []byte, ok bool) error {
			if !ok {
				return ErrNotFound
			}
			value = bytes.Clone(v)
			return nil
		})
		return value, err
	}},
	{"Lookup", func(s *Store, key []byte) ([]byte, error) { r, err := s.Lookup(key); return r.Value, err }},
	{"Compute", func(s *Store, key []byte) (value []byte, err error) {
		found := false
		err = s.Compute(key, func(old []byte, ok bool) ([]byte, Op) { value, found = bytes.Clone(old), ok; return nil, Keep })
		if err == nil && !found {
			err = ErrNotFound
		}
		return value, err
	}},
	{"CompareAndSwap", func(s *Store, key []byte) ([]byte, error) {
		swapped, err := s.CompareAndSwap(key, []byte("value"), []byte("value"))
		if err == nil && !swapped {
			err = ErrNotFound
		}
		return []byte("value"), err
	}},
	{"Tx.Get", func(s *Store, key []byte) (value []byte, err error) {
		err = s.Update(func(tx *Tx) (err error) { value, err = tx.Get(key); return err })
		return value, err
	}},
	{"Tx.Has", func(s *Store, key []byte) ([]byte, error) {
		err := s.Update(func(tx *Tx) error {
			ok, err := tx.Has(key)
			if err == nil && !ok {
				err = ErrNotFound
			}
			return err
		})
		return []byte("value"), err
	}},
	{"Iter", func(s *Store, key []byte) (value []byte, err error) {
		it, found := s.Iter(nil), false
		for k, v := range it.All() {
			if bytes.Equal(k, key) {
				value, found = bytes.Clone(v), true
			}
		}
		if err = it.Err(); err == nil && !found {
			err = ErrNotFound
		}
		return value, err
	}},
	{"Records", func(s *Store, key []byte) (value []byte, err error) {
		err = ErrNotFound
		for r, err := range s.Records(s.closing) {
			if err != nil {
				return nil, err
			}
			if bytes.Equal(r.Key, key) && r.Live {
				value = bytes.Clone(r.Value)
			}
		}
		if value != nil {
			err = nil
		}
		return value, err
	}},
}

// Goal: with VerifyReads, damage done beneath a live store never shows as another
// value, nor as a key that is absent, whatever reads it: it is ErrCorrupt with the
// record's place. Method: each part of a record changed through another
// descriptor, and put back, for each way to read; the overflow index too.
func TestVerifyReads(t *testing.T) {
	damages := []struct {
		name string
		at   func(rec []byte) int // where in the record
	}{
		{"sum", func([]byte) int { return 0 }},
		{"length", func([]byte) int { return crc.FrameSize - 8 }},
		{"flags", func([]byte) int { return crc.FrameSize - 4 }},
		{"key", func(rec []byte) int { return bytes.Index(rec, []byte("key")) }},
		{"value", func(rec []byte) int { return bytes.Index(rec, []byte("value")) }},
		{"before the value", func(rec []byte) int { return bytes.Index(rec, []byte("value")) - 1 }},
	}
	for _, over := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "store")
		s := openTestAt(t, path, &Options{VerifyReads: true, Durability: SyncManual})
		if over {
			s.gen.Load().index.over.Store(newIndex(&s.gen.Load().log, hasher{stored: 1}))
		}
		mustPut(t, s, "before", "1")
		mustPut(t, s, "key", "value")
		mustPut(t, s, "behind", "2")
		if over {
			ix := s.gen.Load().index
			off, err := ix.remove(ix.hash.sum([]byte("key")), []byte("key"))
			if err == nil {
				err = ix.overflow([]byte("key"), off)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, way := range waysToRead {
			r := recordOf(t, s, "key")
			rec := s.gen.Load().bytes()[r.Off : r.Off+r.Len]
			for _, d := range damages {
				undo := harm(t, path, r.Off+int64(d.at(rec)), flip, 1)
				got, err := way.read(s, []byte("key"))
				undo()
				var e *Error
				var damage *CorruptError
				if !errors.Is(err, ErrCorrupt) || !errors.As(err, &e) || e.Offset != r.Off {
					t.Errorf("overflow %v, %s, %s damaged: %q, %v, want ErrCorrupt at %d", over, way.name, d.name, got, err, r.Off)
				} else if !errors.As(err, &damage) || damage.Ranges[0].Off != r.Off {
					t.Errorf("overflow %v, %s, %s damaged: ranges of %v", over, way.name, d.name, err)
				}
			}
			if got, err := way.read(s, []byte("key")); err != nil || string(got) != "value" {
				t.Errorf("overflow %v, %s, all put back: %q, %v", over, way.name, got, err)
			}
			if got, err := way.read(s, []byte("absent")); err != ErrNotFound {
				t.Errorf("overflow %v, %s of an absent key: %q, %v", over, way.name, got, err)
			}
		}
		mustGet(t, s, "before", "1")
		mustGet(t, s, "behind", "2")
	}
}

// Goal: damage is counted each time that it is met, and told of once for each
// place, and in bounded memory. Method: one damaged record read many times; then
// more damaged records than are told of.
func TestCorruptionTold(t *testing.T) {
	const records = maxTold + 100
	path := filepath.Join(t.TempDir(), "store")
	w := &witness{}
	opts := w.options()
	opts.VerifyReads, opts.CompactAt = true, -1
	s := openUnsound(t, path, opts)
	for i := range records {
		mustPut(t, s, fmt.Sprint(i), "value")
	}
	first := recordOf(t, s, "0")
	harm(t, path, first.Off, flip, 1)
	for range 50 {
		if _, err := s.Get([]byte("0")); !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
	}
	if n := s.Stats().Corruptions; n != 50 || len(w.told) != 1 || w.lines() != 1 {
		t.Errorf("one record read 50 times: counted %d, told of %d, logged %d", n, len(w.told), w.lines())
	}
	if len(w.told) > 0 && (len(w.told[0].Ranges) != 1 || w.told[0].Ranges[0] != Range{first.Off, first.Len} || w.told[0].Path != s.Path()) {
		t.Errorf("told of %+v, want the record at %d of %d bytes", w.told[0], first.Off, first.Len)
	}
	for i := range records {
		if i > 0 {
			harm(t, path, recordOf(t, s, fmt.Sprint(i)).Off, flip, 1)
		}
		if _, err := s.Get(fmt.Append(nil, i)); !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
	}
	if n := s.Stats().Corruptions; n != 50+records || len(w.told) != maxTold || w.lines() != maxTold || len(s.corruptions.told) != maxTold {
		t.Errorf("%d records: counted %d, told of %d, logged %d, noted %d", records, n, len(w.told), w.lines(), len(s.corruptions.told))
	}
	if n := strings.Count(w.log.String(), "counted only"); n != 1 {
		t.Errorf("that no more is told of was logged %d times", n)
	}
}

// Goal: whatever part of the store meets damage, the hook and the logger are told.
// Method: a table of them; a store whose second record is damaged, or its header.
func TestCorruptionFound(t *testing.T) {
	for _, tc := range []struct {
		name   string
		header bool
		count  uint64 // that the store counts, if it is opened
		do     func(t *testing.T, path string, opts *Options, harm func()) *Store
	}{
		{"open refuses", false, 0, func(t *testing.T, path string, opts *Options, harm func()) *Store {
			harm()
			if _, err := Open(path, opts); !errors.Is(err, ErrCorrupt) {
				t.Error(err)
			}
			return nil
		}},
		{"open refuses the header", true, 0, func(t *testing.T, path string, opts *Options, harm func()) *Store {
			harm()
			if _, err := Open(path, opts); !errors.Is(err, ErrCorrupt) {
				t.Error(err)
			}
			return nil
		}},
		{"open salvages", false, 1, func(t *testing.T, path string, opts *Options, harm func()) *Store {
			harm()
			opts.Salvage = true
			return openUnsound(t, path, opts)
		}},
		{"read", false, 1, func(t *testing.T, path string, opts *Options, harm func()) *Store {
			opts.VerifyReads = true
			s := openUnsound(t, path, opts)
			harm()
			s.Get([]byte("b"))
			return s
		}},
		{"verify", false, 1, func(t *testing.T, path string, opts *Options, harm func()) *Store {
			s := openUnsound(t, path, opts)
			harm()
			if r, err := s.Verify(t.Context()); err != nil || len(r.Violations) == 0 {
				t.Errorf("%+v, %v", r, err)
			}
			return s
		}},
		{"copy", false, 1, func(t *testing.T, path string, opts *Options, harm func()) *Store {
			s := openUnsound(t, path, opts)
			harm()
			if _, err := s.WriteTo(&bytes.Buffer{}); !errors.Is(err, ErrCorrupt) {
				t.Error(err)
			}
			return s
		}},
		{"compact", false, 1, func(t *testing.T, path string, opts *Options, harm func()) *Store {
			s := openUnsound(t, path, opts)
			harm()
			if _, err := s.Compact(t.Context()); !errors.Is(err, ErrCorrupt) {
				t.Error(err)
			}
			return s
		}},
		{"follower", false, 2, func(t *testing.T, path string, opts *Options, harm func()) *Store {
			opts.ReadOnly = true
			writer := openUnsound(t, path, nil)
			if err := writer.Clear(); err != nil {
				t.Fatal(err)
			}
			s := openUnsound(t, path, opts)
			for _, key := range []string{"a", "b", "c"} {
				mustPut(t, writer, key, "value of "+key)
			}
			harm()
			_, err := s.Get([]byte("a"))
			var e *Error
			if !errors.Is(err, ErrCorrupt) || !errors.As(err, &e) || e.Offset != recordOf(t, writer, "b").Off {
				t.Errorf("a follower that takes in a damaged record: %v", err)
			}
			return s // whose Stats is a read, and meets the damage again
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store")
			s, err := Open(path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range []string{"a", "b", "c"} {
				mustPut(t, s, key, "value of "+key)
			}
			r := recordOf(t, s, "b")
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			w := &witness{}
			off := r.Off
			s = tc.do(t, path, w.options(), func() {
				if tc.header {
					off = 0
					harm(t, path, 64, flip, 1) // a time in its immutable part
					return
				}
				harm(t, path, off+crc.FrameSize+4, flip, 1)
			})
			if len(w.told) != 1 || w.lines() != 1 {
				t.Fatalf("told of %v, logged %q", w.told, w.log.String())
			}
			if got := w.told[0].Ranges; len(got) != 1 || got[0].Off != off || got[0].Len <= 0 {
				t.Errorf("told of the ranges %v, the damage is at %d", got, off)
			}
			if s != nil {
				if n := s.Stats().Corruptions; n != tc.count {
					t.Errorf("counted %d, want %d", n, tc.count)
				}
			}
		})
	}
}
