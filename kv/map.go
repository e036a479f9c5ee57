package kv

import (
	"fmt"
	"io/fs"
	"iter"
	"runtime"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// Map is a persistent map with keys and values of Go types, in a Store of its own or beside
// other maps in one. Its methods may be called from any number of goroutines, and each is
// atomic, between processes too (see Options.Shared). What they return belongs to the caller.
//
// The verbs are those of sync.Map, with an error beside each result, since a disk may fail. A
// key that is absent is ErrNotFound from Get, and ok false elsewhere: never a zero value.
type Map[K comparable, V any] struct {
	s       *Store
	name    string
	prefix  []byte // of its keys in the store
	row     *catalogRow
	keys    codec.Codec[K]
	values  codec.Codec[V]
	owns    bool // the store: Close closes it
	buffers sync.Pool
}

// buffer is for the bytes of one key and one value.
type buffer struct{ key, value []byte }

// maxBuffer is how large a buffer may be that is kept.
const maxBuffer = 64 << 10

// MaxNameLen bounds the name of a map, in bytes.
const MaxNameLen = 255

// OpenMap opens the store at path, as Open does, as one map whose codecs go by the types:
// string, []byte, bool, integers, floats, time.Time, protobuf messages, and types that marshal
// themselves to binary or to text, in this order. Any other type is an error: NewMap takes its
// codec, such as codec.JSON. Close closes the store too. Errors are those of Open, and ErrCodec
// where the map was written with other codecs.
//
// The store may have other maps: that of OpenMap is the one with an empty name.
func OpenMap[K comparable, V any](path string, opts *Options) (*Map[K, V], error) {
	keys, err := codec.Of[K]()
	if err != nil {
		return nil, wrapError("open", path, 0, err)
	}
	values, err := codec.Of[V]()
	if err != nil {
		return nil, wrapError("open", path, 0, err)
	}
	s, err := Open(path, opts)
	if err != nil {
		return nil, err
	}
	m, err := newMap(s, "", keys, values)
	if err != nil {
		s.Close()
		return nil, err
	}
	m.owns = true
	return m, nil
}

// NewMap returns the map of that name in s, which has any number of them; maps of different
// names share no key. The name is UTF-8 without a zero byte, of at most MaxNameLen bytes, and
// may be empty. The names of the codecs are kept with the map: with others it is ErrCodec. A
// map that nobody has opened before is noted in the store, by a write. Where s is ReadOnly it is
// empty until somebody does, and ErrCodec from then on if that was with other codecs. So it is
// with a map that was open when others cleared the store.
func NewMap[K comparable, V any](s *Store, name string, keys codec.Codec[K], values codec.Codec[V]) (*Map[K, V], error) {
	if len(name) > MaxNameLen || !utf8.ValidString(name) || strings.Contains(name, "\x00") {
		return nil, s.wrap("open map", 0, fmt.Errorf("%w: %.300q is no name for a map", fs.ErrInvalid, name))
	}
	return newMap(s, name, keys, values)
}

func newMap[K comparable, V any](s *Store, name string, keys codec.Codec[K], values codec.Codec[V]) (*Map[K, V], error) {
	m := &Map[K, V]{s: s, name: name, prefix: append([]byte(name), 0), keys: keys, values: values}
	m.buffers.New = func() any { return new(buffer) }
	m.row = newCatalogRow(s, name, codec.Pair{Keys: keys.Name(), Values: values.Name()})
	if err := m.row.open(); err != nil {
		return nil, err
	}
	return m, nil
}

// Store returns the store that the map is in.
func (m *Map[K, V]) Store() *Store { return m.s }

// Name returns the name of the map.
func (m *Map[K, V]) Name() string { return m.name }

// Close closes the store of a map that OpenMap opened, as Store.Close does; of another map it
// does nothing, for its store may have others.
func (m *Map[K, V]) Close() error {
	if !m.owns {
		return nil
	}
	return m.s.Close()
}

// Sync is Store.Sync.
func (m *Map[K, V]) Sync() error { return m.s.Sync() }

// key returns the bytes of key in the store, in a buffer that is to be released.
func (m *Map[K, V]) key(op string, key K) (*buffer, error) {
	b := m.buffers.Get().(*buffer)
	var err error
	if b.key, err = m.keys.Append(append(b.key[:0], m.prefix...), key); err != nil {
		m.release(b)
		return nil, m.s.wrap(op, 0, fmt.Errorf("key: %w", err))
	}
	return b, nil
}

// entry returns the bytes of key and value, in a buffer that is to be released.
func (m *Map[K, V]) entry(op string, key K, v V) (*buffer, error) {
	b, err := m.key(op, key)
	if err != nil {
		return nil, err
	}
	if b.value, err = m.values.Append(b.value[:0], v); err != nil {
		m.release(b)
		return nil, m.s.wrap(op, 0, fmt.Errorf("value: %w", err))
	}
	return b, nil
}

func (m *Map[K, V]) release(b *buffer) {
	if cap(b.key) <= maxBuffer && cap(b.value) <= maxBuffer {
		m.buffers.Put(b)
	}
}

// Get returns the value of key, or ErrNotFound. It costs what Store.View and the codecs cost: of
// numbers it allocates nothing, of strings and bytes the value.
func (m *Map[K, V]) Get(key K) (v V, err error) {
	b, err := m.key("get", key)
	if err != nil {
		return v, err
	}
	defer m.release(b)
	g, err := m.enter("get")
	if err != nil {
		return v, err
	}
	v, err = m.decodeAt(g, b.key)
	runtime.KeepAlive(g)
	return v, m.s.wrapFault("get", err)
}

// enter is Store.enter for a read of the map. ErrNotFound: it is empty, and may have other codecs
// by the time of the read.
func (m *Map[K, V]) enter(op string) (*generation, error) {
	g, err := m.s.enter()
	if err != nil {
		return nil, m.s.wrap(op, 0, err)
	}
	return g, m.row.check(g)
}

func (m *Map[K, V]) decodeAt(g *generation, key []byte) (v V, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	value, err := m.s.valueAt("get", g, g.find(g.index.hash.sum(key), key))
	if err != nil {
		return v, err
	}
	return m.decode("get", value)
}

// decode returns the value that b are the bytes of.
func (m *Map[K, V]) decode(op string, b []byte) (V, error) {
	v, err := m.values.Decode(b)
	if err != nil {
		return v, m.s.wrap(op, 0, fmt.Errorf("value: %w", err))
	}
	return v, nil
}

// GetOr returns the value of key, or other if it is absent.
func (m *Map[K, V]) GetOr(key K, other V) (V, error) {
	v, err := m.Get(key)
	if err == ErrNotFound {
		return other, nil
	}
	return v, err
}

// Has tells whether key is present. The value is not decoded.
func (m *Map[K, V]) Has(key K) (bool, error) {
	b, err := m.key("has", key)
	if err != nil {
		return false, err
	}
	defer m.release(b)
	g, err := m.enter("has")
	if err == nil {
		err = m.s.readGuarded("has", g, b.key, func([]byte) error { return nil })
		runtime.KeepAlive(g)
	}
	if err == ErrNotFound {
		return false, nil
	}
	return err == nil, m.s.wrapFault("has", err)
}

// Put sets key to v, as Store.Put does.
func (m *Map[K, V]) Put(key K, v V) error {
	b, err := m.entry("put", key, v)
	if err != nil {
		return err
	}
	defer m.release(b)
	return m.s.write("put", &codec.Entry{Key: b.key, Value: b.value}, m.row, false)
}

// PutTTL is Put of an entry that is absent again ttl from now, as with Store.PutTTL.
func (m *Map[K, V]) PutTTL(key K, v V, ttl time.Duration) error {
	expiry, err := m.s.clock.after(ttl)
	if err != nil {
		return m.s.wrap("put", 0, err)
	}
	b, err := m.entry("put", key, v)
	if err != nil {
		return err
	}
	defer m.release(b)
	return m.s.write("put", &codec.Entry{Key: b.key, Value: b.value, Expiry: expiry}, m.row, false)
}

// Delete removes key. An absent key is no error.
func (m *Map[K, V]) Delete(key K) error {
	b, err := m.key("delete", key)
	if err != nil {
		return err
	}
	defer m.release(b)
	return m.s.write("delete", &codec.Entry{Key: b.key, Kind: codec.Delete}, m.row, false)
}

// Compute reads key, calls fn with its value, and does what fn says, as one atomic step. The
// conditions are those of Store.Compute.
func (m *Map[K, V]) Compute(key K, fn func(old V, ok bool) (V, Op)) error {
	return m.compute("compute", key, func(old V, ok bool) (V, Op, error) {
		v, op := fn(old, ok)
		return v, op, nil
	})
}

// compute is Compute of a function that may fail: then nothing happens, and it returns the error.
func (m *Map[K, V]) compute(op string, key K, fn func(old V, ok bool) (V, Op, error)) error {
	b, err := m.key(op, key)
	if err != nil {
		return err
	}
	defer m.release(b)
	var fnErr error
	err = m.s.computeOf(op, b.key, m.row, func(was []byte, ok bool) ([]byte, Op) {
		var old, v V
		do := Keep
		if ok {
			if old, fnErr = m.decode(op, was); fnErr != nil {
				return nil, Keep
			}
		}
		if v, do, fnErr = fn(old, ok); fnErr != nil {
			return nil, Keep
		}
		if do != Write {
			return nil, do
		}
		if b.value, fnErr = m.values.Append(b.value[:0], v); fnErr != nil {
			fnErr = m.s.wrap(op, 0, fmt.Errorf("value: %w", fnErr))
			return nil, Keep
		}
		return b.value, Write
	})
	if fnErr != nil {
		return fnErr
	}
	return err
}

// LoadOrStore returns the value of key if it is present, and else sets it to v, without a
// deadline. loaded tells which. It waits for its turn as a write does.
func (m *Map[K, V]) LoadOrStore(key K, v V) (actual V, loaded bool, err error) {
	err = m.Compute(key, func(old V, ok bool) (V, Op) {
		if actual, loaded = old, ok; ok {
			return old, Keep
		}
		actual = v
		return v, Write
	})
	return actual, loaded && err == nil, err
}

// LoadAndDelete removes key, and returns the value that it had, if it was present. One that cannot
// be decoded stays, and is an error, as with all that read before they write; Delete removes it.
func (m *Map[K, V]) LoadAndDelete(key K) (v V, loaded bool, err error) {
	err = m.Compute(key, func(old V, ok bool) (V, Op) {
		v, loaded = old, ok
		return old, Remove
	})
	return v, loaded && err == nil, err
}

// Swap sets key to v, without a deadline, and returns the value that it had, if it was present.
func (m *Map[K, V]) Swap(key K, v V) (previous V, loaded bool, err error) {
	err = m.Compute(key, func(old V, ok bool) (V, Op) {
		previous, loaded = old, ok
		return v, Write
	})
	return previous, loaded && err == nil, err
}

// CompareAndSwap sets key to new, without a deadline, if its value == old, and tells whether it
// did. An absent key has no value. For values that are not comparable there is Compute.
func CompareAndSwap[K, V comparable](m *Map[K, V], key K, old, new V) (swapped bool, err error) {
	err = m.Compute(key, func(now V, ok bool) (V, Op) {
		if swapped = ok && now == old; !swapped {
			return now, Keep
		}
		return new, Write
	})
	return swapped && err == nil, err
}

// Add adds delta to the number at key, an absent one counting as 0, and returns the sum. Where
// an integer overflows, nothing is written, and the error matches ErrTooLarge.
func Add[K comparable, V interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~float32 | ~float64
}](m *Map[K, V], key K, delta V) (sum V, err error) {
	err = m.compute("add", key, func(old V, _ bool) (V, Op, error) {
		sum = old + delta
		if delta > 0 && sum < old || delta < 0 && sum > old {
			return old, Keep, m.s.wrap("add", 0, fmt.Errorf("%w: %v and %v do not fit together", ErrTooLarge, old, delta))
		}
		return sum, Write, nil
	})
	if err != nil {
		return 0, err
	}
	return sum, nil
}

