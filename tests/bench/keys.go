//go:build linux && !386 && !arm

package main

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
)

const keySize = 16 // bytes of every key

// absent is added to a key's number for one that no store has.
const absent = 1 << 40

// mix is a permutation of the 64-bit numbers that leaves no pattern.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xBF58476D1CE4E5B9
	x ^= x >> 27
	x *= 0x94D049BB133111EB
	return x ^ x>>31
}

// putKey writes the i-th of the random keys to key[:keySize].
func putKey(key []byte, i uint64) {
	binary.BigEndian.PutUint64(key, mix(i+0x9E3779B97F4A7C15))
	binary.BigEndian.PutUint64(key[8:], mix(i+0xD1B54A32D192ED03))
}

// newValue returns a value that no compression makes smaller, without a stamp.
func newValue(size int) []byte {
	r := rand.New(rand.NewPCG(7, 11))
	v := make([]byte, size)
	for i := range v {
		v[i] = byte(r.Uint32())
	}
	return v
}

// stamp makes v a value of key: two bytes that stem from the key, at its ends, and six
// of the version behind the first. A store may notice that it is given the value which
// it has (SQLite does, and then writes nothing), so that no version is used twice.
func stamp(v, key []byte, version uint64) {
	binary.LittleEndian.PutUint64(v, uint64(key[0])|version<<8)
	v[len(v)-1] = key[keySize-1]
}

// check tells whether v may be the value of key: its length, and the two bytes that
// stem from the key, at its ends.
func check(v, key []byte, size int) error {
	if len(v) != size || v[0] != key[0] || v[size-1] != key[keySize-1] {
		return fmt.Errorf("a wrong value of %d bytes for key %x", len(v), key)
	}
	return nil
}

// picker draws numbers below n, each as likely as any other, at the cost of two
// multiplications and so without a cache miss of its own.
type picker struct{ state, n uint64 }

func newPicker(seed, n uint64) *picker { return &picker{mix(seed + 1), n} }

func (p *picker) next() uint64 {
	p.state += 0x9E3779B97F4A7C15
	hi, _ := bits.Mul64(mix(p.state), p.n)
	return hi
}

// zipf returns draws below n, a few of which come up very often (s = 1.01). They are
// drawn ahead, for a draw costs more than a lookup; the ranks are spread over all
// numbers, so that the frequent keys are not neighbours in any store.
func zipf(n uint64, draws int) []uint32 {
	z := rand.NewZipf(rand.New(rand.NewPCG(3, 5)), 1.01, 1, n-1)
	step := stride(n)
	out := make([]uint32, draws)
	for i := range out {
		hi, lo := bits.Mul64(z.Uint64(), step)
		_, rem := bits.Div64(hi%n, lo, n)
		out[i] = uint32(rem)
	}
	return out
}

// stride returns a number without a common factor with n: its multiples visit
// every number below n once, in an order far from theirs.
func stride(n uint64) uint64 {
	gcd := func(a, b uint64) uint64 {
		for b != 0 {
			a, b = b, a%b
		}
		return a
	}
	s := n*618/1000 | 1
	for gcd(s, n) != 1 {
		s += 2
	}
	return s
}

// batch holds keys and values of one transaction.
type batch struct {
	keys, values [][]byte
	n            int
	version      uint64 // of the next value
}

// groupSize is how many entries a transaction takes: 1000, or 4 MiB of values.
func groupSize(value int) int { return max(1, min(1000, 4<<20/value)) }

func newBatch(value int, version uint64) *batch {
	b := &batch{version: version}
	for range groupSize(value) {
		b.keys = append(b.keys, make([]byte, keySize))
		b.values = append(b.values, newValue(value))
	}
	return b
}

// add puts the i-th key and its value into the batch, and tells whether it is full.
func (b *batch) add(i uint64) bool {
	putKey(b.keys[b.n], i)
	stamp(b.values[b.n], b.keys[b.n], b.version)
	b.version++
	b.n++
	return b.n == len(b.keys)
}

// flush writes what was added.
func (b *batch) flush(s Store) error {
	n := b.n
	b.n = 0
	if g, ok := s.(batcher); ok {
		return g.PutBatch(b.keys[:n], b.values[:n])
	}
	for i := range n {
		if err := s.Put(b.keys[i], b.values[i]); err != nil {
			return err
		}
	}
	return nil
}
