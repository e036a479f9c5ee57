//go:build linux && !386 && !arm

package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkPages reads a line of 1.5 GiB, the next chosen by what it holds, where the
// memory came into being in different ways. Where that makes a difference, the machine
// and not the store decides what a Get takes; PERFORMANCE.md, section 3, has figures. It
// tells too what a page took that was touched first.
func BenchmarkPages(b *testing.B) {
	const size = 3 << 29
	b.Run("anonymous", func(b *testing.B) {
		m, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		benchmarkPages(b, m, err)
	})
	file := func(name string, prepare func(f *os.File) error) {
		b.Run(name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "pages")
			f, err := os.Create(path)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			if err := prepare(f); err != nil {
				b.Fatal(err)
			}
			m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			benchmarkPages(b, m, err)
		})
	}
	written := func(n int) func(f *os.File) error {
		return func(f *os.File) error {
			chunk := newValue(n)
			for range size / n {
				if _, err := f.Write(chunk); err != nil {
					return err
				}
			}
			return nil
		}
	}
	file("mapped", func(f *os.File) error { return unix.Fallocate(int(f.Fd()), 0, 0, size) })
	file("written=4K", written(4<<10))
	file("written=64K", written(64<<10))
	file("written=256K", written(256<<10))
	file("written=1M", written(1<<20))
	file("reread", func(f *os.File) error {
		if err := written(1 << 20)(f); err != nil {
			return err
		}
		return reread(filepath.Dir(f.Name()))
	})
}

func benchmarkPages(b *testing.B, m []byte, err error) {
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Munmap(m)
	start := time.Now()
	for i := 0; i < len(m); i += 4096 {
		m[i] = 1
	}
	touch := float64(time.Since(start)) / float64(len(m)/4096)
	for range 2 {
		for i := 0; i < len(m); i += 4096 {
			use(m[i])
		}
	}
	p := newPicker(7, uint64(len(m)/64))
	for b.Loop() {
		p.state += uint64(m[p.next()*64] & 1)
	}
	b.ReportMetric(touch, "ns/first-touch")
}