// Collect returns all entries as a Go map: a snapshot, at the cost of an Iter and of the memory
// that they take. With an error the map has those that came before it.
func Collect[K comparable, V any](m *Map[K, V]) (map[K]V, error) {
	all := make(map[K]V)
	it := m.Iter()
	for k, v := range it.All() {
		all[k] = v
	}
	return all, it.Err()
}

// Update runs fn with a transaction of this map: all or nothing, as Store.Update. For one over
// several maps, run Store.Update and wrap its Tx with In.
func (m *Map[K, V]) Update(fn func(tx *MapTx[K, V]) error) error {
	return m.s.Update(func(tx *Tx) error { return fn(m.In(tx)) })
}

// In returns the part of a transaction that is this map's. tx must be one of the map's own store:
// else the methods of what it returns fail with fs.ErrInvalid.
func (m *Map[K, V]) In(tx *Tx) *MapTx[K, V] {
	t := &MapTx[K, V]{m: m, tx: tx}
	t.row, t.err = m.row.in(tx)
	return t
}

// MapTx is a transaction of a Map. The conditions are those of Tx.
type MapTx[K comparable, V any] struct {
	m   *Map[K, V]
	tx  *Tx
	row []byte // what the catalog lacks of the map; goes with the first entry
	err error  // why it is not to be used
}

