package kv

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
)

// The floors that this package promises, each against its peer in the same run:
//
//	go test ./kv -run '^$' -bench . -count 5

const (
	benchKeys  = 1_000_000
	benchValue = 100
)

// benchKey is the i-th of the random 16-byte keys.
func benchKey(dst []byte, i uint64) []byte {
	a := i * 0x9E3779B97F4A7C15
	a ^= a >> 29
	dst = binary.LittleEndian.AppendUint64(dst[:0], a*0xBF58476D1CE4E5B9)
	return binary.LittleEndian.AppendUint64(dst, i)
}

// lockedMap is the peer: what a Go program uses where it needs no persistence.
type lockedMap struct {
	mu sync.RWMutex
	m  map[string][]byte
}

func (m *lockedMap) Get(key []byte) []byte {
	m.mu.RLock()
	v := m.m[string(key)]
	m.mu.RUnlock()
	return append(make([]byte, 0, len(v)), v...)
}

func (m *lockedMap) Put(key, value []byte) {
	v := append([]byte(nil), value...)
	m.mu.Lock()
	m.m[string(key)] = v
	m.mu.Unlock()
}

func openBench(tb testing.TB, opts *Options) *Store {
	s, err := Open(filepath.Join(tb.TempDir(), "bench"), opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

func fillStore(tb testing.TB, s *Store, n int) {
	value := make([]byte, benchValue)
	var key []byte
	for i := range uint64(n) {
		key = benchKey(key, i)
		if err := s.Put(key, value); err != nil {
			tb.Fatal(err)
		}
	}
}

// contender is one of those that a benchmark compares. turn does its work n times; ready, which
// may be nil, runs before it and is not timed.
type contender struct {
	name  string
	ready func()
	turn  func(n int)
}

// byTurns gives each contender a turn of n in each iteration, so that what disturbs the
// machine disturbs all, and reports the median time of each, an operation, and its
// ratio to that of the first.
func byTurns(b *testing.B, n int, all ...contender) {
	took := make([][]float64, len(all))
	for b.Loop() {
		for i, c := range all {
			if c.ready != nil {
				c.ready()
			}
			start := time.Now()
			c.turn(n)
			took[i] = append(took[i], float64(time.Since(start).Nanoseconds())/float64(n))
		}
	}
	for i, c := range all {
		b.ReportMetric(median(took[i]), c.name+"-ns")
		if i > 0 {
			b.ReportMetric(median(took[i])/median(took[0]), c.name+"-ratio")
		}
	}
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// benchPair is a map and a store with the same n keys.
func benchPair(b *testing.B, n, valueSize int, opts *Options) (*lockedMap, *Store) {
	m := &lockedMap{m: make(map[string][]byte)}
	s := openBench(b, opts)
	value := make([]byte, valueSize)
	for i := range uint64(n) {
		key := benchKey(nil, i)
		m.Put(key, value)
		if err := s.Put(key, value); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Sync(); err != nil {
		b.Fatal(err)
	}
	return m, s
}

// drawings counts the calls of drawing: no contender shall read what the one before it
// has brought into the cache.
var drawings atomic.Uint64

// drawing returns a turn that calls do with random keys of n.
func drawing(n int, do func(key []byte)) func(int) {
	r := rand.New(rand.NewPCG(1, drawings.Add(1)))
	var key []byte
	return func(turn int) {
		for range turn {
			key = benchKey(key, r.Uint64N(uint64(n)))
			do(key)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	for _, n := range []int{10_000, benchKeys} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			m, s := benchPair(b, n, benchValue, nil)
			var got []byte
			var err error
			check := func() {
				if err != nil || len(got) == 0 {
					b.Fatal(len(got), err)
				}
			}
			byTurns(b, 20_000,
				contender{"map", nil, drawing(n, func(key []byte) { got = m.Get(key) })},
				contender{"get", nil, drawing(n, func(key []byte) { got, err = s.Get(key); check() })},
				contender{"append", nil, drawing(n, func(key []byte) { got, err = s.GetAppend(got[:0], key); check() })},
				contender{"view", nil, drawing(n, func(key []byte) {
					err = s.View(key, func(v []byte) error { got = v[:1]; return nil })
					check()
				})},
			)
			got = nil // it may be a view
			b.ReportMetric(float64(s.Stats().IndexBytes)/float64(n), "index-B/key")
		})
	}
}

// BenchmarkMapGet has a Map and the Store that it is in read the same entries, by turns: what the
// types cost. The Store is given the keys as the Map makes them, prefix and all. Each side
// finds its next keys in the cache, so that it is the Get that is timed.
func BenchmarkMapGet(b *testing.B) {
	stringKey := func(i uint64) string { return string(benchKey(nil, i)) }
	b.Run("string", func(b *testing.B) {
		benchMapGet(b, stringKey, strings.Repeat("v", benchValue), func(v string) bool { return len(v) == benchValue })
	})
	b.Run("bytes", func(b *testing.B) {
		benchMapGet(b, stringKey, make([]byte, benchValue), func(v []byte) bool { return len(v) == benchValue })
	})
	b.Run("uint64", func(b *testing.B) {
		benchMapGet(b, func(i uint64) uint64 { return i * 0x9E3779B97F4A7C15 }, 7, func(v uint64) bool { return v == 7 })
	})
}

func benchMapGet[K comparable, V any](b *testing.B, keyOf func(uint64) K, value V, right func(V) bool) {
	m := mapIn[K, V](b, openBench(b, nil))
	for i := range uint64(benchKeys) {
		if err := m.Put(keyOf(i), value); err != nil {
			b.Fatal(err)
		}
	}
	const turn = 1000
	var keys [turn]K
	var stored [turn][]byte
	r := rand.New(rand.NewPCG(2, drawings.Add(1)))
	draw := func() {
		for i := range turn {
			var err error
			keys[i] = keyOf(r.Uint64N(benchKeys))
			if stored[i], err = m.keys.Append(append(stored[i][:0], m.prefix...), keys[i]); err != nil {
				b.Fatal(err)
			}
		}
	}
	var dst []byte
	byTurns(b, turn,
		contender{"store", draw, func(n int) {
			for _, key := range stored[:n] {
				if got, err := m.s.Get(key); err != nil || len(got) == 0 {
					b.Fatal(len(got), err)
				}
			}
		}},
		contender{"append", draw, func(n int) {
			for _, key := range stored[:n] {
				var err error
				if dst, err = m.s.GetAppend(dst[:0], key); err != nil || len(dst) == 0 {
					b.Fatal(len(dst), err)
				}
			}
		}},
		contender{"map", draw, func(n int) {
			for _, key := range keys[:n] {
				if got, err := m.Get(key); err != nil || !right(got) {
					b.Fatal(got, err)
				}
			}
		}},
	)
}

// mapIn is the nameless map of s, with the codecs that OpenMap takes.
func mapIn[K comparable, V any](tb testing.TB, s *Store) *Map[K, V] {
	tb.Helper()
	keys, err := codec.Of[K]()
	if err != nil {
		tb.Fatal(err)
	}
	values, err := codec.Of[V]()
	if err != nil {
		tb.Fatal(err)
	}
	m, err := NewMap(s, "", keys, values)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// together returns a turn that each of so many goroutines, started for it, does all of.
func together(goroutines int, turn func(n int)) func(int) {
	return func(n int) {
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() { turn(n) })
		}
		wg.Wait()
	}
}

// BenchmarkGetGoroutines has one goroutine read, and two as much each, by turns: the
// ratio is 1 if two do not hinder each other. Beside the forms of a read, "draw" makes the
// keys alone, and "copy" copies a value from one place into new memory, as Get does: what the
// machine and the runtime give two goroutines without a store. What a goroutine writes to, it
// has allocated itself: else two keys may lie in one cache line.
func BenchmarkGetGoroutines(b *testing.B) {
	for _, n := range []int{1000, benchKeys} {
		_, s := benchPair(b, n, benchValue, nil)
		value := make([]byte, benchValue)
		for _, form := range []struct {
			name string
			read func(got *[]byte, key []byte) error
		}{
			{"draw", func(*[]byte, []byte) error { return nil }},
			{"copy", func(got *[]byte, _ []byte) error { *got = bytes.Clone(value); return nil }},
			{"view", func(got *[]byte, key []byte) error {
				return s.View(key, func(v []byte) error { *got = v[:1]; return nil })
			}},
			{"append", func(got *[]byte, key []byte) (err error) { *got, err = s.GetAppend((*got)[:0], key); return err }},
			{"get", func(got *[]byte, key []byte) (err error) { *got, err = s.Get(key); return err }},
		} {
			b.Run(fmt.Sprintf("keys=%d/%s", n, form.name), func(b *testing.B) {
				reads := func(turn int) {
					var got []byte
					drawing(n, func(key []byte) {
						if err := form.read(&got, key); err != nil {
							b.Error(err)
						}
					})(turn)
				}
				byTurns(b, 50_000, contender{"one", nil, together(1, reads)}, contender{"two", nil, together(2, reads)})
			})
		}
	}
}

// BenchmarkMixed reads and overwrites, so many of 100 operations being writes.
func BenchmarkMixed(b *testing.B) {
	for _, writes := range []uint64{5, 50} {
		b.Run(fmt.Sprintf("writes=%d", writes), func(b *testing.B) {
			m, s := benchPair(b, benchKeys, benchValue, nil)
			value := make([]byte, benchValue)
			var got []byte
			mix := func(get, put func(key []byte)) func(int) {
				i := uint64(0)
				return drawing(benchKeys, func(key []byte) {
					if i++; i%100*writes%100 < writes {
						put(key)
					} else {
						get(key)
					}
				})
			}
			check := func(err error) {
				if err != nil {
					b.Fatal(err)
				}
			}
			byTurns(b, 20_000,
				contender{"map", nil, mix(func(key []byte) { got = m.Get(key) }, func(key []byte) { m.Put(key, value) })},
				contender{"store", nil, mix(func(key []byte) {
					var err error
					got, err = s.Get(key)
					check(err)
				}, func(key []byte) { check(s.Put(key, value)) })},
			)
			if len(got) != benchValue {
				b.Fatal("nothing was read")
			}
		})
	}
}

// BenchmarkLarge reads and overwrites values of 64 KiB. The peer copies as much: from
// memory that is not in a cache to a buffer that is, as a Get does, and the other way
// round, as a Put does.
func BenchmarkLarge(b *testing.B) {
	const size, n = 64 << 10, 2_000
	_, s := benchPair(b, n, size, &Options{Durability: SyncManual, CompactAt: -1})
	memory := make([]byte, n*size)
	for i := range memory {
		memory[i] = byte(i)
	}
	part := func(key []byte) []byte { return memory[binary.LittleEndian.Uint64(key[8:])*size:][:size] }
	buf := make([]byte, size)
	b.Run("get", func(b *testing.B) {
		byTurns(b, 200,
			contender{"memcpy", nil, drawing(n, func(key []byte) { copy(buf, part(key)) })},
			contender{"append", nil, drawing(n, func(key []byte) {
				var err error
				if buf, err = s.GetAppend(buf[:0], key); err != nil || len(buf) != size {
					b.Fatal(err)
				}
			})},
			contender{"get", nil, drawing(n, func(key []byte) {
				if v, err := s.Get(key); err != nil || len(v) != size {
					b.Fatal(err)
				}
			})},
		)
	})
	b.Run("put", func(b *testing.B) {
		opts := &Options{Durability: SyncManual, CompactAt: -1}
		s, left := openBench(b, opts), 0
		byTurns(b, 200,
			contender{"memcpy", nil, drawing(n, func(key []byte) { copy(part(key), buf) })},
			contender{"put", nil, drawing(n, func(key []byte) {
				if left++; left%8_000 == 0 { // half a GiB
					if err := s.Clear(); err != nil {
						b.Fatal(err)
					}
				}
				if err := s.Put(key, buf); err != nil {
					b.Fatal(err)
				}
			})},
		)
	})
}

func BenchmarkGetMany(b *testing.B) {
	s := openBench(b, nil)
	fillStore(b, s, benchKeys)
	for _, n := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 2))
			keys := make([][]byte, n)
			for b.Loop() {
				for i := range keys {
					keys[i] = benchKey(keys[i], r.Uint64N(benchKeys))
				}
				err := s.GetMany(keys, func(i int, v []byte, ok bool) error {
					if !ok || len(v) != benchValue {
						b.Fatal("wrong value")
					}
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/key")
		})
	}
}

