package tests

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/kv"
)

// alignedStore writes n durable entries and some that are not, each a state of its
// own, and returns what it has and where its records are.
func alignedStore(t *testing.T, path string, n int) (want map[string]string, records []kv.Record) {
	t.Helper()
	s := open(t, path, &kv.Options{Durability: kv.SyncManual, SyncAligned: true, CompactAt: -1})
	want = make(map[string]string)
	for i := range n {
		for _, k := range []string{"plain", "durable"} {
			k = fmt.Sprint(k, i)
			want[k] = string(valueOf(37*i%5000, i))
			if i%3 == 0 || k[0] == 'd' {
				must(t, s.PutDurable([]byte(k), []byte(want[k])))
			} else {
				must(t, s.Put([]byte(k), []byte(want[k])))
			}
		}
	}
	records = recordsOf(t, s)
	closeSound(t, s)
	return want, records
}

func recordsOf(t *testing.T, s *kv.Store) (all []kv.Record) {
	t.Helper()
	for r, err := range s.Records(t.Context()) {
		must(t, err)
		r.Key, r.Value = bytes.Clone(r.Key), nil
		all = append(all, r)
	}
	return all
}

// Goal: with SyncAligned no page has both durable records and others, and what it
// writes is a store for everybody.
// Method: where the records of a store are, before and after it was closed, written on,
// compacted; read by handles with and without the option, and by a follower.
func TestSyncAligned(t *testing.T) {
	path := storePath(t)
	want, records := alignedStore(t, path, 40)
	check := func(records []kv.Record) {
		t.Helper()
		for i, r := range records[1:] {
			before := records[i] // the one before r
			end := before.Off + before.Len
			alone := r.Off == (end+crc.Page-1)&^(crc.Page-1)
			durable := bytes.HasPrefix(before.Key, []byte("durable"))
			if durable && !alone || !alone && r.Off != end {
				t.Errorf("%s ends at %d, and %s begins at %d", before.Key, end, r.Key, r.Off)
			}
		}
	}
	check(records)
	f := open(t, path, &kv.Options{ReadOnly: true})
	for round := range 4 {
		s := open(t, path, &kv.Options{SyncAligned: round%2 == 0, CompactAt: -1})
		wantContents(t, s, want)
		k := fmt.Sprint("durable again ", round)
		want[k] = "x"
		must(t, s.PutDurable([]byte(k), []byte("x")))
		must(t, s.Update(func(tx *kv.Tx) error {
			return errors.Join(tx.Put([]byte("tx"), []byte(k)), tx.Put([]byte("tx2"), []byte(k)))
		}))
		want["tx"], want["tx2"] = k, k
		wantContents(t, f, want)
		if round == 0 {
			check(recordsOf(t, s))
		}
		if round == 2 {
			_, err := s.Compact(t.Context())
			must(t, err)
			wantContents(t, f, want)
		}
		b, err := copyOf(s)
		must(t, err)
		backup := storePath(t)
		must(t, os.WriteFile(backup, b, 0o600))
		wantContents(t, open(t, backup, nil), want)
		closeSound(t, s)
	}
}

// Goal: with SyncAligned, which takes a lost page of marks for one that was in flight,
// damage to what had been durable for long is refused all the same.
// Method: the page of the marks and the first page of the log zeroed.
func TestAlignedWithoutMarks(t *testing.T) {
	path := storePath(t)
	want, _ := alignedStore(t, path, 20)
	b, err := os.ReadFile(path)
	must(t, err)
	clear(b[crc.Page:crc.HeaderSize])
	must(t, outcomeAt(t, path, bytes.Clone(b), want, kv.Options{SyncAligned: true}))
	clear(b[crc.Page : crc.HeaderSize+crc.Page])
	for _, readOnly := range []bool{false, true} {
		err := outcomeAt(t, path, bytes.Clone(b), nil, kv.Options{SyncAligned: true, ReadOnly: readOnly})
		if !errors.Is(err, kv.ErrCorrupt) {
			t.Errorf("read-only %v: %v", readOnly, err)
		}
	}
}

// Goal: a gap that a writer leaves never hides a durable record that became one.
// Method: of a store full of gaps, the bytes of each record and all up to the end of its
// page zeroed in turn, which is what a gap looks like; the page behind may well begin
// with a record that verifies.
func TestGapHidesNothing(t *testing.T) {
	for _, compacted := range []bool{false, true} {
		gapHidesNothing(t, compacted)
	}
}

func gapHidesNothing(t *testing.T, compacted bool) {
	path := storePath(t)
	want, records := alignedStore(t, path, 20)
	if compacted {
		// The last record is a tombstone, which a compaction would rather leave behind.
		s := open(t, path, &kv.Options{SyncAligned: true, CompactAt: -1})
		must(t, s.Delete([]byte("plain3")))
		delete(want, "plain3")
		_, err := s.Compact(t.Context())
		must(t, err)
		must(t, s.PutDurable([]byte("after"), []byte("x")))
		want["after"] = "x"
		records = recordsOf(t, s)
		closeSound(t, s)
	}
	sound, err := os.ReadFile(path)
	must(t, err)
	must(t, outcomeAt(t, path, sound, want, kv.Options{}))
	for _, r := range records {
		b := bytes.Clone(sound)
		end := min((r.Off+r.Len+crc.Page-1)&^(crc.Page-1), int64(len(b)))
		clear(b[r.Off:end])
		for _, opts := range readOrWrite {
			if err := outcomeAt(t, path, b, nil, opts); !errors.Is(err, kv.ErrCorrupt) {
				t.Fatalf("record of %s at %d zeroed, %+v: %v", r.Key, r.Off, opts, err)
			}
		}
	}
}