// Get returns the value of key, as the transaction sees it, or ErrNotFound.
func (t *MapTx[K, V]) Get(key K) (v V, err error) {
	b, err := t.key("get", key)
	if err != nil {
		return v, err
	}
	defer t.m.release(b)
	value, err := t.tx.Get(b.key)
	if err != nil {
		return v, err
	}
	return t.m.decode("get", value)
}

// Has tells whether key is present, as the transaction sees it.
func (t *MapTx[K, V]) Has(key K) (bool, error) {
	b, err := t.key("has", key)
	if err != nil {
		return false, err
	}
	defer t.m.release(b)
	return t.tx.Has(b.key)
}

// Put sets key to v when the transaction ends.
func (t *MapTx[K, V]) Put(key K, v V) error {
	b, err := t.entry("put", key, v)
	if err != nil {
		return err
	}
	defer t.m.release(b)
	return t.tx.Put(b.key, b.value)
}

// PutTTL is Put of an entry that is absent again ttl from now.
func (t *MapTx[K, V]) PutTTL(key K, v V, ttl time.Duration) error {
	b, err := t.entry("put", key, v)
	if err != nil {
		return err
	}
	defer t.m.release(b)
	return t.tx.PutTTL(b.key, b.value, ttl)
}

// Delete removes key when the transaction ends. An absent key is no error.
func (t *MapTx[K, V]) Delete(key K) error {
	b, err := t.key("delete", key)
	if err != nil {
		return err
	}
	defer t.m.release(b)
	return t.tx.Delete(b.key)
}