// BenchmarkVerifyReads reads with and without the sums checked, by turns, so that
// what disturbs the machine disturbs both.
func BenchmarkVerifyReads(b *testing.B) {
	const turn = 128 // reads
	for _, size := range []int{benchValue, 64 << 10} {
		n := uint64(min(benchKeys, 256<<20/size))
		s := openBench(b, &Options{Durability: SyncManual})
		value := make([]byte, size)
		for i := range n {
			if err := s.Put(benchKey(nil, i), value); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("value=%d", size), func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 2))
			var took [2]time.Duration
			var key, got []byte
			for b.Loop() {
				for i := range took {
					s.opts.VerifyReads = i == 1
					start := time.Now()
					for range turn {
						key = benchKey(key, r.Uint64N(n))
						var err error
						if got, err = s.Get(key); err != nil || len(got) != size {
							b.Fatal(len(got), err)
						}
					}
					took[i] += time.Since(start)
				}
			}
			b.ReportMetric(float64(took[0].Nanoseconds())/float64(b.N*turn), "plain-ns")
			b.ReportMetric(float64(took[1].Nanoseconds())/float64(b.N*turn), "verified-ns")
			b.ReportMetric(float64(took[1])/float64(took[0]), "ratio")
		})
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFill inserts a million fresh keys into each, by turns, and tells of the slow
// inserts too: medians over the fills, and the worst of all of them.
func BenchmarkFill(b *testing.B) {
	value := make([]byte, benchValue)
	type filled struct {
		name                 string
		ns, p50, p999, worst []float64
	}
	times := make([]time.Duration, benchKeys)
	fill := func(f *filled, put func(key []byte)) {
		runtime.GC() // what the fill before it left behind
		var key []byte
		start := time.Now()
		last := start
		for i := range times {
			key = benchKey(key, uint64(i))
			put(key)
			now := time.Now()
			times[i], last = now.Sub(last), now
		}
		f.ns = append(f.ns, float64(last.Sub(start).Nanoseconds())/benchKeys)
		slices.Sort(times)
		f.p50 = append(f.p50, float64(times[benchKeys/2].Nanoseconds()))
		f.p999 = append(f.p999, float64(times[benchKeys/1000*999].Nanoseconds()))
		f.worst = append(f.worst, float64(times[benchKeys-1].Microseconds()))
	}
	// Without syncs in the background, what is left of the stalls is growth and splits.
	durabilities := []Durability{SyncPeriodic, SyncManual}
	all := []*filled{{name: "map"}, {name: "periodic"}, {name: "manual"}}
	for b.Loop() {
		m := &lockedMap{m: make(map[string][]byte)}
		fill(all[0], func(key []byte) { m.Put(key, value) })
		m = nil
		for i, d := range durabilities {
			s := openBench(b, &Options{Durability: d})
			fill(all[1+i], func(key []byte) {
				if err := s.Put(key, value); err != nil {
					b.Fatal(err)
				}
			})
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, f := range all {
		b.ReportMetric(median(f.ns), f.name+"-ns")
		b.ReportMetric(median(f.ns)/median(all[0].ns), f.name+"-ratio")
		b.ReportMetric(median(f.p50), f.name+"-p50-ns")
		b.ReportMetric(median(f.p999), f.name+"-p99.9-ns")
		b.ReportMetric(median(f.worst), f.name+"-worst-us")
		b.ReportMetric(slices.Max(f.worst), f.name+"-worst-of-all-us")
	}
}

// BenchmarkDurable puts with SyncAlways from several goroutines, without and with a
// new page after each durability point.
func BenchmarkDurable(b *testing.B) {
	value := make([]byte, benchValue)
	for _, writers := range []int{1, 8, 64, 256} {
		for _, aligned := range []bool{false, true} {
			b.Run(fmt.Sprintf("goroutines=%d,aligned=%v", writers, aligned), func(b *testing.B) {
				s := openBench(b, &Options{Durability: SyncAlways, SyncAligned: aligned, CompactAt: -1})
				var wg sync.WaitGroup
				each := b.N/writers + 1
				b.ResetTimer()
				for w := range writers {
					wg.Go(func() {
						var key []byte
						for i := range each {
							key = benchKey(key, uint64(w)<<40|uint64(i))
							if err := s.Put(key, value); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(each*writers)/b.Elapsed().Seconds(), "puts/s")
				b.ReportMetric(float64(s.Stats().Tail-crc.HeaderSize)/float64(each*writers), "log-B/put")
			})
		}
	}
}
