//go:build linux && !386 && !arm

package main

import (
	"context"
	"errors"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

var pebbleAdapter = adapter{
	name: "pebble", module: "github.com/cockroachdb/pebble/v2", persistent: true, rests: true,
	note: "as its own benchmark sets it (cmd/pebble/db.go): memtables of 64 MiB, bloom filters of 10 bits a key, 1 to 3 compactions at once; block cache above the data, compacted before it is read, no compression; " +
		"not durable: NoSync and a sync of the log each second (a put that returned may be lost with the process too); durable: Sync.",
	open: openPebble,
}

type pebbleStore struct {
	db    *pebble.DB
	write *pebble.WriteOptions
	stop  func() error
}

// quiet drops what pebble tells.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic("pebble: " + format)
}

func openPebble(dir string, c config) (Store, error) {
	cache := pebble.NewCache(max(1<<30, 2*c.bytes()))
	defer cache.Unref()
	opts := &pebble.Options{
		Cache:                       cache,
		FormatMajorVersion:          pebble.FormatNewest,
		L0CompactionThreshold:       2,
		L0StopWritesThreshold:       1000,
		LBaseMaxBytes:               64 << 20,
		MaxOpenFiles:                16384,
		MemTableSize:                64 << 20,
		MemTableStopWritesThreshold: 4,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 3 },
		Logger:                      quiet{},
	}
	opts.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		opts.Levels[i].FilterType = pebble.TableFilter
	}
	db, err := pebble.Open(dir, opts)
	if err != nil {
		return nil, err
	}
	s := &pebbleStore{db: db, write: pebble.NoSync, stop: func() error { return nil }}
	if c.durable {
		s.write = pebble.Sync
	} else {
		s.stop = everySecond(s.Sync)
	}
	return s, nil
}

func (s *pebbleStore) Get(key []byte) ([]byte, error) {
	v, closer, err := s.db.Get(key)
	if err == pebble.ErrNotFound {
		return nil, errMiss
	} else if err != nil {
		return nil, err
	}
	v = clone(v)
	return v, closer.Close()
}

func (s *pebbleStore) Put(key, value []byte) error { return s.db.Set(key, value, s.write) }

func (s *pebbleStore) PutBatch(keys, values [][]byte) error {
	b := s.db.NewBatch()
	defer b.Close()
	for i, key := range keys {
		if err := b.Set(key, values[i], nil); err != nil {
			return err
		}
	}
	return b.Commit(s.write)
}

func (s *pebbleStore) Delete(key []byte) error { return s.db.Delete(key, s.write) }

func (s *pebbleStore) Each(fn func(key, value []byte) error) error {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return err
	}
	for it.First(); it.Valid(); it.Next() {
		v, err := it.ValueAndErr()
		if err == nil {
			err = fn(it.Key(), v)
		}
		if err != nil {
			return errors.Join(err, it.Close())
		}
	}
	return it.Close()
}

// Sync makes all that is in the log durable: an entry that is for the log alone.
func (s *pebbleStore) Sync() error { return s.db.LogData(nil, pebble.Sync) }

func (s *pebbleStore) Compact() error {
	if err := s.db.Flush(); err != nil {
		return err
	}
	return s.db.Compact(context.Background(), []byte{}, lastKey, true)
}

func (s *pebbleStore) Close() error {
	return errors.Join(s.stop(), s.Sync(), s.db.Close())
}
