//go:build linux && !386 && !arm

package main

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// runGet runs, for mmapkv, by turns with the two misses of limit.go too.
func runGet(b *bench) error {
	get := b.getter(newPicker(1, uint64(b.Keys)).next)
	if b.a.name == mmapkvAdapter.name {
		lookups, err := b.misses(b.Scratch)
		if err != nil {
			return err
		}
		got, err := b.byTurns(get, lookups(0))
		if err != nil {
			return err
		}
		b.out["of_limit"] = got[0] / got[1]
	}
	return b.reads(get)
}

func runGetAppend(b *bench) error {
	s := b.s.(appender)
	p := newPicker(1, uint64(b.Keys))
	key := make([]byte, keySize)
	var buf []byte
	return b.reads(func() (err error) {
		putKey(key, p.next())
		if buf, err = s.GetAppend(buf[:0], key); err != nil {
			return err
		}
		return check(buf, key, b.Value)
	})
}

func runView(b *bench) error {
	s := b.s.(viewer)
	p := newPicker(1, uint64(b.Keys))
	key := make([]byte, keySize)
	look := func(v []byte) error { return check(v, key, b.Value) }
	return b.reads(func() error {
		putKey(key, p.next())
		return s.View(key, look)
	})
}

func runGetZipf(b *bench) error {
	draws := zipf(uint64(b.Keys), 1<<20)
	i := 0
	return b.reads(b.getter(func() uint64 {
		i++
		return uint64(draws[i&(len(draws)-1)])
	}))
}

func runGetMiss(b *bench) error {
	p := newPicker(1, uint64(b.Keys))
	key := make([]byte, keySize)
	return b.reads(func() error {
		putKey(key, absent+p.next())
		switch _, err := b.s.Get(key); {
		case errors.Is(err, errMiss):
			return nil
		case err != nil:
			return err
		}
		return fmt.Errorf("key %x is there", key)
	})
}

func runGetTwo(b *bench) error {
	return b.oneAndTwo(func(seed uint64) func() error {
		return b.getter(newPicker(seed, uint64(b.Keys)).next)
	})
}

// oneAndTwo runs one goroutine and two by turns, each with an op that it has made itself: what
// one goroutine allocates in a row, as keys, shares cache lines.
func (b *bench) oneAndTwo(op func(seed uint64) func() error) error {
	var perOp [2][]float64
	var seed uint64
	for range 20 {
		for extra := range 2 {
			counts, errs := make([]int64, extra+1), make([]error, extra+1)
			var wg sync.WaitGroup
			start := time.Now()
			for g := range extra + 1 {
				seed++
				own := seed
				wg.Go(func() { counts[g], _, errs[g] = rate(b.Time/20, 1<<62, op(own)) })
			}
			wg.Wait()
			took := time.Since(start)
			if err := errors.Join(errs...); err != nil {
				return err
			}
			ops := int64(0)
			for _, n := range counts {
				ops += n
			}
			perOp[extra] = append(perOp[extra], float64(took)/float64(ops))
		}
	}
	b.out["single"], b.out["ns_op"] = median(perOp[0]), median(perOp[1])
	b.out["gain"] = b.out["single"] / b.out["ns_op"]
	return nil
}

// runGetMany reads n keys at once, and by turns one at a time.
func runGetMany(n int) func(b *bench) error {
	return func(b *bench) error {
		s := b.s.(manyGetter)
		p := newPicker(1, uint64(b.Keys))
		keys := make([][]byte, n)
		for i := range keys {
			keys[i] = make([]byte, keySize)
		}
		var buf []byte
		look := func(i int, v []byte, ok bool) error {
			if !ok {
				return errMiss
			}
			buf = append(buf[:0], v...) // the value is copied, as Get does
			return check(buf, keys[i], b.Value)
		}
		got, err := b.byTurns(b.getter(newPicker(2, uint64(b.Keys)).next), func() error {
			for _, key := range keys {
				putKey(key, p.next())
			}
			return s.GetMany(keys, look)
		})
		if err != nil {
			return err
		}
		b.out["single"], b.out["ns_op"] = got[0], got[1]/float64(n)
		return nil
	}
}

func runIterate(b *bench) error {
	var got byte
	passes, took, err := rate(b.Time, 1<<62, func() error {
		count := int64(0)
		err := b.s.Each(func(key, value []byte) error {
			count++
			got ^= value[0] ^ value[len(value)-1]
			if len(value) != b.Value || len(key) != keySize {
				return fmt.Errorf("key %x has %d bytes", key, len(value))
			}
			return nil
		})
		if err == nil && count != b.Keys {
			err = fmt.Errorf("%d entries, want %d", count, b.Keys)
		}
		return err
	})
	use(got)
	b.out["ns_op"] = float64(took) / float64(passes*b.Keys)
	return err
}
