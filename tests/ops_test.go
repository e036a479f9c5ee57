package tests

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

// op is one operation on a store, written in small numbers so that a list of
// them prints as Go that can be pasted into a test.
type op struct {
	Kind opKind
	Key  int  // see keyOf
	Size int  // bytes of the value
	Salt int  // tells values of one size apart
	Sub  []op // of a transaction or a GetMany
	End  int  // how a transaction, a computation or a swap ends
}

type opKind int

const (
	opPut opKind = iota
	opPutDurable
	opPutFuture
	opPutTTL
	opPutPast
	opDelete
	opGet
	opCompute
	opSwap
	opTx
	opGetMany
	opIterate
	opWriteTo
	opClear
	opSync
	opCompact
	opReopen
	opKill
	opSalvage
	opStats
	opKinds
)

var opNames = [opKinds]string{
	"opPut", "opPutDurable", "opPutFuture", "opPutTTL", "opPutPast", "opDelete", "opGet", "opCompute", "opSwap", "opTx",
	"opGetMany", "opIterate", "opWriteTo", "opClear", "opSync", "opCompact", "opReopen", "opKill", "opSalvage", "opStats",
}

// opWeights says how often each kind is drawn.
var opWeights = [opKinds]int{24, 2, 4, 3, 4, 12, 6, 8, 6, 10, 4, 3, 1, 1, 2, 2, 3, 3, 1, 2}

// Ends of operations that have several.
const (
	endOK = iota
	endErr
	endPanic
	endDurable
	ends
)

func (o op) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "{Kind: %s", opNames[o.Kind])
	for _, f := range []struct {
		name string
		n    int
	}{{"Key", o.Key}, {"Size", o.Size}, {"Salt", o.Salt}, {"End", o.End}} {
		if f.n != 0 {
			fmt.Fprintf(&b, ", %s: %d", f.name, f.n)
		}
	}
	if len(o.Sub) > 0 {
		b.WriteString(", Sub: " + list(o.Sub))
	}
	return b.String() + "}"
}

// list prints ops as a Go literal.
func list(ops []op) string {
	var b strings.Builder
	b.WriteString("[]op{")
	for i, o := range ops {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(o.String())
	}
	return b.String() + "}"
}

const keyIDs = 48

// keyOf is the key with that number: the empty one, some of the greatest length,
// some that are prefixes of others.
func keyOf(id int) []byte {
	switch id {
	case 0:
		return []byte{}
	case 1:
		return bytes.Repeat([]byte{0xff}, kv.MaxKeySize)
	case 2:
		return append(bytes.Repeat([]byte{0xff}, kv.MaxKeySize-1), 0)
	case 3:
		return bytes.Repeat([]byte{0}, 8)
	case 4:
		return bytes.Repeat([]byte("page"), 1024)
	}
	return []byte(strings.Repeat("k", 1+id%5) + fmt.Sprint(id))
}

// valueSizes are about where the store's layout changes: words, pages, the first
// extents, the sizes that take another varint byte, and a compaction's buffer.
var valueSizes = []int{
	0, 1, 2, 7, 8, 9, 100, 127, 128, 129, 500, 4000, 4050, 4064, 4096, 4097, 8192, 16383, 16384, 16385,
	28 << 10, 32<<10 - 40, 32 << 10, 64 << 10, 128<<10 - 30, 1<<20 - 60, 1 << 20, 1<<20 + 1, 3 << 20,
}

// valueOf is the value of that size and salt.
func valueOf(size, salt int) []byte {
	v := make([]byte, size, size+8)
	x := uint64(salt)*0x9E3779B97F4A7C15 + uint64(size) + 1
	for i := 0; i < size; i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(v[i:i+8:size+8], x)
	}
	return v
}

// source is where a generator's choices come from: below(n) is in [0, n).
type source interface {
	below(n int) int
	empty() bool
}

type randomSource struct{ *rand.Rand }

