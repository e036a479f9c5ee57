package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

// Goal: a repair says of each key that can be told what has become of it, keeps
// deadlines, order and permissions, and never changes the damaged store. Method: a
// table of records that are damaged, by their number, of one store.
func TestRepairKeys(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s.mmkv")
	s, err := kv.Open(path, &kv.Options{CompactAt: -1, Perm: 0o640})
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.UnixMilli(time.Now().UnixMilli() + 1e9 + 1)
	put := func(key, value string) error { return s.Put([]byte(key), []byte(value)) }
	err = errors.Join(
		put("a", "first"),     // 0
		put("b", "only"),      // 1
		put("a", "second"),    // 2
		s.Delete([]byte("a")), // 3
		put("c", "first"),     // 4
		put("c", "second"),    // 5
		s.PutUntil([]byte("mortal"), []byte("late"), deadline), // 6
		s.Update(func(tx *kv.Tx) error {
			return errors.Join(tx.Put([]byte("t1"), []byte("one")), tx.Put([]byte("t2"), []byte("two")), tx.Put([]byte("t3"), []byte("three"))) // 7, 8, 9
		}),
		put("end", ""), // 10
	)
	if err != nil {
		t.Fatal(err)
	}
	records, sound := closeRecords(t, s)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, tc := range []struct {
		name    string
		damaged []int
		want    []string // what of which key
		has     string   // the new store, in the order of its log
	}{
		{"nothing", nil, nil, "b=only c=second mortal=late t1=one t2=two t3=three end="},
		{"the only record of a key", []int{1}, []string{"probably lost b"}, "c=second mortal=late t1=one t2=two t3=three end="},
		{"one that was replaced later", []int{4}, nil, "b=only c=second mortal=late t1=one t2=two t3=three end="},
		{"one that was deleted later", []int{2}, nil, "b=only c=second mortal=late t1=one t2=two t3=three end="},
		{"one that replaces", []int{5}, []string{"probably older c"}, "b=only c=first mortal=late t1=one t2=two t3=three end="},
		{"a tombstone", []int{3}, []string{"probably undeleted a"}, "b=only a=second c=second mortal=late t1=one t2=two t3=three end="},
		{"a tombstone and all that it deletes", []int{0, 2, 3}, nil, "b=only c=second mortal=late t1=one t2=two t3=three end="},
		{"the first of a transaction", []int{7}, []string{"probably lost t1"}, "b=only c=second mortal=late t2=two t3=three end="},
		{"the second of a transaction", []int{8}, []string{"probably lost t2", "transaction cut t1"}, "b=only c=second mortal=late t1=one t3=three end="},
		{"the last of a transaction", []int{9}, []string{"probably lost t3", "transaction cut t1", "transaction cut t2"},
			"b=only c=second mortal=late t1=one t2=two end="},
		{"the end of a transaction and of the log", []int{9, 10}, []string{"probably lost t3", "probably lost end", "transaction cut t1", "transaction cut t2"},
			"b=only c=second mortal=late t1=one t2=two"},
		{"all", []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
			[]string{"probably lost b", "probably lost c", "probably lost mortal", "probably lost t1", "probably lost t2", "probably lost t3", "probably lost end"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := bytes.Clone(sound)
			lost := int64(0)
			for _, i := range tc.damaged {
				b[records[i].Off] ^= 1
				lost += records[i].Len
			}
			if err := os.WriteFile(path, b, 0o640); err != nil {
				t.Fatal(err)
			}
			output := filepath.Join(t.TempDir(), "new.mmkv")
			report, err := (&tool{in: null, out: null, err: null}).repair(t.Context(), path, output)
			if report == nil || (err != nil) != (len(tc.damaged) > 0) || err != nil && !errors.Is(err, kv.ErrCorrupt) {
				t.Fatalf("report %+v, error %v", report, err)
			}
			var got []string
			for _, k := range report.Keys {
				got = append(got, k.What+" "+string(k.key))
			}
			if fmt.Sprint(got) != fmt.Sprint(tc.want) || report.MissingBytes != lost {
				t.Errorf("%q and %d bytes, want %q and %d", got, report.MissingBytes, tc.want, lost)
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, b) {
				t.Errorf("the damaged store has changed, %v", err)
			}
			if fi, err := os.Stat(output); err != nil || fi.Mode().Perm() != 0o640 {
				t.Errorf("permissions %v, %v", fi.Mode(), err)
			}
			if has := listStore(t, output, deadline); has != tc.has {
				t.Errorf("the new store has %q, want %q", has, tc.has)
			}
		})
	}
}

// closeRecords closes a store, and returns where its records are, and its file.
func closeRecords(t *testing.T, s *kv.Store) (records []kv.Record, file []byte) {
	t.Helper()
	for r, err := range s.Records(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	return records, file
}

// listStore returns the entries of a store in the order of its log, and checks the
// one that has a deadline.
func listStore(t *testing.T, path string, deadline time.Time) (has string) {
	t.Helper()
	s, err := kv.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for r, err := range s.Records(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if has != "" {
			has += " "
		}
		has += string(r.Key) + "=" + string(r.Value)
		if string(r.Key) == "mortal" && !r.Expiry.Equal(deadline) {
			t.Errorf("deadline %v, want %v", r.Expiry, deadline)
		}
	}
	return has
}

// Goal: of many keys some are named, those that were read in damage before all, and
// the rest is counted. Method: more of both kinds than are named.
func TestRepairNamesSome(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.mmkv")
	s, err := kv.Open(path, &kv.Options{Durability: kv.SyncManual})
	if err != nil {
		t.Fatal(err)
	}
	const n = maxNamed + 500
	err = s.Update(func(tx *kv.Tx) (err error) {
		for i := range 2 * n {
			err = errors.Join(err, tx.Put(fmt.Append(nil, "key", i), nil))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	records, b := closeRecords(t, s)
	for i := 1; i < 2*n; i += 2 {
		b[records[i].Off] ^= 1
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	report, err := (&tool{in: null, out: null, err: null}).repair(t.Context(), path, path+".new")
	if report == nil || !errors.Is(err, kv.ErrCorrupt) {
		t.Fatal(err)
	}
	count := map[string]int64{}
	for _, k := range report.Keys {
		count[k.What]++
	}
	if count["probably lost"] != maxNamed || count["transaction cut"] != maxNamed || report.MoreKeys != 2*(n-maxNamed) || report.Entries != n {
		t.Errorf("named %v, %d more, %d entries", count, report.MoreKeys, report.Entries)
	}
}
