//go:build linux || darwin || freebsd

package mmapfile

import (
	"bytes"
	"errors"
	"math"
	"os"
	"testing"
)

// Goal: the ranges that Sync and WriteAt take. Method: a table for a file of two
// pages and five bytes.
func TestRanges(t *testing.T) {
	size := 2*pageSize + 5
	for _, c := range []struct {
		name   string
		off, n int64
		ok     bool
	}{
		{"all", 0, size, true},
		{"nothing at the start", 0, 0, true},
		{"nothing at the end", size, 0, true},
		{"one byte across no border", 7, 1, true},
		{"across a page border", pageSize - 1, 2, true},
		{"last byte", size - 1, 1, true},
		{"one byte too many", size - 1, 2, false},
		{"beyond", size, 1, false},
		{"nothing beyond", size + 1, 0, false},
		{"negative offset", -1, 1, false},
		{"negative length", 5, -1, false},
		{"sum that overflows", 8, math.MaxInt64, false},
		{"offset that overflows", math.MaxInt64, 8, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := Create(newPath(t), 0o600, size)
			must(t, err)
			defer f.Close()
			check := func(what string, err error) {
				t.Helper()
				if want := error(ErrRange); c.ok != (err == nil) || !c.ok && !errors.Is(err, want) {
					t.Errorf("%s: %v, want in range: %v", what, err, c.ok)
				}
			}
			check("Sync", f.Sync(c.off, c.n))
			check("Protect", f.Protect(c.off, c.n))
			f.Populate(c.off, c.n) // and these must take anything
			f.AdviseRandom(c.off, c.n)
			if c.n >= 0 && c.n <= size {
				p := bytes.Repeat([]byte{9}, int(c.n))
				n, err := f.WriteAt(p, c.off)
				check("WriteAt", err)
				if c.ok && (n != len(p) || !bytes.Equal(f.Mapping().Bytes()[c.off:c.off+c.n], p)) {
					t.Errorf("WriteAt wrote %d bytes, or the mapping does not show them", n)
				}
			}
			if f.Size() != size {
				t.Errorf("Size became %d", f.Size())
			}
		})
	}
}

// Goal: a sync over bytes that are no more does not claim them durable.
func TestSyncOfShrunk(t *testing.T) {
	f, path := newTestFile(t, 4)
	fill(f.Mapping().Bytes(), 0)
	must(t, os.Truncate(path, pageSize+10))
	for _, c := range []struct {
		name   string
		off, n int64
		want   error
	}{
		{"before the end", 0, pageSize, nil},
		{"up to the end", 0, pageSize + 10, nil},
		{"a byte more", 0, pageSize + 11, ErrShrunk},
		{"beyond the end", 3 * pageSize, 1, ErrShrunk},
	} {
		if err := f.Sync(c.off, c.n); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	must(t, f.Refresh())
	if err := f.Sync(3*pageSize, 1); !errors.Is(err, ErrShrunk) {
		t.Errorf("after Refresh: %v, want %v", err, ErrShrunk)
	}
}

// Goal: mapping and WriteAt are one memory, in both directions, and in the file.
func TestWriteAtCoherent(t *testing.T) {
	f, path := newTestFile(t, 300)
	big := bytes.Repeat([]byte("0123456789abcdef"), 300*int(pageSize)/16)
	fill(f.Mapping().Bytes(), 0) // pages that are mapped and dirty
	n, err := f.WriteAt(big[:len(big)-3], 3)
	if n != len(big)-3 || err != nil {
		t.Fatalf("wrote %d bytes: %v", n, err)
	}
	b := f.Mapping().Bytes()
	if !bytes.Equal(b[3:], big[:len(big)-3]) || b[0] != 1 {
		t.Fatal("the mapping does not show what was written")
	}
	b[5] = 'm'
	must(t, f.SyncFile())
	onDisk, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(onDisk, b) {
		t.Fatal("the file does not show what the mapping shows")
	}
}

// Goal: the stand-in for allocation makes blocks. Method: call it over a hole.
func TestWriteZeros(t *testing.T) {
	f, path := newTestFile(t, 1)
	fill(f.Mapping().Bytes(), 0)
	end := 3<<20 + 77 + pageSize
	must(t, writeZeros(f.fd, pageSize, end))
	must(t, f.Refresh())
	checkSize(t, f, path, end)
	checkFilled(t, f.Mapping().Bytes(), 1)
	if !bytes.Equal(f.Mapping().Bytes()[pageSize:], make([]byte, end-pageSize)) {
		t.Fatal("not zero")
	}
}
