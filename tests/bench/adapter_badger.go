//go:build linux && !386 && !arm

package main

import (
	"errors"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

var badgerAdapter = adapter{
	name: "badger", module: "github.com/dgraph-io/badger/v4", persistent: true, grouped: true, rests: true,
	note: "no compression, and so no block cache (options.go: without compression a cache only costs), the tables mapped; DetectConflicts off, since no transaction here reads; " +
		"fills in transactions of 1000 (its FAQ on slow writes); compacted before it is read; iterates without prefetch, for the values lie in the tables; not durable: SyncWrites off (its default) and a Sync each second; durable: SyncWrites.",
	open: openBadger,
}

type badgerStore struct {
	db   *badger.DB
	stop func() error
}

func openBadger(dir string, c config) (Store, error) {
	db, err := badger.Open(badger.DefaultOptions(dir).
		WithSyncWrites(c.durable).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithDetectConflicts(false).
		WithMetricsEnabled(false).
		WithLogger(nil))
	if err != nil {
		return nil, err
	}
	s := &badgerStore{db: db, stop: func() error { return nil }}
	if !c.durable {
		s.stop = everySecond(db.Sync)
	}
	return s, nil
}

func (s *badgerStore) Get(key []byte) (value []byte, err error) {
	err = s.db.View(func(tx *badger.Txn) error {
		item, err := tx.Get(key)
		if err == badger.ErrKeyNotFound {
			return errMiss
		} else if err != nil {
			return err
		}
		value, err = item.ValueCopy(nil)
		return err
	})
	return value, err
}

func (s *badgerStore) Put(key, value []byte) error {
	return s.db.Update(func(tx *badger.Txn) error { return tx.Set(key, value) })
}

func (s *badgerStore) PutBatch(keys, values [][]byte) error {
	return s.db.Update(func(tx *badger.Txn) error {
		for i, key := range keys {
			if err := tx.Set(key, values[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *badgerStore) Delete(key []byte) error {
	return s.db.Update(func(tx *badger.Txn) error { return tx.Delete(key) })
}

func (s *badgerStore) Each(fn func(key, value []byte) error) error {
	return s.db.View(func(tx *badger.Txn) error {
		opts := badger.DefaultIteratorOptions
		opts.PrefetchValues = false
		it := tx.NewIterator(opts)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			if err := item.Value(func(v []byte) error { return fn(item.Key(), v) }); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *badgerStore) Sync() error { return s.db.Sync() }

// Compact merges all levels, then collects the value log, as its documents say for
// a quiet moment.
func (s *badgerStore) Compact() error {
	if err := s.db.Flatten(2); err != nil {
		return err
	}
	for {
		switch err := s.db.RunValueLogGC(0.1); {
		case errors.Is(err, badger.ErrNoRewrite):
			return nil
		case err != nil:
			return err
		}
	}
}

func (s *badgerStore) Close() error {
	return errors.Join(s.stop(), s.db.Close())
}
