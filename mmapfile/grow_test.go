//go:build linux || darwin || freebsd

package mmapfile

import (
	"bytes"
	"errors"
	"math"
	"os"
	"runtime"
	"testing"
)

// Goal: Grow's edges. Method: a table of sizes for a file of two pages; the file,
// Size and the mapping agree, and after an error nothing has changed.
func TestGrowSizes(t *testing.T) {
	for _, c := range []struct {
		name       string
		size, want int64
		err        error
	}{
		{"by a byte", 2*pageSize + 1, 2*pageSize + 1, nil},
		{"by a page", 3 * pageSize, 3 * pageSize, nil},
		{"not at all", 2 * pageSize, 2 * pageSize, nil},
		{"less", pageSize, 2 * pageSize, nil},
		{"negative", -1, 2 * pageSize, nil},
		{"larger than any file", math.MaxInt64, 2 * pageSize, ErrNoSpace},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, path := newTestFile(t, 2)
			if err := f.Grow(c.size); !errors.Is(err, c.err) {
				t.Fatalf("%v, want %v", err, c.err)
			}
			checkSize(t, f, path, c.want)
		})
	}
}

// checkSize checks that the file, Size and the mapping have one length.
func checkSize(t *testing.T, f *File, path string, want int64) {
	t.Helper()
	st, err := os.Stat(path)
	must(t, err)
	mapped := int64(len(f.Mapping().Bytes()))
	if f.Size() != want || st.Size() != want || mapped != want {
		t.Fatalf("Size %d, file %d, mapping %d; want %d", f.Size(), st.Size(), mapped, want)
	}
}

// Goal: Truncate cuts file and mapping, the bytes beyond are zero when the file
// grows again, and holders of the mapping see it. Method: a table of new sizes.
func TestTruncate(t *testing.T) {
	for _, c := range []struct {
		name string
		size int64
	}{
		{"to nothing", 0},
		{"into the first page", 100},
		{"to a page", pageSize},
		{"into a later page", 2*pageSize + 1},
		{"not at all", 4 * pageSize},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, path := newTestFile(t, 4)
			m := f.Mapping()
			fill(m.Bytes(), 0)
			must(t, f.Truncate(c.size))
			checkSize(t, f, path, c.size)
			must(t, f.Grow(4*pageSize))
			checkSize(t, f, path, 4*pageSize)
			if f.Mapping() != m {
				t.Fatal("the mapping moved")
			}
			checkFilled(t, m.Bytes(), c.size/pageSize)
			if !bytes.Equal(m.Bytes()[c.size:], make([]byte, 4*pageSize-c.size)) {
				t.Fatal("bytes cut off came back")
			}
			fill(m.Bytes(), 0) // all of it is writable again
			checkFilled(t, m.Bytes(), 4)
		})
	}
	f, path := newTestFile(t, 2)
	for _, size := range []int64{-1, 2*pageSize + 1, math.MaxInt64} {
		if err := f.Truncate(size); !errors.Is(err, ErrRange) {
			t.Errorf("to %d: %v, want %v", size, err, ErrRange)
		}
	}
	checkSize(t, f, path, 2*pageSize)
}

// Goal: a size between the real length and the known one is refused, for ftruncate
// would make a hole.
func TestTruncateOfShrunk(t *testing.T) {
	f, path := newTestFile(t, 4)
	must(t, os.Truncate(path, pageSize))
	if err := f.Truncate(2 * pageSize); !errors.Is(err, ErrRange) {
		t.Fatalf("%v, want %v", err, ErrRange)
	}
	must(t, f.Truncate(pageSize/2))
	checkSize(t, f, path, pageSize/2)
}

// Goal: a File follows what another File of the same process does to the file: in
// the reservation, beyond it, and back.
func TestRefresh(t *testing.T) {
	for _, mode := range []Mode{ReadOnly, ReadWrite} {
		reserving(t, 4, 8)
		f, path := newTestFile(t, 1)
		g := openTest(t, path, mode)
		for n := int64(2); n <= 20; n += 3 {
			must(t, f.Grow(n*pageSize))
			fill(f.Mapping().Bytes(), 0)
			must(t, g.Refresh())
			checkSize(t, g, path, n*pageSize)
			checkFilled(t, g.Mapping().Bytes(), n)
		}
		if len(g.outgrown) == 0 {
			t.Fatal("no reservation was outgrown")
		}
		m := g.Mapping()
		must(t, f.Truncate(2*pageSize))
		must(t, g.Refresh())
		if g.Size() != 2*pageSize || g.Mapping() != m || int64(len(m.Bytes())) != 20*pageSize {
			t.Fatalf("after shrinking: Size %d, %d bytes mapped", g.Size(), len(m.Bytes()))
		}
		checkFilled(t, m.Bytes(), 2)
		must(t, f.Grow(10*pageSize)) // inside of what g has mapped still
		fill(f.Mapping().Bytes(), 0)
		must(t, g.Refresh())
		if g.Size() != 10*pageSize {
			t.Fatalf("after growing again: Size %d", g.Size())
		}
		checkFilled(t, m.Bytes(), 10)
		runtime.KeepAlive(m)
	}
}

// Goal: Grow starts from the length that the file has, not from the one it knew;
// but not where it was cut, of which whoever writes must hear.
func TestGrowAfterOthers(t *testing.T) {
	f, path := newTestFile(t, 1)
	g := openTest(t, path, ReadWrite)
	must(t, f.Grow(6*pageSize))
	fill(f.Mapping().Bytes(), 0)
	must(t, g.Grow(3*pageSize))
	checkSize(t, g, path, 6*pageSize)
	checkFilled(t, g.Mapping().Bytes(), 6)
	must(t, f.Truncate(2*pageSize))
	if err := g.Grow(7 * pageSize); !errors.Is(err, ErrShrunk) {
		t.Fatalf("growing a file that was cut: %v", err)
	}
	must(t, g.Refresh())
	must(t, g.Grow(4*pageSize))
	if st, _ := os.Stat(path); st.Size() != 4*pageSize || g.Size() != 4*pageSize {
		t.Fatalf("file %d, Size %d; want %d", st.Size(), g.Size(), 4*pageSize)
	}
	checkFilled(t, g.Mapping().Bytes(), 2)
}

// Goal: the same over processes. Method: a child grows the file and ends.
func TestRefreshAfterChild(t *testing.T) {
	f, path := newTestFile(t, 1)
	child, line := startChild(t, "grow", path)
	if line != "grown" {
		t.Fatal(line)
	}
	must(t, child.Wait())
	must(t, f.Refresh())
	checkSize(t, f, path, 2*pageSize)
	if b := f.Mapping().Bytes()[pageSize:]; !bytes.HasPrefix(b, []byte("from a child")) {
		t.Fatalf("new part begins with %q", b[:12])
	}
}