func newSource(seed int64) source      { return randomSource{rand.New(rand.NewPCG(uint64(seed), 7))} }
func (r randomSource) below(n int) int { return r.IntN(n) }
func (r randomSource) empty() bool     { return false }
func (b *byteSource) empty() bool      { return len(*b) == 0 }
func (b *byteSource) below(n int) (i int) {
	for range 2 {
		if len(*b) > 0 && (i == 0 || n > 256) {
			i = i<<8 | int((*b)[0])
			*b = (*b)[1:]
		}
		if n <= 256 {
			break
		}
	}
	return i % n
}

// byteSource takes the choices from a fuzzer's bytes; where they end, from zeros.
type byteSource []byte

// generate draws at most n operations.
func generate(src source, n int) []op {
	var ops []op
	for salt := 1; len(ops) < n && !src.empty(); salt++ {
		ops = append(ops, generateOne(src, salt))
	}
	return ops
}

func generateOne(src source, salt int) op {
	total := 0
	for _, w := range opWeights {
		total += w
	}
	at := src.below(total)
	o := op{Salt: salt}
	for at >= opWeights[o.Kind] {
		at -= opWeights[o.Kind]
		o.Kind++
	}
	switch o.Kind {
	case opTx:
		o.End = src.below(ends)
		for i := range 1 + src.below(8) {
			kinds := []opKind{opPut, opPut, opPutFuture, opPutTTL, opPutPast, opDelete, opGet}
			sub := op{Kind: kinds[src.below(len(kinds))], Salt: salt*100 + i}
			sub.Key, sub.Size = drawKey(src), drawSize(src)
			o.Sub = append(o.Sub, sub)
		}
	case opGetMany:
		for range src.below(100) {
			o.Sub = append(o.Sub, op{Kind: opGet, Key: drawKey(src)})
		}
	case opSync, opCompact, opReopen, opKill, opSalvage, opClear, opStats, opWriteTo:
	default:
		o.Key, o.Size, o.End = drawKey(src), drawSize(src), src.below(ends)
	}
	return o
}

func drawKey(src source) int { return src.below(keyIDs) }

// drawSize makes large values rare.
func drawSize(src source) int {
	if src.below(12) > 0 {
		return valueSizes[src.below(12)]
	}
	return valueSizes[src.below(len(valueSizes))]
}

// modelValue is what a Go map knows of a key. Past entries are absent, but the
// store may count them until a compaction.
type modelValue struct {
	value []byte
	past  bool
}

// place is where a runner's store is.
type place int

const (
	onDisk   place = iota
	inMemory       // for itself: no other handle follows, and there is no opening again
	handed         // in memory that other handles have
)

// runner applies operations to a store and to a map, and compares.
type runner struct {
	place    place
	path     string // of the store, or of files beside it
	memory   *os.File
	opts     kv.Options
	s        *kv.Store
	follower *kv.Store // read-only, or Shared as the store is, and follows all the time
	model    map[string]modelValue
	revision uint64
	copies   int
}

var errOfTx = errors.New("the transaction's own error")

func newRunner(at place, path string, opts kv.Options) (*runner, error) {
	r := &runner{place: at, path: path, opts: opts, model: make(map[string]modelValue)}
	if at == onDisk {
		return r, r.open()
	}
	s, err := kv.OpenMem(&opts)
	if err != nil || at == inMemory {
		r.s, r.follower = s, s
		return r, err
	}
	if r.memory, err = s.File(); err == nil {
		err = s.Close()
	}
	return r, errors.Join(err, r.open())
}

func (r *runner) open() (err error) {
	open := func(opts *kv.Options) (*kv.Store, error) { return kv.Open(r.path, opts) }
	if r.place == handed {
		open = func(opts *kv.Options) (*kv.Store, error) { return kv.OpenFile(r.memory, opts) }
	}
	if r.s, err = open(&r.opts); err == nil {
		r.follower, err = open(&kv.Options{ReadOnly: !r.opts.Shared, Shared: r.opts.Shared})
	}
	return err
}