func (t *MapTx[K, V]) key(op string, key K) (*buffer, error) {
	if t.err != nil {
		return nil, t.err
	}
	return t.m.key(op, key)
}

// entry is Map.entry of what is put into the transaction, which then has the map's row too.
func (t *MapTx[K, V]) entry(op string, key K, v V) (*buffer, error) {
	if t.err != nil {
		return nil, t.err
	}
	if t.row != nil {
		if err := t.tx.Put(t.m.row.key, t.row); err != nil {
			return nil, err
		}
		t.row = nil
	}
	return t.m.entry(op, key, v)
}

// MapIter is a consistent snapshot of a Map, for one loop.
type MapIter[K comparable, V any] struct {
	m   *Map[K, V]
	it  *Iter
	err error
}

// Iter returns the entries as they are now, whatever is written meanwhile: see Store.Iter for
// what it costs.
func (m *Map[K, V]) Iter() *MapIter[K, V] { return &MapIter[K, V]{m: m, it: m.snapshot()} }

// snapshot is an Iter over the bytes of the map.
func (m *Map[K, V]) snapshot() *Iter {
	it := m.s.Iter(m.prefix)
	if it.err == nil {
		if err := m.row.check(it.view.g); err != nil && err != ErrNotFound {
			it.view.snap.release()
			it.view, it.err = nil, err
		}
	}
	return it
}

// All yields each entry, in the order in which they were last written. The body may use the
// map. What cannot be read or decoded ends the loop, with an error. A second loop yields
// nothing, and Err is then ErrClosed.
func (it *MapIter[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		it.err = nil
		for kb, vb := range it.it.All() {
			k, err := it.m.keys.Decode(kb[len(it.m.prefix):])
			if err != nil {
				it.err = it.m.s.wrap("iterate", 0, fmt.Errorf("key: %w", err))
				return
			}
			v, err := it.m.decode("iterate", vb)
			if err != nil {
				it.err = err
				return
			}
			if !yield(k, v) {
				return
			}
		}
	}
}

// Err returns why the loop ended early, or nil.
func (it *MapIter[K, V]) Err() error {
	if it.err != nil {
		return it.err
	}
	return it.it.Err()
}

// Len counts the entries: at the cost of a walk over all that the store has.
func (m *Map[K, V]) Len() (n int, err error) {
	it := m.snapshot()
	for range it.All() {
		n++
	}
	return n, it.Err()
}

// Clear removes all entries of the map, as one transaction, and leaves other maps of the store
// alone: at the cost of a walk over all that the store has, and of a tombstone for each. ErrTooLarge:
// their keys are more than a transaction holds.
func (m *Map[K, V]) Clear() error {
	return m.s.Update(func(tx *Tx) error {
		it := m.snapshot()
		for k := range it.All() {
			if err := tx.Delete(k); err != nil {
				return err
			}
		}
		return it.Err()
	})
}
