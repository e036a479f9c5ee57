package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/mmapkv/mmapkv/kv"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// boltWait is how long another process may hold a bbolt file for writing.
const boltWait = 2 * time.Second

// bolt imports the buckets of a bbolt file, each as a map of its name, or one bucket.
func (i *importer) bolt(ctx context.Context, path string) error {
	w := boltWalk{i: i, ctx: ctx, seen: map[string]bool{}}
	err := w.read(path, func(tx *bbolt.Tx) error {
		w.size = tx.Size()
		if i.bucket == "" {
			return w.buckets(tx)
		}
		b, err := findBucket(tx, i.bucket)
		if err != nil {
			return err
		}
		m, err := i.target()
		if err == nil {
			err = w.bucket(b, i.bucket, m)
		}
		if w.nested > 0 {
			i.t.notef("%s: left out %d buckets within %q; --bucket %s/NAME imports one", path, w.nested, i.bucket, i.bucket)
		}
		return err
	})
	if err = errors.Join(err, i.flush()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// boltWalk is one pass over a file.
type boltWalk struct {
	i       *importer
	ctx     context.Context
	size    int64           // of the file
	done    int64           // bytes of keys and values
	seen    map[string]bool // names of maps
	nested  int             // buckets that were left out
	storing bool            // a panic now is none of bbolt's
}

// read gives fn the content of a bbolt file. It makes an error of the panics and faults with
// which bbolt answers what checkBolt lets through.
func (w *boltWalk) read(path string, fn func(tx *bbolt.Tx) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if w.storing {
				panic(r)
			}
			err = fmt.Errorf("not a sound bbolt file (bbolt check says more): %v", r)
		}
	}()
	db, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true, Timeout: boltWait})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return errors.New("another process has it open for writing")
	}
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		if err := checkBolt(path, tx); err != nil {
			return fmt.Errorf("not a sound bbolt file (bbolt check says more): %w", err)
		}
		return fn(tx)
	})
}

// findBucket returns the bucket of a path: names of buckets, each in that before it, by slashes.
func findBucket(tx *bbolt.Tx, path string) (*bbolt.Bucket, error) {
	if b := tx.Bucket([]byte(path)); b != nil {
		return b, nil // whose name has slashes
	}
	names := strings.Split(path, "/")
	b := tx.Bucket([]byte(names[0]))
	for _, name := range names[1:] {
		if b == nil {
			break
		}
		b = b.Bucket([]byte(name))
	}
	if b == nil {
		return nil, fmt.Errorf("there is no bucket %q", path)
	}
	return b, nil
}

// buckets imports all buckets that hold something, each as a map.
func (w *boltWalk) buckets(tx *bbolt.Tx) error {
	return tx.ForEach(func(name []byte, b *bbolt.Bucket) error { return w.asMap(string(name), b, 0) })
}

// maxNesting is how deep buckets may lie in each other: the names of maps end before that.
const maxNesting = kv.MaxNameLen

func (w *boltWalk) asMap(name string, b *bbolt.Bucket, depth int) error {
	if w.seen[name] || depth > maxNesting {
		return fmt.Errorf("two buckets would be the map %q; import them one by one, with --bucket and --map", name)
	}
	w.seen[name] = true
	var m *mapping
	return b.ForEach(func(key, value []byte) (err error) {
		if value == nil {
			return w.asMap(name+"/"+string(key), b.Bucket(key), depth+1)
		}
		if m == nil {
			if m, err = w.i.mapFor(name); err != nil {
				return fmt.Errorf("bucket %q: %w", name, err)
			}
		}
		return w.entry(m, name, key, value)
	})
}

func (w *boltWalk) bucket(b *bbolt.Bucket, name string, m *mapping) error {
	return b.ForEach(func(key, value []byte) error {
		if value == nil {
			w.nested++
			return nil
		}
		return w.entry(m, name, key, value)
	})
}

func (w *boltWalk) entry(m *mapping, bucket string, key, value []byte) error {
	err := m.keys.check(key)
	if err == nil {
		// bbolt's values are its own, and valid in its transaction only.
		e := entry{key: key, value: append([]byte{}, value...)}
		w.storing = true
		err = w.i.untypedEntry(w.ctx, m, e)
		w.storing = false
	}
	if err != nil {
		return fmt.Errorf("bucket %q, key %q: %w", bucket, key, err)
	}
	w.done += int64(len(key) + len(value))
	w.i.bar.at("import", min(w.done, w.size), w.size)
	return nil
}