func (r *runner) close() error {
	var err error
	if r.follower != nil {
		err = r.follower.Close()
	}
	if r.s != nil {
		err = errors.Join(err, r.s.Close())
	}
	return err
}

// run applies all operations, each followed by a look at the keys that it names,
// and by a look at everything every 16.
func (r *runner) run(ops []op) (int, error) {
	for i, o := range ops {
		if err := r.apply(o); err != nil {
			return i, fmt.Errorf("%v: %w", o, err)
		}
		for _, touched := range append([]op{o}, o.Sub...) {
			if err := r.checkKey(keyOf(touched.Key)); err != nil {
				return i, fmt.Errorf("after %v: %w", o, err)
			}
		}
		if i%16 == 15 || i == len(ops)-1 {
			if err := r.checkAll(); err != nil {
				return i, fmt.Errorf("after %v: %w", o, err)
			}
		}
	}
	return len(ops), nil
}

func (r *runner) apply(o op) error {
	key, value := keyOf(o.Key), valueOf(o.Size, o.Salt)
	switch o.Kind {
	case opPut:
		r.model[string(key)] = modelValue{value: value}
		return r.s.Put(key, value)
	case opPutDurable:
		r.model[string(key)] = modelValue{value: value}
		if err := r.s.PutDurable(key, value); err != nil {
			return err
		}
		if st := r.s.Stats(); st.DurableRevision < st.Revision {
			return fmt.Errorf("durable up to %d of %d", st.DurableRevision, st.Revision)
		}
		return nil
	case opPutFuture:
		r.model[string(key)] = modelValue{value: value}
		return r.s.PutUntil(key, value, time.Now().Add(1000*time.Hour))
	case opPutTTL:
		r.model[string(key)] = modelValue{value: value}
		return r.s.PutTTL(key, value, 1000*time.Hour)
	case opPutPast:
		r.model[string(key)] = modelValue{past: true}
		return r.s.PutUntil(key, value, time.Now().Add(-time.Hour))
	case opDelete:
		delete(r.model, string(key))
		return r.s.Delete(key)
	case opGet:
		return nil // every operation is followed by one
	case opCompute:
		return r.compute(o, key, value)
	case opSwap:
		return r.swap(o, key, value)
	case opTx:
		return r.update(o)
	case opGetMany:
		return r.getMany(o)
	case opIterate:
		return r.iterate(r.s, key)
	case opWriteTo:
		return r.writeTo()
	case opClear:
		err := r.s.Clear()
		if r.place == handed {
			return mustStay(err)
		}
		r.model = make(map[string]modelValue)
		return err
	case opSync:
		return r.s.Sync()
	case opCompact:
		return r.compactAll()
	case opReopen:
		return r.reopen()
	case opKill:
		if r.place != onDisk {
			return r.reopen()
		}
		return r.kill()
	case opSalvage:
		if r.place != onDisk {
			return r.writeTo()
		}
		return r.salvage()
	case opStats:
		return r.stats()
	}
	return fmt.Errorf("no such operation")
}

// mustStay wants err to be that of a store which others have in memory.
func mustStay(err error) error {
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return fmt.Errorf("%w, want ErrUnsupported", err)
}

func (r *runner) reopen() error {
	if r.place == inMemory {
		return nil
	}
	if err := r.close(); err != nil {
		return err
	}
	return errors.Join(r.open(), r.checkAll())
}

func (r *runner) live(key []byte) ([]byte, bool) {
	m, ok := r.model[string(key)]
	return m.value, ok && !m.past
}

