//go:build linux && !386 && !arm

package main

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

func runFill(b *bench) error       { return b.fill(b.a.grouped) }
func runFillSingle(b *bench) error { return b.fill(false) }

// fill fills a store without a look at the clock, and, if puts are single and there
// is time for it, another with one after each put.
func (b *bench) fill(grouped bool) error {
	s, err := b.open(b.Dir, false, 1)
	if err != nil {
		return err
	}
	b.started()
	start := time.Now()
	if err := b.fillWith(s, grouped); err != nil {
		return err
	}
	took := time.Since(start)
	b.out["ns_op"] = float64(took) / float64(b.Keys)
	if err := s.Close(); err != nil {
		return err
	}
	if grouped || took > b.Limit/3 {
		return nil
	}
	if err := os.RemoveAll(b.Dir); err != nil {
		return err
	}
	if s, err = b.open(b.Scratch, false, 1); err != nil {
		return err
	}
	var h histogram
	i := uint64(0)
	put := b.putter(s, func() uint64 { i++; return i - 1 })
	last := time.Now()
	for range b.Keys {
		if err := put(); err != nil {
			return err
		}
		now := time.Now()
		h.add(now.Sub(last))
		last = now
	}
	h.into(b.out, "")
	return s.Close()
}

// runCheckpoint fills stores that take checkpoints and stores that take none, by turns.
func runCheckpoint(b *bench) error {
	b.started()
	var took, busy [2][]float64 // with, without
	fill := func(turn int) error {
		c := b.cfg
		c.withoutCheckpoints = turn == 1
		s, err := b.a.open(b.Dir, c)
		if err != nil {
			return err
		}
		start := time.Now()
		_, before := cpuTime()
		if err := b.fillWith(s, false); err != nil {
			return err
		}
		_, after := cpuTime()
		took[turn] = append(took[turn], float64(time.Since(start)))
		busy[turn] = append(busy[turn], float64(after-before))
		if err := s.Close(); err != nil {
			return err
		}
		if err := os.RemoveAll(b.Dir); err != nil {
			return err
		}
		return os.Mkdir(b.Dir, 0o700)
	}
	end := time.Now().Add(4 * b.Time)
	for len(took[0]) < 3 || len(took[0]) < 9 && time.Now().Before(end) {
		for turn := range took {
			if err := fill(turn); err != nil {
				return err
			}
		}
	}
	b.out["checkpoint"] = median(took[0]) / median(took[1])
	b.out["checkpoint_cpu"] = median(busy[0]) / median(busy[1])
	return nil
}

func runOverwrite(b *bench) error {
	p := newPicker(1, uint64(b.Keys))
	if !b.a.grouped {
		return b.writes(b.putter(b.s, p.next))
	}
	g := newBatch(b.Value, b.version)
	ops, took, err := rate(b.Time, 1<<62, func() error {
		for !g.add(p.next()) {
		}
		return g.flush(b.s)
	})
	b.out["ns_op"] = float64(took) / float64(ops*int64(len(g.keys)))
	return err
}

func runMixed(puts uint64) func(b *bench) error {
	return func(b *bench) error {
		p, coin := newPicker(1, uint64(b.Keys)), newPicker(2, 100)
		get, put := b.getter(p.next), b.putter(b.s, p.next)
		return b.writes(func() error {
			if coin.next() < puts {
				return put()
			}
			return get()
		})
	}
}

func runDelete(b *bench) error {
	n := uint64(b.Keys)
	i, step := uint64(0), stride(n)
	key := make([]byte, keySize)
	del := func() error {
		putKey(key, i)
		i = (i + step) % n
		return b.s.Delete(key)
	}
	// Two thirds without the clock, the rest with it, if there are so many.
	ops, took, err := rate(b.Time, b.Keys*2/3, del)
	if err != nil {
		return err
	}
	b.out["ns_op"] = float64(took) / float64(ops)
	var h histogram
	last := time.Now()
	end := last.Add(b.Time / 2)
	for range b.Keys - ops {
		if err := del(); err != nil {
			return err
		}
		now := time.Now()
		h.add(now.Sub(last))
		if last = now; now.After(end) {
			break
		}
	}
	h.into(b.out, "")
	return nil
}

