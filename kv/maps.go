package kv

import (
	"bytes"
	"unicode/utf8"

	"github.com/mmapkv/mmapkv/codec"
)

// MapInfo is what a store notes of one of its maps, for a tool that has not their Go types.
// codec.ByName finds what reads and writes the bytes.
type MapInfo struct {
	Name   string
	Keys   string // the name of the codec of its keys
	Values string // ... and of its values
}

// Maps returns the maps that are noted in the store, in the order in which they were made: at
// the cost of a walk over all that the store has.
func (s *Store) Maps() ([]MapInfo, error) {
	var all []MapInfo
	it := s.Iter([]byte(catalog))
	for key, row := range it.All() {
		info, err := s.mapInfo(string(key[len(catalog):]), row)
		if err != nil {
			return nil, err
		}
		all = append(all, info)
	}
	return all, it.Err()
}

// MapInfo returns what is noted of the map of that name, or ErrNotFound.
func (s *Store) MapInfo(name string) (MapInfo, error) {
	row, err := s.Get(append([]byte(catalog), name...))
	if err != nil {
		return MapInfo{}, err
	}
	return s.mapInfo(name, row)
}

func (s *Store) mapInfo(name string, row []byte) (MapInfo, error) {
	pair, err := codec.DecodePair(row)
	if err != nil {
		return MapInfo{}, s.wrap("map info", 0, err)
	}
	return MapInfo{Name: name, Keys: pair.Keys, Values: pair.Values}, nil
}

// Prefix returns what the keys of the map begin with in the store, before the bytes that the
// codec made of each.
func (m MapInfo) Prefix() []byte { return append([]byte(m.Name), 0) }

// SplitKey returns the name of the map that a key of a store is of, and the bytes of the key in
// it, which alias key; ok is false if it can be of none. Whether there is such a map, and not
// just a program that makes such keys itself, MapInfo tells.
func SplitKey(key []byte) (name string, rest []byte, ok bool) {
	before, rest, ok := bytes.Cut(key, []byte{0})
	if !ok || len(before) > MaxNameLen || !utf8.Valid(before) {
		return "", nil, false
	}
	return string(before), rest, true
}

// NotedMap returns the name of the map that a key of a store is the note of, if it is one: what
// MapInfo returns is its value.
func NotedMap(key []byte) (name string, ok bool) {
	rest, ok := bytes.CutPrefix(key, []byte(catalog))
	if !ok {
		return "", false
	}
	return string(rest), true
}
