package kv

import (
	"fmt"
	"io/fs"
	"runtime"
	"sync/atomic"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// A map's keys in the store begin with its name and a zero byte. The catalog, which says what
// codecs the maps have, has the name ff, which is no UTF-8: a key is the name of a map, and its
// value a protobuf message with the names of the codecs of keys, field 1, and values, field 2.
const catalog = "\xff\x00"

// catalogRow is the row of a map in the catalog. In each generation it is written before the
// first entry of the map, and stays as it is: for Clear leaves it behind with the entries, and a
// compaction takes it along with them. So who found it in a generation need not look again:
//
//  1. Who writes looks under the write lock, and writes the row first where it is missing.
//  2. Who reads looks before the entry. Where the row is missing, so are entries: the map is
//     empty at that moment, and what comes later may have other codecs.
type catalogRow struct {
	s    *Store
	name string
	want codec.Pair
	key  []byte
	good atomic.Uint64 // salt of the generation, which no other has, in which it was found last
}

func newCatalogRow(s *Store, name string, want codec.Pair) *catalogRow {
	return &catalogRow{s: s, name: name, want: want, key: append([]byte(catalog), name...)}
}

// value is the row's value in the store.
func (r *catalogRow) value() []byte { return r.want.Append(nil) }

// check returns nil if the map has its codecs in g, ErrCodec if it has others, and ErrNotFound if
// it has no row and so is empty.
func (r *catalogRow) check(g *generation) error {
	if r.good.Load() == g.header.Salt {
		return nil
	}
	return r.look(g)
}

func (r *catalogRow) look(g *generation) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	had, err := r.s.valueAt("open map", g, g.find(g.index.hash.sum(r.key), r.key))
	if err == ErrNotFound && r.s.opts.Salvage {
		return nil // it may be among what is lost
	}
	if err == nil {
		err = r.compare(had)
	}
	if err == nil {
		r.good.Store(g.header.Salt)
	}
	return err
}

// open is check for who opens the map, and writes the row if it is missing, unless the store is
// ReadOnly.
func (r *catalogRow) open() error {
	g, err := r.s.enter()
	if err != nil {
		return r.s.wrap("open map", 0, err)
	}
	err = r.look(g)
	runtime.KeepAlive(g)
	switch {
	case err != ErrNotFound:
		return r.s.wrapFault("open map", err)
	case r.s.opts.ReadOnly:
		return nil
	}
	return r.s.computeOf("open map", r.key, r, func([]byte, bool) ([]byte, Op) { return nil, Keep })
}

// in is check for a transaction: it returns the value of the row if that is missing.
func (r *catalogRow) in(tx *Tx) (missing []byte, err error) {
	if tx.s != r.s {
		return nil, r.s.wrap("update", 0, fmt.Errorf("%w: the transaction is one of another store, %s", fs.ErrInvalid, tx.s.path))
	}
	had, err := tx.Get(r.key)
	switch {
	case err == ErrNotFound:
		return r.value(), nil
	case err != nil:
		return nil, err
	}
	return nil, r.compare(had)
}

// compare returns an error if had is the value of a row with other codecs.
func (r *catalogRow) compare(had []byte) error {
	is, err := codec.DecodePair(had)
	if err == nil && is != r.want {
		err = fmt.Errorf("%w: map %q has %v, not %v", ErrCodec, r.name, is, r.want)
	}
	return r.s.wrap("open map", 0, err)
}

// ensure is check for who is about to write, and writes the row if it is missing. A nil row is
// that of no map. The caller holds mu.
func (r *catalogRow) ensure(g *generation) error {
	if r == nil {
		return nil
	}
	err := r.check(g)
	if err == ErrNotFound {
		_, err = r.s.appendOne(g, &codec.Entry{Key: r.key, Value: r.value()}, g.index.hash.sum(r.key))
	}
	return err
}