// runStall grows a store under a reader's eyes.
func runStall(b *bench) error {
	s, err := b.open(b.Dir, false, 1)
	if err != nil {
		return err
	}
	b.s = s
	b.started()
	end := time.Now().Add(b.Limit * 6 / 10)
	var there atomic.Uint64 // keys that the reader may ask for
	var stop atomic.Bool
	var puts, again histogram
	var gets [3]histogram // while it grows, while all is written again, while it compacts
	var phase atomic.Int32
	var wg sync.WaitGroup
	var readErr error
	wg.Go(func() {
		p := newPicker(5, 1)
		get := b.getter(p.next)
		last := time.Now()
		for !stop.Load() {
			if p.n = there.Load(); p.n == 0 {
				last = time.Now()
				continue
			}
			if readErr = get(); readErr != nil {
				return
			}
			now := time.Now()
			gets[phase.Load()].add(now.Sub(last))
			last = now
		}
	})
	write := func(puts *histogram, next func(i uint64) uint64) (done uint64, err error) {
		i := uint64(0)
		put := b.putter(s, func() uint64 { return next(i) })
		for last := time.Now(); i < uint64(b.Keys) && last.Before(end); {
			if err := put(); err != nil {
				return i, err
			}
			now := time.Now()
			puts.add(now.Sub(last))
			last = now
			i++
			if there.Load() < i {
				there.Store(i)
			}
		}
		return i, nil
	}
	grown, err := write(&puts, func(i uint64) uint64 { return i })
	if err == nil && grown == uint64(b.Keys) {
		phase.Store(1)
		p := newPicker(6, grown)
		_, err = write(&again, func(uint64) uint64 { return p.next() })
	}
	if c, ok := s.(compacter); ok && err == nil && b.a.name == mmapkvAdapter.name {
		phase.Store(2)
		err = c.Compact() // under the reader's eyes
	}
	stop.Store(true)
	wg.Wait()
	b.out["grow_max"], b.out["again_max"] = float64(puts.max), float64(again.max)
	for i, name := range []string{"get_grow_max", "get_again_max", "get_compact_max"} {
		b.out[name] = float64(gets[i].max)
	}
	gets[0].merge(&gets[1])
	gets[0].merge(&gets[2])
	puts.merge(&again)
	puts.into(b.out, "put_")
	gets[0].into(b.out, "get_")
	b.out["reached"] = float64(grown) / float64(b.Keys)
	return errors.Join(err, readErr, s.Close())
}

// runDurable puts fresh keys from several goroutines. One goroutine takes turns with
// the page of limit.go.
func runDurable(writers int) func(b *bench) error {
	return func(b *bench) error {
		s, err := b.open(b.Dir, true, writers)
		if err != nil {
			return err
		}
		var page *syncedPage
		if writers == 1 {
			if page, err = newSyncedPage(filepath.Join(b.Scratch, "page")); err != nil {
				return err
			}
			defer page.close()
		}
		device, err := deviceOf(b.Dir)
		if err != nil {
			return err
		}
		b.started()
		var h, pages histogram
		var took time.Duration
		var written, dirtied int64
		next := make([]uint64, writers)
		for turn := range 10 {
			if page != nil {
				if err := latencies(&pages, b.Time/20, page.write); err != nil {
					return err
				}
			}
			before, own, start := device.written(), ownWrites(), time.Now()
			hists, errs := make([]histogram, writers), make([]error, writers)
			var wg sync.WaitGroup
			for w := range writers {
				put := b.putter(s, func() uint64 {
					next[w]++
					return uint64(w)<<32 | next[w]
				})
				wg.Go(func() { errs[w] = latencies(&hists[w], b.Time/10, put) })
			}
			wg.Wait()
			if err := errors.Join(errs...); err != nil {
				return err
			}
			if turn == 0 { // warms up: files are allocated, goroutines have stacks
				continue
			}
			took += time.Since(start)
			written += device.written() - before
			dirtied += ownWrites() - own
			for w := range hists {
				h.merge(&hists[w])
			}
		}
		h.into(b.out, "")
		b.out["per_s"] = float64(h.n) / took.Seconds()
		b.out["ns_op"] = float64(took) / float64(h.n)
		b.out["device_op"], b.out["own_op"] = float64(written)/float64(h.n), float64(dirtied)/float64(h.n)
		if page != nil {
			b.out["dsync"] = pages.quantile(0.5)
			b.out["of_dsync"] = b.out["p50"] / b.out["dsync"]
		}
		return s.Close()
	}
}

func runTransactions(b *bench) error {
	s, err := b.open(b.Dir, true, 1)
	if err != nil {
		return err
	}
	t, ok := s.(batcher)
	if !ok {
		return errNotThere
	}
	b.started()
	g := newBatch(b.Value, b.version)
	i := uint64(0)
	if err := b.writes(func() error {
		for !g.add(i) {
			i++
		}
		i++
		g.n = 0
		return t.PutBatch(g.keys, g.values)
	}); err != nil {
		return err
	}
	return s.Close()
}
