//go:build linux && !386 && !arm

package main

import (
	"errors"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
)

var goleveldbAdapter = adapter{
	name: "goleveldb", module: "github.com/syndtr/goleveldb", persistent: true, rests: true,
	note: "write buffer 64 MiB, block cache above the data, compacted before it is read, bloom filters of 10 bits a key, no compression, tables of 8 MiB; " +
		"not durable: WriteOptions.Sync off and a sync of the log each second; durable: WriteOptions.Sync, writers merged as by default.",
	open: openGoleveldb,
}

// lastKey sorts behind every key of a workload.
var lastKey = []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")

type goleveldbStore struct {
	db    *leveldb.DB
	write *opt.WriteOptions
	stop  func() error
}

func openGoleveldb(dir string, c config) (Store, error) {
	db, err := leveldb.OpenFile(dir, &opt.Options{
		WriteBuffer:            64 << 20,
		BlockCacheCapacity:     int(max(1<<30, 2*c.bytes())),
		OpenFilesCacheCapacity: 4096,
		CompactionTableSize:    8 << 20,
		Filter:                 filter.NewBloomFilter(10),
		Compression:            opt.NoCompression,
	})
	if err != nil {
		return nil, err
	}
	s := &goleveldbStore{db: db, write: &opt.WriteOptions{Sync: c.durable}, stop: func() error { return nil }}
	if !c.durable {
		s.stop = everySecond(s.Sync)
	}
	return s, nil
}

func (s *goleveldbStore) Get(key []byte) ([]byte, error) {
	v, err := s.db.Get(key, nil)
	if err == leveldb.ErrNotFound {
		return nil, errMiss
	}
	return v, err
}

func (s *goleveldbStore) Put(key, value []byte) error { return s.db.Put(key, value, s.write) }

func (s *goleveldbStore) PutBatch(keys, values [][]byte) error {
	var b leveldb.Batch
	for i, key := range keys {
		b.Put(key, values[i])
	}
	return s.db.Write(&b, s.write)
}

func (s *goleveldbStore) Delete(key []byte) error { return s.db.Delete(key, s.write) }

func (s *goleveldbStore) Each(fn func(key, value []byte) error) error {
	it := s.db.NewIterator(nil, nil)
	defer it.Release()
	for it.Next() {
		if err := fn(it.Key(), it.Value()); err != nil {
			return err
		}
	}
	return it.Error()
}

// Sync makes all that is in the log durable: the deletion of a key that is not
// there is the smallest write that can ask for it.
func (s *goleveldbStore) Sync() error {
	return s.db.Delete(lastKey, &opt.WriteOptions{Sync: true})
}

func (s *goleveldbStore) Compact() error { return s.db.CompactRange(util.Range{}) }

func (s *goleveldbStore) Close() error {
	return errors.Join(s.stop(), s.Sync(), s.db.Close())
}
