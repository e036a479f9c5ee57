//go:build linux && !386 && !arm

package main

import (
	"errors"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

const rounds = 10 // of overwriting everything

// runDisk overwrites everything ten times and watches the disk.
func runDisk(b *bench) error {
	device, err := deviceOf(b.Dir)
	if err != nil {
		return err
	}
	if err := syncFS(b.Dir); err != nil {
		return err
	}
	watch := watchDisk(b.Dir)
	n := uint64(b.Keys)
	step := stride(n)
	before, own, start := device.written(), ownWrites(), time.Now()
	err = func() error {
		g := newBatch(b.Value, b.version)
		i := uint64(0)
		next := func() uint64 { i = (i + step) % n; return i }
		put := b.putter(b.s, next)
		for range rounds {
			for range n {
				if !b.a.grouped {
					if err := put(); err != nil {
						return err
					}
				} else if g.add(next()) {
					if err := g.flush(b.s); err != nil {
						return err
					}
				}
			}
		}
		if g.n > 0 {
			return g.flush(b.s)
		}
		return nil
	}()
	took := time.Since(start)
	if s, ok := b.s.(syncer); ok && err == nil {
		err = s.Sync()
	}
	b.out["disk_atonce"] = float64(diskBytes(b.Dir))
	after := b.atRest()
	peak := watch()
	if err := errors.Join(err, syncFS(b.Dir)); err != nil {
		return err
	}
	data := float64(b.cfg.bytes())
	b.out["ns_op"] = float64(took) / float64(rounds*b.Keys)
	b.out["disk_bytes"], b.out["disk"] = float64(after), float64(after)/data
	b.out["disk_peak"] = float64(peak) / data
	b.out["device"] = float64(device.written()-before) / (rounds * data)
	b.out["own_writes"] = float64(ownWrites()-own) / (rounds * data)
	if s, ok := b.s.(statser); ok {
		stats := s.Stats()
		live := stats["live_bytes"]
		b.out["compactions"] = stats["compactions"]
		b.out["live_bytes"], b.out["disk_live"], b.out["peak_live"] = live, float64(after)/live, float64(peak)/live
	}
	c, ok := b.s.(compacter)
	if !ok {
		return nil
	}
	if err := c.Compact(); err != nil {
		return err
	}
	least := b.atRest()
	b.out["disk_compact"] = float64(least) / data
	if live, ok := b.out["live_bytes"]; ok {
		b.out["compact_live"] = float64(least) / live
		b.out["compact_log"] = float64(diskBytes(filepath.Join(b.Dir, b.a.file))) / live
	}
	return nil
}

// watchDisk looks at the disk fifty times a second until the returned function is
// called, which returns the most that it saw.
func watchDisk(dir string) (stop func() int64) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	peak := int64(0)
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			peak = max(peak, diskBytes(dir))
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	return func() int64 {
		close(done)
		wg.Wait()
		return peak
	}
}

// atRest returns the disk bytes once the store has come to rest: when for b.Rest they
// did not change and the process hardly worked, or after ten times as long.
func (b *bench) atRest() int64 {
	step := b.Rest / 20
	last, since := diskBytes(b.Dir), time.Now()
	_, worked := cpuTime()
	for start := since; time.Since(since) < b.Rest && time.Since(start) < 10*b.Rest; {
		time.Sleep(step)
		now := diskBytes(b.Dir)
		_, work := cpuTime()
		if now != last || work-worked > step/4 {
			since = time.Now()
		}
		last, worked = now, work
	}
	runtime.GC() // what waits for the collector is let go of
	time.Sleep(step)
	return diskBytes(b.Dir)
}

// settled returns the memory of this process once the garbage is gone.
func settled() (anon, heap, scan int64, cycle time.Duration) {
	debug.FreeOSMemory()
	var cycles []float64
	for range 5 {
		start := time.Now()
		runtime.GC()
		cycles = append(cycles, float64(time.Since(start)))
	}
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return anonBytes(), int64(m.HeapAlloc), scanBytes(), time.Duration(median(cycles))
}

// runMemory compares the process with an empty store to the process with a full one.
func runMemory(b *bench) error {
	s, err := b.open(b.Scratch, false, 1)
	if err != nil {
		return err
	}
	anon0, heap0, scan0, _ := settled()
	if err := s.Close(); err != nil {
		return err
	}
	s = nil
	if b.s, err = b.open(b.Dir, false, 1); err != nil {
		return err
	}
	if !b.a.persistent {
		if err := b.fillWith(b.s, false); err != nil {
			return err
		}
	}
	b.started()
	if err := b.warm(); err != nil {
		return err
	}
	anon, heap, scan, cycle := settled()
	keys := float64(b.Keys)
	b.out["anon_key"], b.out["heap_key"] = float64(anon-anon0)/keys, float64(heap-heap0)/keys
	b.out["gc_scan"], b.out["gc_cycle"] = float64(scan-scan0), float64(cycle)
	var gc debug.GCStats
	debug.ReadGCStats(&gc)
	for _, p := range gc.Pause {
		b.out["gc_pause_max"] = max(b.out["gc_pause_max"], float64(p))
	}
	if st, ok := b.s.(statser); ok {
		b.out["index_key"] = st.Stats()["index_bytes"] / keys
	}
	return b.s.Close()
}
