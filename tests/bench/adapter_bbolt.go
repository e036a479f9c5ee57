//go:build linux && !386 && !arm

package main

import (
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

var bboltAdapter = adapter{
	name: "bbolt", module: "go.etcd.io/bbolt", persistent: true, grouped: true, file: "store",
	note: "FreelistType hashmap, InitialMmapSize above the data (its Options), fills in transactions of 1000 (README, 'Batch read-write transactions'); " +
		"not durable: NoSync and a Sync each second; durable: its own syncs, NoFreelistSync, and from several goroutines DB.Batch with MaxBatchSize at their number.",
	open: openBbolt,
}

var bboltBucket = []byte("b")

type bboltStore struct {
	db   *bbolt.DB
	opts *bbolt.Options
	c    config
	stop func() error
}

func openBbolt(dir string, c config) (Store, error) {
	s := &bboltStore{c: c, opts: &bbolt.Options{
		FreelistType:    bbolt.FreelistMapType,
		NoFreelistSync:  c.durable,
		InitialMmapSize: int(max(1<<30, 8*c.bytes())),
		NoSync:          !c.durable,
	}}
	return s, s.start(filepath.Join(dir, "store"))
}

func (s *bboltStore) start(path string) error {
	db, err := bbolt.Open(path, 0o600, s.opts)
	if err != nil {
		return err
	}
	s.db = db
	db.MaxBatchSize = max(s.c.writers, 1)
	s.stop = func() error { return nil }
	if !s.c.durable {
		s.stop = everySecond(db.Sync)
	}
	return db.Update(func(tx *bbolt.Tx) error {
		if tx.Bucket(bboltBucket) != nil {
			return nil
		}
		_, err := tx.CreateBucket(bboltBucket)
		return err
	})
}

func (s *bboltStore) Get(key []byte) (value []byte, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bboltBucket).Get(key)
		if v == nil {
			return errMiss
		}
		value = clone(v)
		return nil
	})
	return value, err
}

func (s *bboltStore) write(fn func(tx *bbolt.Tx) error) error {
	if s.c.writers > 1 {
		return s.db.Batch(fn)
	}
	return s.db.Update(fn)
}

func (s *bboltStore) Put(key, value []byte) error {
	return s.write(func(tx *bbolt.Tx) error { return tx.Bucket(bboltBucket).Put(key, value) })
}

func (s *bboltStore) PutBatch(keys, values [][]byte) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bboltBucket)
		for i, key := range keys {
			if err := b.Put(key, values[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *bboltStore) Delete(key []byte) error {
	return s.write(func(tx *bbolt.Tx) error { return tx.Bucket(bboltBucket).Delete(key) })
}

func (s *bboltStore) Each(fn func(key, value []byte) error) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bboltBucket).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if err := fn(k, v); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *bboltStore) Sync() error { return s.db.Sync() }

// Compact is what `bbolt compact` does: a copy, which then takes the file's place.
func (s *bboltStore) Compact() error {
	path := s.db.Path()
	dst, err := bbolt.Open(path+".compact", 0o600, s.opts)
	if err != nil {
		return err
	}
	if err := bbolt.Compact(dst, s.db, 1<<20); err != nil {
		return err
	}
	if err := dst.Close(); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	if err := os.Rename(path+".compact", path); err != nil {
		return err
	}
	return s.start(path)
}

func (s *bboltStore) Close() error {
	if err := s.stop(); err != nil {
		return err
	}
	if err := s.db.Sync(); err != nil {
		return err
	}
	return s.db.Close()
}