func (r *runner) compute(o op, key, value []byte) (err error) {
	want, there := r.live(key)
	var seen error
	fn := func(old []byte, ok bool) ([]byte, kv.Op) {
		if ok != there || !bytes.Equal(old, want) {
			seen = fmt.Errorf("compute saw %d bytes, %v; want %d bytes, %v", len(old), ok, len(want), there)
		}
		switch o.End {
		case endErr:
			return nil, kv.Remove
		case endPanic:
			panic(errOfTx)
		case endDurable:
			return append([]byte("garbage"), value...), kv.Keep
		}
		return value, kv.Write
	}
	func() {
		defer func() {
			if p := recover(); p != nil && p != errOfTx {
				panic(p)
			}
		}()
		err = r.s.Compute(key, fn)
	}()
	switch o.End {
	case endErr:
		delete(r.model, string(key))
	case endOK:
		r.model[string(key)] = modelValue{value: value}
	}
	return errors.Join(err, seen)
}

// swap tries the right old value, or a wrong one, or absence.
func (r *runner) swap(o op, key, value []byte) error {
	old, there := r.live(key)
	expect := there
	switch o.End {
	case endErr: // wrong
		old, expect = append(append([]byte{}, old...), 'x'), false
	case endPanic: // absent
		old, expect = nil, !there
	case endDurable: // right, and removes
		value = nil
		if there && old == nil {
			old = []byte{}
		}
		expect = true
	default:
		if !there {
			old, expect = []byte{}, false
		}
	}
	swapped, err := r.s.CompareAndSwap(key, old, value)
	if err != nil {
		return err
	}
	if swapped != expect {
		return fmt.Errorf("swapped: %v, want %v", swapped, expect)
	}
	if swapped && value == nil {
		delete(r.model, string(key))
	} else if swapped {
		r.model[string(key)] = modelValue{value: value}
	}
	return nil
}

func (r *runner) update(o op) (err error) {
	next := make(map[string]modelValue, len(r.model))
	for k, v := range r.model {
		next[k] = v
	}
	fn := func(tx *kv.Tx) error {
		if o.End == endDurable {
			tx.Durable()
		}
		for _, sub := range o.Sub {
			if err := updateOne(tx, sub, next); err != nil {
				return err
			}
		}
		switch o.End {
		case endErr:
			return errOfTx
		case endPanic:
			panic(errOfTx)
		}
		return nil
	}
	func() {
		defer func() {
			if p := recover(); p != nil && p != errOfTx {
				panic(p)
			}
		}()
		err = r.s.Update(fn)
	}()
	switch o.End {
	case endErr:
		if err == errOfTx || errors.Is(err, errOfTx) {
			return nil
		}
		return fmt.Errorf("the error of the transaction came back as %w", err)
	case endPanic:
		return nil
	}
	if err == nil {
		r.model = next
	}
	return err
}

// updateOne does one step of a transaction and reads it back.
func updateOne(tx *kv.Tx, o op, next map[string]modelValue) (err error) {
	key, value := keyOf(o.Key), valueOf(o.Size, o.Salt)
	given := bytes.Clone(value)
	if given == nil {
		given = []byte{}
	}
	switch o.Kind {
	case opPut:
		next[string(key)] = modelValue{value: value}
		err = tx.Put(key, given)
	case opPutFuture:
		next[string(key)] = modelValue{value: value}
		err = tx.PutUntil(key, given, time.Now().Add(1000*time.Hour))
	case opPutTTL:
		next[string(key)] = modelValue{value: value}
		err = tx.PutTTL(key, given, 1000*time.Hour)
	case opPutPast:
		next[string(key)] = modelValue{past: true}
		err = tx.PutUntil(key, given, time.Now().Add(-time.Hour))
	case opDelete:
		delete(next, string(key))
		err = tx.Delete(key)
	}
	if err != nil {
		return err
	}
	clear(given) // the store must have copied it
	m, ok := next[string(key)]
	got, err := tx.Get(key)
	has, hasErr := tx.Has(key)
	if hasErr != nil || has != (ok && !m.past) {
		return fmt.Errorf("in the transaction key %d: has says %v, %v", o.Key, has, hasErr)
	}
	if !ok || m.past {
		if err != kv.ErrNotFound {
			return fmt.Errorf("in the transaction key %d: %v, want ErrNotFound", o.Key, err)
		}
		return nil
	}
	if err != nil || !bytes.Equal(got, m.value) {
		return fmt.Errorf("in the transaction key %d has %d bytes, %v; want %d", o.Key, len(got), err, len(m.value))
	}
	return nil
}

