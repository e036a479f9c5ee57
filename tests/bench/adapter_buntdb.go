//go:build linux && !386 && !arm

package main

import (
	"path/filepath"
	"time"

	"github.com/tidwall/buntdb"
)

var buntdbAdapter = adapter{
	name: "buntdb", module: "github.com/tidwall/buntdb", persistent: true,
	note: "its defaults: all entries in memory, the file appended to, SyncPolicy EverySecond, shrunk by itself at twice its size; durable: SyncPolicy Always.",
	open: openBuntdb,
}

type buntdbStore struct{ db *buntdb.DB }

func openBuntdb(dir string, c config) (Store, error) {
	db, err := buntdb.Open(filepath.Join(dir, "store"))
	if err != nil {
		return nil, err
	}
	var bc buntdb.Config
	if err := db.ReadConfig(&bc); err != nil {
		return nil, err
	}
	bc.SyncPolicy = buntdb.EverySecond
	if c.durable {
		bc.SyncPolicy = buntdb.Always
	}
	return buntdbStore{db}, db.SetConfig(bc)
}

func (s buntdbStore) Get(key []byte) (value []byte, err error) {
	err = s.db.View(func(tx *buntdb.Tx) error {
		v, err := tx.Get(string(key))
		if err == buntdb.ErrNotFound {
			return errMiss
		}
		value = []byte(v)
		return err
	})
	return value, err
}

func (s buntdbStore) Put(key, value []byte) error {
	return s.db.Update(func(tx *buntdb.Tx) error {
		_, _, err := tx.Set(string(key), string(value), nil)
		return err
	})
}

func (s buntdbStore) PutBatch(keys, values [][]byte) error {
	return s.db.Update(func(tx *buntdb.Tx) error {
		for i, key := range keys {
			if _, _, err := tx.Set(string(key), string(values[i]), nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s buntdbStore) Delete(key []byte) error {
	return s.db.Update(func(tx *buntdb.Tx) error {
		_, err := tx.Delete(string(key))
		return err
	})
}

func (s buntdbStore) Each(fn func(key, value []byte) error) error {
	return s.db.View(func(tx *buntdb.Tx) error {
		var k, v []byte
		var failed error
		err := tx.Ascend("", func(key, value string) bool {
			k, v = append(k[:0], key...), append(v[:0], value...)
			failed = fn(k, v)
			return failed == nil
		})
		if failed != nil {
			return failed
		}
		return err
	})
}

// Compact waits for the shrinking that began by itself, and shrinks again.
func (s buntdbStore) Compact() error {
	for {
		if err := s.db.Shrink(); err != buntdb.ErrShrinkInProcess {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (s buntdbStore) Close() error { return s.db.Close() }
