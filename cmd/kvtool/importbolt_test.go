package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// makeBolt makes a bbolt file, with buckets in each other, of one page and of several.
func makeBolt(path string) error {
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.Update(func(tx *bbolt.Tx) error {
		users, err := tx.CreateBucket([]byte("users"))
		admins, adminsErr := users.CreateBucket([]byte("admins"))
		deep, deepErr := admins.CreateBucket([]byte("deep"))
		empty, emptyErr := tx.CreateBucket([]byte("empty"))
		slash, slashErr := tx.CreateBucket([]byte("a/b"))
		if err := errors.Join(err, adminsErr, deepErr, emptyErr, slashErr); err != nil {
			return err
		}
		return errors.Join(
			users.Put([]byte("1"), []byte(`{"name":"Ada"}`)),
			users.Put([]byte("2"), []byte(`{"name":`)),
			deep.Put([]byte{0xff}, []byte("root")),
			empty.Put([]byte("k"), nil),
			slash.Put([]byte("k"), []byte("v")),
			fill(deep))
	})
}

// fill puts so much into a bucket that it has a tree of pages.
func fill(b *bbolt.Bucket) error {
	for n := range 200 {
		if err := b.Put(fmt.Appendf(nil, "key%03d", n), make([]byte, 100)); err != nil {
			return err
		}
	}
	return b.Put([]byte("large"), make([]byte, 10_000))
}

// importBolt imports a bbolt file into a new store, and returns how many entries that were.
func importBolt(t *testing.T, path string) (int64, error) {
	i := &importer{importing: importing{typing: typing{s: testStore(t)}}, bar: (&tool{quiet: true}).progress()}
	err := i.bolt(t.Context(), path)
	return i.imported, err
}

// Goal: a damaged bbolt file is an error, or what is left of it, and never a panic or a walk
// without an end. Method: each of the bytes of a file that say where what is, one by one,
// becomes another: so pages point back at themselves and at those above.
func TestBoltDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.db")
	if err := makeBolt(path); err != nil {
		t.Fatal(err)
	}
	if n, err := importBolt(t, path); n != 206 || err != nil {
		t.Fatalf("%d entries, %v", n, err)
	}
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pageSize, refused := os.Getpagesize(), 0
	for page := 2; page < len(sound)/pageSize; page++ {
		for at := 8; at < 32; at++ {
			b := append([]byte{}, sound...)
			b[page*pageSize+at] = []byte{byte(page), 0xff}[at%2]
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			var w boltWalk
			err := w.read(path, func(tx *bbolt.Tx) error {
				return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error { return readAll(b) })
			})
			if err != nil {
				refused++
			}
		}
	}
	if refused == 0 {
		t.Error("no damage was found")
	}
}

func readAll(b *bbolt.Bucket) error {
	return b.ForEach(func(key, value []byte) error {
		if value == nil {
			return readAll(b.Bucket(key))
		}
		return nil
	})
}