func (r *runner) getMany(o op) error {
	keys := make([][]byte, len(o.Sub))
	for i := range keys {
		keys[i] = keyOf(o.Sub[i].Key)
	}
	n := 0
	err := r.s.GetMany(keys, func(i int, value []byte, ok bool) error {
		want, there := r.live(keys[i])
		if i != n || ok != there || !bytes.Equal(value, want) {
			return fmt.Errorf("GetMany: call %d is for %d with %d bytes, %v; want %d, %v", n, i, len(value), ok, len(want), there)
		}
		n++
		return nil
	})
	if err == nil && n != len(keys) {
		err = fmt.Errorf("GetMany made %d calls for %d keys", n, len(keys))
	}
	return err
}

func (r *runner) iterate(s *kv.Store, prefix []byte) error {
	want := 0
	for k, m := range r.model {
		if strings.HasPrefix(k, string(prefix)) && !m.past {
			want++
		}
	}
	it := s.Iter(prefix)
	seen := make(map[string]bool)
	for k, v := range it.All() {
		value, there := r.live(k)
		if !there || !bytes.Equal(v, value) || !bytes.HasPrefix(k, prefix) || seen[string(k)] {
			return fmt.Errorf("iteration over %.20q yields %.40q with %d bytes, want %d bytes, %v, once", prefix, k, len(v), len(value), there)
		}
		seen[string(k)] = true
	}
	if it.Err() != nil {
		return it.Err()
	}
	if len(seen) != want {
		return fmt.Errorf("iteration over %.20q yields %d entries, want %d", prefix, len(seen), want)
	}
	return nil
}

// writeTo opens the copy that WriteTo writes, and compares it.
func (r *runner) writeTo() error {
	b, err := copyOf(r.s)
	if err != nil {
		return err
	}
	path := filepath.Join(filepath.Dir(r.path), "copy")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	defer os.Remove(path)
	c, err := kv.Open(path, nil)
	if err != nil {
		return err
	}
	return errors.Join(r.iterate(c, nil), sound(c), c.Close())
}

func (r *runner) compactAll() error {
	info, err := r.s.Compact(context.Background())
	if r.place == handed {
		return mustStay(err)
	}
	if err != nil {
		return err
	}
	keys := int64(0)
	for k, m := range r.model {
		if m.past {
			delete(r.model, k)
		} else {
			keys++
		}
	}
	if info.Keys != keys || r.s.Len() != int(keys) {
		return fmt.Errorf("compaction left %d keys, Len says %d, want %d", info.Keys, r.s.Len(), keys)
	}
	if st := r.s.Stats(); st.DeadBytes != 0 || st.Records != keys {
		return fmt.Errorf("after compaction %d bytes are dead and %d records there", st.DeadBytes, st.Records)
	}
	return nil
}

// kill goes on with a copy of the file as it is while the store is open: the
// image that the death of the process leaves.
func (r *runner) kill() error {
	b, err := os.ReadFile(r.path)
	if err != nil {
		return err
	}
	if err := r.close(); err != nil {
		return err
	}
	r.copies++
	image := fmt.Sprintf("%s.%d", r.path, r.copies)
	if err := os.WriteFile(image, b, 0o600); err != nil {
		return err
	}
	if err := os.Rename(image, r.path); err != nil {
		return err
	}
	return errors.Join(r.open(), r.checkAll())
}

