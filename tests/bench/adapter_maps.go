//go:build linux && !386 && !arm

package main

import (
	"sync"

	"github.com/puzpuzpuz/xsync/v4"
)

// The stores of memory only: what a program uses that needs no persistence.

var mapAdapter = adapter{
	name: "map",
	note: "map[string][]byte behind an RWMutex, which copies what it stores and what it returns; not sized ahead, as nothing here is.",
	open: func(string, config) (Store, error) { return &mapStore{m: make(map[string][]byte)}, nil },
}

type mapStore struct {
	mu sync.RWMutex
	m  map[string][]byte // guarded by mu; the values never change
}

func clone(v []byte) []byte { return append(make([]byte, 0, len(v)), v...) }

func (s *mapStore) Get(key []byte) ([]byte, error) {
	s.mu.RLock()
	v, ok := s.m[string(key)]
	s.mu.RUnlock()
	if !ok {
		return nil, errMiss
	}
	return clone(v), nil
}

func (s *mapStore) Put(key, value []byte) error {
	v := clone(value)
	s.mu.Lock()
	s.m[string(key)] = v
	s.mu.Unlock()
	return nil
}

func (s *mapStore) Delete(key []byte) error {
	s.mu.Lock()
	delete(s.m, string(key))
	s.mu.Unlock()
	return nil
}

func (s *mapStore) Each(fn func(key, value []byte) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var buf []byte
	for k, v := range s.m {
		buf = append(buf[:0], k...)
		if err := fn(buf, v); err != nil {
			return err
		}
	}
	return nil
}

func (s *mapStore) Close() error { return nil }

var syncMapAdapter = adapter{
	name: "sync.Map",
	note: "sync.Map from string to []byte, copying as map does.",
	open: func(string, config) (Store, error) { return &syncMapStore{}, nil },
}

type syncMapStore struct{ m sync.Map }

func (s *syncMapStore) Get(key []byte) ([]byte, error) {
	v, ok := s.m.Load(string(key))
	if !ok {
		return nil, errMiss
	}
	return clone(v.([]byte)), nil
}

func (s *syncMapStore) Put(key, value []byte) error {
	s.m.Store(string(key), clone(value))
	return nil
}

func (s *syncMapStore) Delete(key []byte) error {
	s.m.Delete(string(key))
	return nil
}

func (s *syncMapStore) Each(fn func(key, value []byte) error) (err error) {
	var buf []byte
	s.m.Range(func(k, v any) bool {
		buf = append(buf[:0], k.(string)...)
		err = fn(buf, v.([]byte))
		return err == nil
	})
	return err
}

func (s *syncMapStore) Close() error { return nil }

var xsyncAdapter = adapter{
	name: "xsync", module: "github.com/puzpuzpuz/xsync/v4",
	note: "xsync.Map[string, []byte], its defaults, copying as map does.",
	open: func(string, config) (Store, error) { return xsyncStore{xsync.NewMap[string, []byte]()}, nil },
}

type xsyncStore struct{ m *xsync.Map[string, []byte] }

func (s xsyncStore) Get(key []byte) ([]byte, error) {
	v, ok := s.m.Load(string(key))
	if !ok {
		return nil, errMiss
	}
	return clone(v), nil
}

func (s xsyncStore) Put(key, value []byte) error {
	s.m.Store(string(key), clone(value))
	return nil
}

func (s xsyncStore) Delete(key []byte) error {
	s.m.Delete(string(key))
	return nil
}

func (s xsyncStore) Each(fn func(key, value []byte) error) error {
	var buf []byte
	for k, v := range s.m.All() {
		buf = append(buf[:0], k...)
		if err := fn(buf, v); err != nil {
			return err
		}
	}
	return nil
}

func (s xsyncStore) Close() error { return nil }
