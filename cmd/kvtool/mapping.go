package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

// mapping is how the entries of a map are shown and taken, or, the zero mapping, those of none.
type mapping struct {
	name         string
	prefix       []byte // of its keys in the store
	keys, values coder
	named        bool // its name is shown, as it is not the only map that is
}

// typing are the flags that choose a map, and say how bytes are written.
type typing struct {
	keys, values form
	name         string // of the one map
	raw          bool
	descriptors  string

	one   bool // --map was given
	s     *kv.Store
	types messageTypes
	only  *mapping            // with --map
	none  mapping             // for what is of no map
	found map[string]*mapping // by name; nil if there is no such map
}

// flags adds the flags of a verb that shows or takes keys and values.
func (y *typing) flags(cmd *cobra.Command) {
	y.keys.keyFlag(cmd)
	y.values.valueFlag(cmd)
	y.mapFlag(cmd)
}

// mapFlag adds the flags of a map.
func (y *typing) mapFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&y.name, "map", "m", "", "take keys and values as those of the map of this `name` (that of OpenMap and OpenValue: '')")
	cmd.Flags().StringVar(&y.descriptors, "proto", "", "show protobuf messages by this `file` of descriptors (protoc --include_imports --descriptor_set_out)")
}

// rawFlag adds the flag for verbs that show all maps.
func (y *typing) rawFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&y.raw, "raw", false, "show maps too as the bytes that the store has")
}

// checkForms looks at keys as far as that goes before a store is opened for them.
func (y *typing) checkForms(what string, keys ...string) error {
	for _, key := range keys {
		if _, err := y.keys.parse(what, key); err != nil {
			return err
		}
	}
	return nil
}

// begin makes ready for the entries of s, but for the map that --map names.
func (y *typing) begin(cmd *cobra.Command, s *kv.Store) (err error) {
	if y.one = cmd.Flags().Changed("map"); y.one && y.raw {
		return usagef("either --map or --raw")
	}
	if y.descriptors != "" {
		if y.types, err = readDescriptors(y.descriptors); err != nil {
			return err
		}
	}
	y.s = s
	y.none = mapping{keys: coder{form: y.keys}, values: coder{form: y.values}}
	return nil
}

// open is begin, and finds the map that --map names.
func (y *typing) open(cmd *cobra.Command, s *kv.Store) error {
	if err := y.begin(cmd, s); err != nil || !y.one {
		return err
	}
	var err error
	y.only, err = y.lookup(y.name)
	if errors.Is(err, kv.ErrNotFound) {
		return noMap(s, y.name)
	}
	if err == nil && y.types.Types != nil {
		for _, c := range []*coder{&y.only.keys, &y.only.values} {
			if c.isMessage() && c.message == nil {
				return fmt.Errorf("%s: there is no message %s in it", y.descriptors, strings.TrimPrefix(c.name, protoPrefix))
			}
		}
	}
	return err
}

// noMap is the error for a map that is not there: it says which are.
func noMap(s *kv.Store, name string) error {
	maps, err := s.Maps()
	if err != nil {
		return err
	}
	var names []string
	for _, m := range maps {
		names = append(names, fmt.Sprintf("%q", m.Name))
	}
	has := "has no maps"
	if len(names) > 0 {
		has = "has " + strings.Join(names, ", ")
	}
	return fmt.Errorf("%s: %w: no map %q; the store %s", s.Path(), kv.ErrNotFound, name, has)
}

func (y *typing) lookup(name string) (*mapping, error) {
	info, err := y.s.MapInfo(name)
	if err != nil {
		return nil, err
	}
	return &mapping{
		name: name, prefix: info.Prefix(), named: !y.one,
		keys: newCoder(info.Keys, y.keys, y.types), values: newCoder(info.Values, y.values, y.types),
	}, nil
}

// maxFound bounds the names that typing keeps: a store has few maps, but keys may look like
// those of many.
const maxFound = 4096

// of returns the mapping of a key of the store, and the bytes of the key in it; or nil, if its
// entry is not to be shown: it is of another map, or the store's own note of one.
func (y *typing) of(key []byte) (*mapping, []byte) {
	switch {
	case y.raw:
		return &y.none, key
	case y.one:
		if rest, ok := bytes.CutPrefix(key, y.only.prefix); ok {
			return y.only, rest
		}
		return nil, nil
	}
	if _, ok := kv.NotedMap(key); ok {
		clear(y.found) // there may be a new map
		return nil, nil
	}
	name, rest, ok := kv.SplitKey(key)
	if !ok {
		return &y.none, key
	}
	m, known := y.found[name]
	if !known {
		if y.found == nil || len(y.found) == maxFound {
			y.found = map[string]*mapping{}
		}
		m, _ = y.lookup(name)
		y.found[name] = m
	}
	if m == nil {
		return &y.none, key
	}
	return m, rest
}

// chosen returns the mapping of what is named on the command line: of one map, or of none.
func (y *typing) chosen() *mapping {
	if y.one {
		return y.only
	}
	return &y.none
}

// key returns the key of the store that s stands for, which what names.
func (m *mapping) key(what, s string) ([]byte, error) {
	b, err := m.keys.parse(what, s)
	return append(bytes.Clone(m.prefix), b...), err
}

// keysFrom returns what the keys of the store begin with that s begins.
func (m *mapping) keysFrom(s string) ([]byte, error) {
	b, err := m.keys.prefix(s)
	return append(bytes.Clone(m.prefix), b...), err
}

// quote is a key of the store for a message, for which s stood on the command line.
func (m *mapping) quote(key []byte, s string) string {
	if m.keys.isText() {
		return fmt.Sprintf("%q", key[len(m.prefix):])
	}
	return fmt.Sprintf("%q", s)
}

// column writes the name of the map before an entry in text, where it is shown.
func (m *mapping) column(w stringWriter) {
	if m.named {
		writeText(w, []byte(m.name))
		w.WriteString("\t")
	}
}

// writeName writes the field of a JSON object that has the name of the map, where it is shown.
func (m *mapping) writeName(w stringWriter) {
	if m.named {
		writeField(w, "map", []byte(m.name))
		w.WriteString(`,`)
	}
}

// writeEntry writes the JSON object of an entry, where nothing but bytes is known without
// needing memory in proportion to it.
func (m *mapping) writeEntry(w stringWriter, key, value []byte, expires time.Time) {
	w.WriteString(`{`)
	m.writeName(w)
	m.keys.field(w, "key", key)
	w.WriteString(`,`)
	m.values.field(w, "value", value)
	writeExpires(w, expires)
	w.WriteString("}\n")
}

// writeKey writes the JSON object of an entry without its value.
func (m *mapping) writeKey(w stringWriter, key []byte) {
	w.WriteString(`{`)
	m.writeName(w)
	m.keys.field(w, "key", key)
	w.WriteString("}\n")
}
