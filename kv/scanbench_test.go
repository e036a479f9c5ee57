package kv

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/mmapfile"
)

// What goes through the whole log, each against what bounds it in the same run:
//
//	go test ./kv -run '^$' -bench 'Rebuild|Iterate|Compact' -count 5
//	go test ./kv -run '^$' -bench Rebuild -bench.keys 10000000

var scanKeys = flag.Int("bench.keys", benchKeys, "keys of the benchmarks that read the whole log")

// benchLogs are the logs that are gone through: of keys that were written once, and
// of keys that were written in three rounds.
var benchLogs = []struct {
	name   string
	rounds int
}{{"once", 1}, {"thrice", 3}}

// fillRounds writes all keys so many times.
func fillRounds(tb testing.TB, s *Store, rounds int) {
	for range rounds {
		fillStore(tb, s, *scanKeys)
	}
	if err := s.Sync(); err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkRebuild makes the index anew from a log, and scans and verifies the log
// alone, by turns.
func BenchmarkRebuild(b *testing.B) {
	for _, log := range benchLogs {
		path := filepath.Join(b.TempDir(), "store")
		s, err := Open(path, &Options{Durability: SyncManual, CompactAt: -1})
		if err != nil {
			b.Fatal(err)
		}
		fillRounds(b, s, log.rounds)
		end := s.gen.Load().end.Load()
		b.Run(fmt.Sprintf("log=%s", log.name), func(b *testing.B) {
			var took [2]time.Duration
			for b.Loop() {
				for i := range took {
					f, err := s.disk.Open(path, mmapfile.ReadOnly)
					if err != nil {
						b.Fatal(err)
					}
					h, err := s.readHeader(f)
					if err != nil {
						b.Fatal(err)
					}
					g := newGeneration(f, h.Header)
					scan := newScanner(g, g.bytes()[:end])
					start := time.Now()
					if i == 0 {
						for scan.off < end && err == nil {
							_, err = scan.next()
						}
					} else {
						_, _, err = s.replay(g, &scan)
					}
					took[i] += time.Since(start)
					if err != nil || scan.off != end || i == 1 && g.index.keys.Load() != int64(*scanKeys) {
						b.Fatal(err, scan.off, end, g.index.keys.Load())
					}
					f.Close()
				}
			}
			records := float64(b.N * *scanKeys * log.rounds)
			b.ReportMetric(float64(took[0].Nanoseconds())/records, "scan-ns/record")
			b.ReportMetric(float64(took[1].Nanoseconds())/records, "rebuild-ns/record")
			b.ReportMetric(float64(took[1])/float64(took[0]), "ratio")
		})
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIterate reads all entries, and, by turns, every cache line of the log in
// order, which is as fast as memory goes.
func BenchmarkIterate(b *testing.B) {
	for _, log := range benchLogs {
		s := openBench(b, &Options{Durability: SyncManual, CompactAt: -1})
		fillRounds(b, s, log.rounds)
		b.Run(fmt.Sprintf("log=%s", log.name), func(b *testing.B) {
			var took [2]time.Duration
			b.ReportAllocs()
			for b.Loop() {
				start := time.Now()
				sum := 0
				for p := s.gen.Load().bytes()[:s.Stats().Tail]; len(p) > 64; p = p[64:] {
					sum += int(p[0])
				}
				took[0] += time.Since(start)
				start = time.Now()
				n := 0
				it := s.Iter(nil)
				for k, v := range it.All() {
					n++
					sum += int(k[0]) + int(v[0])
				}
				took[1] += time.Since(start)
				if n != *scanKeys || it.Err() != nil || sum == 0 {
					b.Fatal(n, it.Err())
				}
			}
			b.ReportMetric(float64(took[0].Nanoseconds())/float64(b.N**scanKeys), "memory-ns/entry")
			b.ReportMetric(float64(took[1].Nanoseconds())/float64(b.N**scanKeys), "ns/entry")
		})
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCompact compacts a log of which two thirds are dead, alone, and while a
// goroutine puts: now and then, or as fast as it can. It tells of the worst of these
// puts, of the disk taken at the peak and at the end, each in units of what is live, and
// how much was appended meanwhile.
func BenchmarkCompact(b *testing.B) {
	for _, writer := range []struct {
		name  string
		pause time.Duration
	}{{"none", -1}, {"some", 100 * time.Microsecond}, {"full", 0}} {
		b.Run("writer="+writer.name, func(b *testing.B) {
			var bytes, appended, peak int64
			var worst, total time.Duration
			var end, highest float64
			for range b.N {
				b.StopTimer()
				s := openBench(b, &Options{Durability: SyncManual, CompactAt: -1})
				fillRounds(b, s, 3)
				before := s.Stats()
				bytes += before.Tail
				over := make(chan struct{})
				var background sync.WaitGroup
				var puts int64
				if writer.pause >= 0 {
					background.Go(func() { puts = putUntil(b, s, over, writer.pause, &worst) })
				}
				background.Go(func() { peak = peakSize(s, over) })
				b.StartTimer()
				start := time.Now()
				if _, err := s.Compact(context.Background()); err != nil {
					b.Fatal(err)
				}
				total += time.Since(start)
				b.StopTimer()
				close(over)
				background.Wait()
				after := s.Stats()
				live := float64(after.LiveBytes)
				end, highest = max(end, float64(after.FileBytes)/live), max(highest, float64(peak)/live)
				appended = max(appended, puts*(before.LiveBytes/before.Keys))
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(bytes)/total.Seconds()/1e6, "log-MB/s")
			b.ReportMetric(end, "file/live")
			b.ReportMetric(highest, "peak/live")
			if writer.pause >= 0 {
				b.ReportMetric(float64(appended)/1e6, "appended-MB")
				b.ReportMetric(float64(worst.Microseconds()), "worst-put-us")
			}
		})
	}
}

// putUntil overwrites keys until over, and returns how often. worst is the longest that
// one took.
func putUntil(b *testing.B, s *Store, over chan struct{}, pause time.Duration, worst *time.Duration) (puts int64) {
	value := make([]byte, benchValue)
	var key []byte
	for {
		select {
		case <-over:
			return puts
		default:
			time.Sleep(pause)
		}
		key = benchKey(key, uint64(puts%int64(*scanKeys)))
		start := time.Now()
		if err := s.Put(key, value); err != nil {
			b.Error(err)
			return puts
		}
		*worst = max(*worst, time.Since(start))
		puts++
	}
}

// peakSize returns the most that the store's files were long together until over.
func peakSize(s *Store, over chan struct{}) (peak int64) {
	for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
		size := int64(0)
		for _, path := range []string{s.path, s.path + nextSuffix} {
			if fi, err := os.Stat(path); err == nil {
				size += fi.Size()
			}
		}
		peak = max(peak, size)
		select {
		case <-over:
			return peak
		default:
		}
	}
}
