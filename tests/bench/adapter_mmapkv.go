//go:build linux && !386 && !arm

package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/mmapkv/mmapkv/kv"
)

var mmapkvAdapter = adapter{
	name: "mmapkv", persistent: true, file: "store",
	note: "the zero Options: SyncPeriodic, a sync begins at the latest a second after a write; durable: SyncAlways. A write that returned survives the death of the process.",
	open: func(dir string, c config) (Store, error) {
		opts := &kv.Options{ReadOnly: c.access == follower, Shared: c.access == sharer}
		if c.durable {
			opts.Durability = kv.SyncAlways
		}
		if c.withoutCheckpoints {
			opts.CheckpointBytes = -1
		}
		s, err := kv.Open(filepath.Join(dir, "store"), opts)
		return mmapkvStore{s}, err
	},
}

type mmapkvStore struct{ *kv.Store }

func missed(value []byte, err error) ([]byte, error) {
	if errors.Is(err, kv.ErrNotFound) {
		return value, errMiss
	}
	return value, err
}

func (s mmapkvStore) Get(key []byte) ([]byte, error) {
	v, err := s.Store.Get(key)
	if err != nil {
		return missed(v, err)
	}
	return v, nil
}

func (s mmapkvStore) GetAppend(dst, key []byte) ([]byte, error) {
	v, err := s.Store.GetAppend(dst, key)
	if err != nil {
		return missed(v, err)
	}
	return v, nil
}

func (s mmapkvStore) PutBatch(keys, values [][]byte) error {
	return s.Update(func(tx *kv.Tx) error {
		for i, key := range keys {
			if err := tx.Put(key, values[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s mmapkvStore) Each(fn func(key, value []byte) error) error {
	it := s.Iter(nil)
	for key, value := range it.All() {
		if err := fn(key, value); err != nil {
			return err
		}
	}
	return it.Err()
}

func (s mmapkvStore) Compact() error {
	_, err := s.Store.Compact(context.Background())
	return err
}

func (s mmapkvStore) Stats() map[string]float64 {
	st := s.Store.Stats()
	return map[string]float64{
		"live_bytes": float64(st.LiveBytes), "index_bytes": float64(st.IndexBytes), "compactions": float64(st.Compactions),
	}
}