// salvage opens a copy of the file, to which nothing happened, for salvage.
func (r *runner) salvage() error {
	b, err := os.ReadFile(r.path)
	if err != nil {
		return err
	}
	path := filepath.Join(filepath.Dir(r.path), "salvage")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	defer os.Remove(path)
	c, err := kv.Open(path, &kv.Options{Salvage: true})
	if err != nil {
		return err
	}
	defer c.Close()
	if m := c.Stats().Missing; len(m) > 0 {
		return fmt.Errorf("salvage of a sound store misses %v", m)
	}
	return r.iterate(c, nil)
}

func (r *runner) stats() error {
	st := r.s.Stats()
	live, past := r.counts()
	switch {
	case st.Revision < r.revision:
		return fmt.Errorf("revision went from %d to %d", r.revision, st.Revision)
	case st.DurableRevision > st.Revision:
		return fmt.Errorf("durable up to %d of %d", st.DurableRevision, st.Revision)
	case st.Tail > st.FileBytes || st.DurableTail > st.Tail:
		return fmt.Errorf("durable tail %d, tail %d, file %d", st.DurableTail, st.Tail, st.FileBytes)
	case st.LiveBytes < 0 || st.DeadBytes < 0 || st.LiveBytes+st.DeadBytes > st.Tail:
		return fmt.Errorf("live %d and dead %d bytes below tail %d", st.LiveBytes, st.DeadBytes, st.Tail)
	case int(st.Keys) < live || int(st.Keys) > live+past:
		return fmt.Errorf("%d keys, want %d to %d", st.Keys, live, live+past)
	case st.Poisoned != nil || len(st.Missing) > 0:
		return fmt.Errorf("poisoned: %v, missing: %v", st.Poisoned, st.Missing)
	}
	r.revision = st.Revision
	return nil
}

func (r *runner) counts() (live, past int) {
	for _, m := range r.model {
		if m.past {
			past++
		} else {
			live++
		}
	}
	return live, past
}

// checkKey reads key in every way, also through the follower.
func (r *runner) checkKey(key []byte) error {
	want, there := r.live(key)
	for name, s := range map[string]*kv.Store{"store": r.s, "follower": r.follower} {
		got, err := s.Get(key)
		if there && (err != nil || !bytes.Equal(got, want)) || !there && err != kv.ErrNotFound {
			return fmt.Errorf("%s: get %.20q: %d bytes, %v; want %d bytes, %v", name, key, len(got), err, len(want), there)
		}
		if there && got == nil {
			return fmt.Errorf("%s: get %.20q returned nil for a value", name, key)
		}
		if has, err := s.Has(key); has != there || err != nil {
			return fmt.Errorf("%s: has %.20q: %v, %v", name, key, has, err)
		}
		dst, err := s.GetAppend([]byte("dst"), key)
		if (err == nil) != there || string(dst) != "dst"+string(want) {
			return fmt.Errorf("%s: GetAppend %.20q: %d bytes, %v", name, key, len(dst), err)
		}
		err = s.View(key, func(v []byte) error {
			if !bytes.Equal(v, want) {
				return fmt.Errorf("%s: view of %.20q differs", name, key)
			}
			return nil
		})
		if there && err != nil || !there && err != kv.ErrNotFound {
			return err
		}
	}
	return nil
}

// checkAll compares everything, and verifies.
func (r *runner) checkAll() error {
	if r.s == nil || r.follower == nil {
		return errors.New("not open")
	}
	return errors.Join(r.iterate(r.s, nil), r.iterate(r.follower, nil), r.stats(), sound(r.s), sound(r.follower))
}

// sound returns the violations that Verify finds as an error.
var errUnsound = errors.New("violations")

func sound(s *kv.Store) error {
	report, err := s.Verify(context.Background())
	if err == nil && len(report.Violations) > 0 {
		err = fmt.Errorf("%w: %v", errUnsound, report.Violations)
	}
	return err
}
