package kv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/internal/invariants"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// closedFile makes a store of n records at path and closes it. It returns all its
// records, and its bytes.
func closedFile(t *testing.T, path string, n int, r *rand.Rand) (records []Record, b []byte) {
	t.Helper()
	s, err := Open(path, &Options{CompactAt: -1, Durability: SyncManual})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		key, value := fmt.Append(nil, "key", i%(n*3/4)), make([]byte, r.IntN(3000))
		for j := range value {
			value[j] = byte(r.Uint32())
		}
		switch {
		case i%7 == 6:
			err = s.Delete(fmt.Append(nil, "key", r.IntN(i)))
		case i%5 == 4:
			err = s.Update(func(tx *Tx) error { return errors.Join(tx.Put(key, value), tx.Put([]byte("tx"), value)) })
		default:
			err = s.Put(key, value)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for rec, err := range s.Records(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		rec.Key, rec.Value = bytes.Clone(rec.Key), bytes.Clone(rec.Value)
		records = append(records, rec)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	return records, b
}

// mustSalvage fails the test unless s has exactly what the records make that are
// not lost, misses each that is, and is otherwise sound.
func mustSalvage(t *testing.T, s *Store, records []Record, lost func(r *Record) bool) {
	t.Helper()
	want := make(map[string][]byte)
	stats := s.Stats()
	within := false // a transaction, where the last record that is left ends
	for i := range records {
		r := &records[i]
		missing := slices.ContainsFunc(stats.Missing, func(m Range) bool { return m.Off <= r.Off && r.Off < m.Off+m.Len })
		touched := slices.ContainsFunc(stats.Missing, func(m Range) bool { return m.Off < r.Off+r.Len && r.Off < m.Off+m.Len })
		if missing != lost(r) || touched != missing {
			t.Fatalf("the record at %d of %d bytes: lost %v, missing %v, touched %v: %v", r.Off, r.Len, lost(r), missing, touched, stats.Missing)
		}
		if missing {
			continue
		}
		if within = r.More; r.Deleted {
			delete(want, string(r.Key))
		} else {
			want[string(r.Key)] = r.Value
		}
	}
	if s.Len() != len(want) {
		t.Errorf("%d keys, want %d", s.Len(), len(want))
	}
	for k, v := range want {
		if got, err := s.Get([]byte(k)); err != nil || !bytes.Equal(got, v) {
			t.Fatalf("%q: %d bytes, %v, want %d", k, len(got), err, len(v))
		}
	}
	report, err := s.Verify(t.Context())
	allowed := len(stats.Missing)
	if within {
		allowed++
	}
	if err != nil || len(report.Violations) != allowed {
		t.Errorf("%v, and violations beside what is missing: %v", err, report.Violations)
	}
}

// Goal: a salvage whose file is cut short while it is scanned ends well, with what
// was before the cut. Method: a file that is truncated between its mapping and the
// scan.
func TestSalvageCutMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	records, b := closedFile(t, path, 60, rand.New(rand.NewPCG(3, 4)))
	size := int64(os.Getpagesize())
	cut := int64(len(b)) / 2 / size * size
	s, err := openOn(cutAfterOpen{cut: cut}, path, &Options{Salvage: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	lost := func(r *Record) bool { return r.Off+r.Len > cut }
	mustSalvage(t, s, records, lost)
}

type cutAfterOpen struct {
	osDisk
	cut int64
}

func (d cutAfterOpen) Open(path string, mode mmapfile.Mode) (file, error) {
	f, err := d.osDisk.Open(path, mode)
	if err == nil {
		err = os.Truncate(path, d.cut)
	}
	return stillLong{f}, err
}

// stillLong is a file that never hears that it was cut.
type stillLong struct{ file }

func (stillLong) Refresh() error { return nil }

// claim returns the first bytes of a record that claims n bytes of payload, and of
// which all but the sum is right.
func claim(n int) []byte {
	e := codec.Entry{Key: []byte{}, Revision: maxRevision}
	head := codec.Append(nil, &e)
	head = head[:len(head)-1] // up to the length of the value
	for more := range 6 {
		value := binary.AppendUvarint(nil, uint64(n-len(head)-more))
		if len(value) == more {
			b := make([]byte, crc.FrameSize, crc.FrameSize+24)
			binary.LittleEndian.PutUint64(b[crc.FrameSize-8:], uint64(n))
			b = append(append(b, head...), value...)
			return append(b, make([]byte, crc.RecordSize(len(b)-crc.FrameSize)-int64(len(b)))...)
		}
	}
	return claim(n - crc.Align) // no length of a value makes exactly that
}

// Goal: what is in a damaged value, whatever it looks like, costs no record behind
// it. Method: values of which every word claims to be the length of a record; that
// are a store; that are made of claims of which all but the sum is right. The
// damage is in the frame, so that every step of the value is tried.
func TestSalvageBehindClaims(t *testing.T) {
	words := func(lengths ...uint64) []byte {
		var b []byte
		for len(b) < 4<<20 {
			for _, n := range lengths {
				b = binary.LittleEndian.AppendUint64(b, n)
			}
		}
		return b
	}
	nested := filepath.Join(t.TempDir(), "nested")
	_, store := closedFile(t, nested, 2000, rand.New(rand.NewPCG(5, 6)))
	for _, tc := range []struct {
		name   string
		value  []byte
		behind int // records
	}{
		{"lengths of all sizes", words(1<<20, 1<<16, 1<<10, 64, 16), 1000},
		{"one length", words(1 << 20), 1000},
		{"a store", store, 1000},
		{"crafted", bytes.Repeat(claim(1<<20), 4<<20/len(claim(1<<20))), 1000},
		// Nearly all that may be summed in vain, of the class of the records behind.
		{"crafted, of one class with the rest", bytes.Repeat(claim(63), 4<<20/len(claim(63))), 25000},
		{"keys", bytes.Repeat([]byte{0x0a, 0x10, 0, 0, 0, 0, 0, 0}, 4<<20/8), 1000},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store")
			s, err := Open(path, nil)
			if err != nil {
				t.Fatal(err)
			}
			mustPut(t, s, "first", "1")
			// The value is tried at each multiple of 8 of the file: so it begins at one.
			e := codec.Entry{Key: []byte("damaged"), Revision: 2, Written: time.Now().Unix(), Value: tc.value}
			value := append(make([]byte, -(e.Size()-len(e.Value))&(crc.Align-1)), tc.value...)
			mustPut(t, s, "damaged", string(value))
			for i := range tc.behind {
				mustPut(t, s, fmt.Sprint(i), fmt.Sprint("a value of some length ", i))
			}
			mustPut(t, s, "large", string(make([]byte, 3<<20)))
			r := recordOf(t, s, "damaged")
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			harm(t, path, r.Off, func(b []byte) { clear(b) }, crc.FrameSize)
			if s, err = Open(path, &Options{Salvage: true}); err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if m := s.Stats().Missing; len(m) != 1 || m[0] != (Range{r.Off, r.Len}) || s.Len() != tc.behind+2 {
				t.Errorf("%d keys of %d, missing %v, want [%d %d]", s.Len(), tc.behind+2, m, r.Off, r.Len)
			}
		})
	}
}

// Goal: a file in which each record that verifies is followed by a claim to all the
// rest costs no more than a multiple of its length, and what verifies is got back.
// Method: 32 MiB of them, or a quarter where invariants are checked; that it ends within the test's time limit is what is
// tried, for to sum each claim takes hundreds of times as long.
func TestSalvageBetweenClaims(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	s, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := s.gen.Load().header
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	length := 32 << 20
	if invariants.Enabled {
		length /= 4
	}
	records := uint64(0)
	for b = b[:crc.HeaderSize]; len(b) < length-(4<<10); {
		records++
		e := codec.Entry{Key: binary.LittleEndian.AppendUint64(nil, records), Revision: records, Value: []byte{}}
		rec := make([]byte, crc.RecordSize(e.Size()))
		codec.Append(rec[crc.FrameSize:crc.FrameSize], &e)
		crc.Seal(rec, e.Size(), 0, h.Salt, int64(len(b)))
		b = append(b, rec...)
		b = append(b, claim(length-len(b)-1<<10)...)
	}
	b = append(b, make([]byte, length-len(b))...)
	putTail(b, uint64(length))
	crc.EncodeMark(b[crc.MarkOff(0):], crc.Mark{Off: int64(length), Revision: records}, h.Salt)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(path, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("opened %v, %v", s, err)
	}
	if s, err = Open(path, &Options{Salvage: true}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if m := s.Stats().Missing; uint64(s.Len()) != records || uint64(len(m)) != records {
		t.Errorf("%d keys of %d, %d places missing", s.Len(), records, len(m))
	}
	if r, err := s.Verify(t.Context()); err != nil || uint64(len(r.Violations)) != records {
		t.Errorf("%d violations, %v", len(r.Violations), err)
	}
}

// Goal: a salvage tells the keys of records whose frame and entry make sense though
// the sum is wrong, and of one at the beginning of a damaged range whose key can be
// read; and no other. Method: a table of damages to one record of five.
func TestSuspects(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	s, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, "a", "1")
	mustPut(t, s, "b", "a value of some length, so that it has a middle")
	mustPut(t, s, "c", "3")
	if err := s.Delete([]byte("a")); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, "d", "4")
	var records []Record
	for r, err := range s.Records(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, c, gone := records[1], records[2], records[3]
	for _, tc := range []struct {
		name string
		harm func(file []byte)
		want []Suspect
	}{
		{"nothing", func([]byte) {}, nil},
		{"sum", func(f []byte) { flip(f[b.Off:]) }, []Suspect{{Off: b.Off, Key: []byte("b"), Revision: 2}}},
		{"value", func(f []byte) { clear(f[b.Off+b.Len-16 : b.Off+b.Len-8]) }, []Suspect{{Off: b.Off, Key: []byte("b"), Revision: 2}}},
		{"length", func(f []byte) { clear(f[b.Off+crc.FrameSize-8 : b.Off+crc.FrameSize]) }, []Suspect{{Off: b.Off, Key: []byte("b")}}},
		{"frame", func(f []byte) { clear(f[b.Off : b.Off+crc.FrameSize]) }, []Suspect{{Off: b.Off, Key: []byte("b")}}},
		{"revision beyond the next", func(f []byte) { f[b.Off+crc.FrameSize+4] = 9 }, []Suspect{{Off: b.Off, Key: []byte("b")}}},
		{"key, as another", func(f []byte) { f[b.Off+crc.FrameSize+2] = 'x' }, []Suspect{{Off: b.Off, Key: []byte("x"), Revision: 2}}},
		{"all of it", func(f []byte) { clear(f[b.Off : b.Off+b.Len]) }, nil},
		{"tombstone", func(f []byte) { flip(f[gone.Off:]) }, []Suspect{{Off: gone.Off, Key: []byte("a"), Revision: 4, Deleted: true}}},
		{"two records", func(f []byte) { flip(f[b.Off:]); flip(f[c.Off:]) },
			[]Suspect{{Off: b.Off, Key: []byte("b"), Revision: 2}, {Off: c.Off, Key: []byte("c"), Revision: 3}}},
		{"two records, the first gone", func(f []byte) { clear(f[b.Off : b.Off+b.Len]); flip(f[c.Off:]) },
			[]Suspect{{Off: c.Off, Key: []byte("c"), Revision: 3}}},
		{"the file ends within", func(f []byte) { clear(f[c.Off+crc.FrameSize:]) }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := bytes.Clone(sound)
			tc.harm(file)
			path := filepath.Join(t.TempDir(), "store")
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			s := openUnsound(t, path, &Options{Salvage: true})
			var got []Suspect
			for f, err := range s.Suspects(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, f)
			}
			if fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("%+v, want %+v", got, tc.want)
			}
		})
	}
}
