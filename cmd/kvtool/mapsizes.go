package main

import (
	"bufio"
	"cmp"
	"fmt"
	"slices"

	"github.com/dustin/go-humanize"
	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/kv"
)

// mapSizes adds up the entries of each map. It keeps maxFound names at most.
type mapSizes map[string]*mapSize

// mapSize is what inspect says of one map.
type mapSize struct {
	Name    printable `json:"name"`
	Keys    printable `json:"keys"`   // the names of its codecs
	Values  printable `json:"values"` // ...
	Entries int64     `json:"entries"`
	Bytes   int64     `json:"bytes"` // of their records

	noted bool // else it is only what keys look like
}

// add counts a live record.
func (m *mapSizes) add(r *kv.Record) {
	if name, ok := kv.NotedMap(r.Key); ok {
		if pair, err := codec.DecodePair(r.Value); err == nil {
			if s := m.of(name); s != nil {
				s.Keys, s.Values, s.noted = printable(pair.Keys), printable(pair.Values), true
			}
		}
		return
	}
	name, _, ok := kv.SplitKey(r.Key)
	if !ok {
		return
	}
	if s := m.of(name); s != nil {
		s.Entries++
		s.Bytes += r.Len
	}
}

func (m *mapSizes) of(name string) *mapSize {
	if *m == nil {
		*m = mapSizes{}
	}
	s := (*m)[name]
	if s == nil && len(*m) < maxFound {
		s = &mapSize{Name: printable(name)}
		(*m)[name] = s
	}
	return s
}

// list returns the maps that are noted, by name.
func (m mapSizes) list() []mapSize {
	all := []mapSize{}
	for _, s := range m {
		if s.noted {
			all = append(all, *s)
		}
	}
	slices.SortFunc(all, func(a, b mapSize) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

func (m mapSizes) print(w *bufio.Writer) {
	all := m.list()
	if len(all) > 0 {
		fmt.Fprintf(w, "\nmaps\n")
	}
	for _, s := range all {
		fmt.Fprintf(w, "%*s  ", mapMargin-2, shortBytes(s.Bytes))
		writeText(w, []byte(s.Name))
		fmt.Fprintf(w, ": %s entries, keys of ", humanize.Comma(s.Entries))
		writeText(w, []byte(s.Keys))
		w.WriteString(", values of ")
		writeText(w, []byte(s.Values))
		w.WriteString("\n")
	}
}
