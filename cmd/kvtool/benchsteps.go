package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// The steps of the benchmark. Each measures the store, and after that what stands
// beside it, with the same keys in the same order; what is read is compared, so that no
// compiler leaves it out.

const (
	benchKeySize  = 16
	benchValueMin = 8 // bytes of the stamp
)

type benchKey [benchKeySize]byte

// keyOf is the i-th of the keys, which come in no order.
func keyOf(i uint64) (key benchKey) {
	binary.BigEndian.PutUint64(key[:], scatter(i+0x9E3779B97F4A7C15))
	binary.BigEndian.PutUint64(key[8:], scatter(i+0xD1B54A32D192ED03))
	return key
}

// scatter is a permutation of the 64-bit numbers that leaves no pattern.
func scatter(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xBF58476D1CE4E5B9
	x ^= x >> 27
	x *= 0x94D049BB133111EB
	return x ^ x>>31
}

// newValue returns a value of bytes without a pattern, and without a stamp.
func (b *bench) newValue() []byte {
	r := rand.New(rand.NewPCG(7, 11))
	v := make([]byte, b.valueSize)
	for i := range v {
		v[i] = byte(r.Uint32())
	}
	return v
}

// stamp makes v the value of key: its first bytes are the key's.
func stamp(v []byte, key *benchKey) { copy(v[:benchValueMin], key[:]) }

// checkValue tells whether v is the value of key, as far as the stamp says.
func (b *bench) checkValue(v []byte, key []byte) error {
	if len(v) != b.valueSize || string(v[:benchValueMin]) != string(key[:benchValueMin]) {
		return fmt.Errorf("a wrong value of %d bytes for key %x: please report this", len(v), key)
	}
	return nil
}

// inOrder returns a draw of the keys one by one, atRandom one of any.
func (b *bench) inOrder() func() benchKey {
	i := uint64(0)
	return func() benchKey { i++; return keyOf(i - 1) }
}

func (b *bench) atRandom() func() benchKey {
	r := rand.NewPCG(3, 5)
	return func() benchKey { return keyOf(r.Uint64() % uint64(b.keys)) }
}

// puts returns an operation that puts the next of the drawn keys.
func (b *bench) puts(draw func() benchKey, put func(key, value []byte) error) func() error {
	value := b.newValue()
	return func() error {
		key := draw()
		stamp(value, &key)
		return put(key[:], value)
	}
}

func (b *bench) fill() error {
	ns, err := b.all(b.puts(b.inOrder(), b.s.Put))
	if err != nil {
		return err
	}
	size := benchKeySize + b.valueSize
	memory := make([]byte, b.keys*int64(size))
	for i := 0; i < len(memory); i += os.Getpagesize() {
		memory[i] = 1 // the system gives it now, and not while it is measured
	}
	at := memory
	beside, err := b.all(b.puts(b.inOrder(), func(key, value []byte) error {
		copy(at, key)
		copy(at[len(key):], value)
		at = at[size:]
		return nil
	}))
	if err == nil && memory[len(memory)-1] != b.newValue()[b.valueSize-1] && b.valueSize > benchValueMin {
		err = errors.New("the memory does not hold what was copied there: please report this")
	}
	b.row("fill", ns, beside, "copying into memory")
	return err
}

// goMap returns a map of all keys, each with a value of its own.
func (b *bench) goMap() map[benchKey][]byte {
	m := make(map[benchKey][]byte, b.keys)
	pattern := b.newValue()
	memory := make([]byte, b.keys*int64(b.valueSize))
	draw := b.inOrder()
	for range b.keys {
		key := draw()
		v := memory[:b.valueSize:b.valueSize]
		memory = memory[b.valueSize:]
		copy(v, pattern)
		stamp(v, &key)
		m[key] = v
	}
	return m
}

func (b *bench) get() error {
	var buf []byte
	draw := b.atRandom()
	ns, err := b.rate(1<<62, func() (err error) {
		key := draw()
		if buf, err = b.s.GetAppend(buf[:0], key[:]); err != nil {
			return err
		}
		return b.checkValue(buf, key[:])
	})
	if err != nil {
		return err
	}
	m := b.goMap()
	draw = b.atRandom()
	beside, err := b.rate(1<<62, func() error {
		key := draw()
		buf = append(buf[:0], m[key]...)
		return b.checkValue(buf, key[:])
	})
	b.row("get", ns, beside, "a Go map")
	return err
}

// iterate measures loops over all entries; what counts is the entry.
func (b *bench) iterate() error {
	ns, err := b.rate(1<<62, func() error {
		found := int64(0)
		it := b.s.Iter(nil)
		for key, value := range it.All() {
			if err := b.checkValue(value, key); err != nil {
				return err
			}
			found++
		}
		return errors.Join(it.Err(), b.checkCount(found))
	})
	if err != nil {
		return err
	}
	m := b.goMap()
	beside, err := b.rate(1<<62, func() error {
		found := int64(0)
		for key, value := range m {
			if err := b.checkValue(value, key[:]); err != nil {
				return err
			}
			found++
		}
		return b.checkCount(found)
	})
	b.row("iterate", ns/float64(b.keys), beside/float64(b.keys), "a Go map")
	return err
}

func (b *bench) checkCount(found int64) error {
	if found != b.keys {
		return fmt.Errorf("%d entries of %d were found: please report this", found, b.keys)
	}
	return nil
}

// overwrite puts no more often than there are keys, so that the log grows to twice its
// length at most.
func (b *bench) overwrite() error {
	ns, err := b.rate(b.keys, b.puts(b.atRandom(), b.s.Put))
	if err != nil {
		return err
	}
	m := b.goMap()
	beside, err := b.rate(b.keys, b.puts(b.atRandom(), func(key, value []byte) error {
		copy(m[benchKey(key)], value)
		return nil
	}))
	b.row("overwrite", ns, beside, "a Go map")
	return err
}

func (b *bench) durable() error {
	ns, err := b.rate(b.keys, b.puts(b.atRandom(), b.s.PutDurable))
	if err != nil {
		return err
	}
	p, err := newSyncedPage(filepath.Join(b.dir, "page"))
	if err != nil {
		return err
	}
	defer p.f.Close()
	beside, err := b.rate(1<<62, p.write)
	b.row("durable", ns, beside, "writing 4 KiB until they are on the device")
	return err
}

// syncedPage writes a page of a file that has its space already.
type syncedPage struct {
	f    *os.File
	page [4096]byte
	at   int64
}

const syncedPages = 256 // of the file, which are written by turns

func newSyncedPage(path string) (*syncedPage, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR|dsync, 0o600)
	if err != nil {
		return nil, err
	}
	p := &syncedPage{f: f}
	if _, err = f.Write(make([]byte, syncedPages*len(p.page))); err == nil {
		err = f.Sync()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

// write writes the next page and waits until it is on the device.
func (p *syncedPage) write() error {
	p.page[0]++
	_, err := p.f.WriteAt(p.page[:], p.at%syncedPages*int64(len(p.page)))
	p.at++
	if err == nil && dsync == 0 {
		err = p.f.Sync()
	}
	return err
}
