package kv

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mmapkv/mmapkv/codec"
)

// Goal: the maps of a store are listed with their codecs, in the order in which they were
// made, after another opening too, and one that is not there is not found.
// Method: maps among keys that are no map's.
func TestMaps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	s, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Maps(); len(got) != 0 || err != nil {
		t.Errorf("an empty store has the maps %v, %v", got, err)
	}
	users, err := NewMap(s, "users", codec.Uint32{}, codec.JSON[any]{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewMap(s, "", codec.String{}, codec.Int{}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(users.Put(7, "x"), s.Put([]byte("none\x00k"), nil)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if s, err = Open(path, &Options{ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want := []MapInfo{{"users", "uint32", "json"}, {"", "string", "int64"}}
	if got, err := s.Maps(); !slices.Equal(got, want) || err != nil {
		t.Errorf("the maps are %v, %v; want %v", got, err, want)
	}
	for _, w := range want {
		if got, err := s.MapInfo(w.Name); got != w || err != nil {
			t.Errorf("of %q is noted %v, %v", w.Name, got, err)
		}
	}
	if got, err := s.MapInfo("none"); err != ErrNotFound {
		t.Errorf("of a map that is not there is noted %v, %v", got, err)
	}
	key := append(want[0].Prefix(), 0, 0, 0, 7)
	if ok, err := s.Has(key); !ok || err != nil {
		t.Errorf("the prefix %q begins no key: %v", want[0].Prefix(), err)
	}
}

// Goal: a key is taken apart as a map puts it together; one that can be of no map, be it of the
// catalog, is not. Method: a table.
func TestSplitKey(t *testing.T) {
	for _, test := range []struct {
		key, name, rest string
		ok              bool
		noted           string
	}{
		{key: "users\x00\x00k", name: "users", rest: "\x00k", ok: true},
		{key: "\x00", ok: true},
		{key: ""},
		{key: "users"},
		{key: catalog + "users", noted: "users"},
		{key: strings.Repeat("n", MaxNameLen) + "\x00", name: strings.Repeat("n", MaxNameLen), ok: true},
		{key: strings.Repeat("n", MaxNameLen+1) + "\x00"},
	} {
		name, rest, ok := SplitKey([]byte(test.key))
		noted, _ := NotedMap([]byte(test.key))
		if name != test.name || string(rest) != test.rest || ok != test.ok || noted != test.noted {
			t.Errorf("%.20q is of %q, %q, %v, and the note of %q", test.key, name, rest, ok, noted)
		}
	}
}

// Goal: what is damaged in the catalog is an error, and not another map. Method: a row that is none.
func TestMapsDamaged(t *testing.T) {
	s, err := OpenMem(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Put([]byte(catalog+"m"), []byte{0x0a, 5}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Maps(); !errors.Is(err, codec.ErrValue) {
		t.Errorf("Maps: %v, %v", got, err)
	}
	if got, err := s.MapInfo("m"); !errors.Is(err, codec.ErrValue) {
		t.Errorf("MapInfo: %v, %v", got, err)
	}
}
