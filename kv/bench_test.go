package kv

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

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

var filled = sync.OnceValues(func() (*lockedMap, []byte) {
	m := &lockedMap{m: make(map[string][]byte)}
	value := make([]byte, benchValue)
	for i := range uint64(benchKeys) {
		m.Put(benchKey(nil, i), value)
	}
	return m, value
})

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

func BenchmarkGet(b *testing.B) {
	m, _ := filled()
	s := openBench(b, nil)
	fillStore(b, s, benchKeys)
	each := func(b *testing.B, get func(key []byte)) {
		r := rand.New(rand.NewPCG(1, 2))
		var key []byte
		b.ReportAllocs()
		for b.Loop() {
			key = benchKey(key, r.Uint64N(benchKeys))
			get(key)
		}
	}
	var got []byte
	b.Run("peer=map", func(b *testing.B) {
		each(b, func(key []byte) { got = m.Get(key) })
	})
	b.Run("peer=store", func(b *testing.B) {
		each(b, func(key []byte) {
			var err error
			if got, err = s.Get(key); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("peer=append", func(b *testing.B) {
		each(b, func(key []byte) {
			var err error
			if got, err = s.GetAppend(got[:0], key); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("peer=view", func(b *testing.B) {
		each(b, func(key []byte) {
			if err := s.View(key, func(v []byte) error { got = v[:1]; return nil }); err != nil {
				b.Fatal(err)
			}
		})
		b.ReportMetric(float64(s.Stats().IndexBytes)/benchKeys, "index-B/key")
	})
	if len(got) == 0 {
		b.Fatal("nothing was read")
	}
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

// BenchmarkFill inserts fresh keys, a million in each iteration, and tells of
// the worst stall of one insert too.
func BenchmarkFill(b *testing.B) {
	value := make([]byte, benchValue)
	fill := func(b *testing.B, start func(), put func(key []byte)) {
		var key []byte
		times := make([]time.Duration, 0, benchKeys)
		for b.Loop() {
			start()
			times = times[:0]
			for i := range uint64(benchKeys) {
				key = benchKey(key, i)
				t := time.Now()
				put(key)
				times = append(times, time.Since(t))
			}
		}
		slices.Sort(times)
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*benchKeys), "ns/put")
		for _, p := range []float64{50, 99.9} {
			b.ReportMetric(float64(times[int(float64(len(times)-1)*p/100)].Nanoseconds()), fmt.Sprintf("p%v-ns", p))
		}
		b.ReportMetric(float64(times[len(times)-1].Microseconds()), "max-us")
	}
	b.Run("peer=map", func(b *testing.B) {
		var m *lockedMap
		fill(b, func() { m = &lockedMap{m: make(map[string][]byte)} }, func(key []byte) { m.Put(key, value) })
	})
	// Without syncs in the background, what is left of the stalls is growth and splits.
	for _, d := range []Durability{SyncPeriodic, SyncManual} {
		b.Run(fmt.Sprintf("peer=store,sync=%v", d), func(b *testing.B) {
			var s *Store
			fill(b, func() {
				b.StopTimer()
				s = openBench(b, &Options{Durability: d})
				b.StartTimer()
			}, func(key []byte) {
				if err := s.Put(key, value); err != nil {
					b.Fatal(err)
				}
			})
		})
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
