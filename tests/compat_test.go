package tests

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

var writeV1 = flag.Bool("write-v1", false, "write testdata/v1, which must not be there: what release 1 wrote is never written again")

// farDeadline outlives everybody who could run this test.
var farDeadline = time.Date(2900, 1, 1, 0, 0, 0, 0, time.UTC)

// v1Contents is what the stores in testdata/v1 have.
var v1Contents = map[string]string{
	"":            "the empty key",
	"empty value": "",
	"apple":       "red",
	"ttl":         "for long",
	"tx one":      "1",
	"tx two":      "2",
	"page":        string(valueOf(5000, 1)),
	"overwritten": "second",
}

// v1Stores are the files: one as it was written, one compacted and written on.
var v1Stores = []string{"log", "compacted"}

// writeV1Stores makes the files. It is kept to show how they came to be.
func writeV1Stores(t *testing.T, dir string) {
	must(t, os.MkdirAll(dir, 0o755))
	for _, name := range v1Stores {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			t.Fatalf("%s is there", path)
		}
		s := open(t, path, &kv.Options{CompactAt: -1, Perm: 0o644})
		k := func(s string) []byte { return []byte(s) }
		must(t, s.Put(k(""), k("the empty key")))
		must(t, s.Put(k("empty value"), nil))
		must(t, s.Put(k("overwritten"), k("first")))
		must(t, s.Put(k("gone"), k("x")))
		must(t, s.PutUntil(k("expired"), k("x"), time.Unix(1, 0)))
		must(t, s.PutUntil(k("ttl"), k("for long"), farDeadline))
		must(t, s.Delete(k("gone")))
		must(t, s.Put(k("page"), valueOf(5000, 1)))
		if name == "compacted" {
			_, err := s.Compact(t.Context())
			must(t, err)
		}
		must(t, s.Update(func(tx *kv.Tx) error {
			return errors.Join(tx.Put(k("tx one"), k("1")), tx.Put(k("tx two"), k("2")), tx.Put(k("overwritten"), k("second")))
		}))
		must(t, s.Put(k("apple"), k("red")))
		closeSound(t, s)
	}
}

// Goal: what release 1 wrote can be read and written for ever.
// Method: copies of its files, opened to read and to write.
func TestReleaseOne(t *testing.T) {
	dir := filepath.Join("testdata", "v1")
	if *writeV1 {
		writeV1Stores(t, dir)
	}
	for _, name := range v1Stores {
		t.Run(name, func(t *testing.T) {
			path := storePath(t)
			copyFile(t, filepath.Join(dir, name), path)
			r := open(t, path, &kv.Options{ReadOnly: true})
			wantContents(t, r, v1Contents)
			must(t, r.Close())
			for range 2 {
				s := open(t, path, nil)
				wantContents(t, s, v1Contents)
				must(t, s.Put([]byte("new"), []byte("v")))
				must(t, s.Delete([]byte("new")))
				_, err := s.Compact(t.Context())
				must(t, err)
				wantContents(t, s, v1Contents)
				closeSound(t, s)
			}
		})
	}
}
