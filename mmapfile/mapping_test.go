//go:build linux || darwin || freebsd

package mmapfile

import (
	"bytes"
	"errors"
	"math"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"unsafe"
)

// Goal: growth moves nothing. Method: a slice and a word taken before it show what
// is written after it, and the base is the same.
func TestGrowInPlace(t *testing.T) {
	f, _ := newTestFile(t, 1)
	m := f.Mapping()
	before := m.Bytes()
	word := m.Word(8)
	base := unsafe.SliceData(before)
	for n := int64(2); n <= 64; n *= 2 {
		fill(m.Bytes(), n/4)
		must(t, f.Grow(n*pageSize-n%3)) // also lengths inside of a page
		must(t, f.Grow(n*pageSize))
		if f.Mapping() != m || unsafe.SliceData(m.Bytes()) != base {
			t.Fatalf("moved when it grew to %d pages", n)
		}
		if got := int64(len(m.Bytes())); got != n*pageSize || f.Size() != got || int64(cap(m.Bytes())) != got {
			t.Fatalf("%d bytes mapped, Size %d, want %d", got, f.Size(), n*pageSize)
		}
		checkFilled(t, m.Bytes(), n/2)
		if !bytes.Equal(m.Bytes()[n/2*pageSize:], make([]byte, n/2*pageSize)) {
			t.Fatalf("new bytes at %d pages are not zero", n)
		}
	}
	word.Store(0x0807060504030201)
	if want := []byte{1, 2, 3, 4, 5, 6, 7, 8}; !bytes.Equal(before[8:16], want) {
		t.Fatalf("the slice from before the growth shows %v, want %v", before[8:16], want)
	}
	runtime.KeepAlive(m)
}

// Goal: a file that outgrows its reservation is mapped anew, and the old mapping
// shows the same bytes for its holders. Method: reservations of few pages.
func TestOutgrowReservation(t *testing.T) {
	reserving(t, 4, 16)
	f, path := newTestFile(t, 2)
	old := f.Mapping()
	fill(old.Bytes(), 0)
	must(t, f.Grow(4*pageSize))
	if f.Mapping() != old {
		t.Fatal("mapped anew inside of the reservation")
	}
	fill(old.Bytes(), 2)
	must(t, f.Grow(5*pageSize))
	m := f.Mapping()
	if m == old {
		t.Fatal("not mapped anew beyond the reservation")
	}
	if got := m.span.size.Load(); got != 16*pageSize {
		t.Fatalf("second reservation is %d bytes, want %d", got, 16*pageSize)
	}
	if got := int64(len(old.Bytes())); got != 4*pageSize {
		t.Fatalf("old mapping has %d bytes, want %d", got, 4*pageSize)
	}
	checkFilled(t, m.Bytes(), 4)
	m.Bytes()[0], old.Bytes()[1] = 'm', 'o'
	if old.Bytes()[0] != 'm' || m.Bytes()[1] != 'o' {
		t.Fatal("the mappings do not show each other's stores")
	}
	m.Bytes()[0], m.Bytes()[1] = 1, 1
	must(t, f.Grow(100*pageSize)) // beyond twice the next reservation
	if got := f.Mapping().span.size.Load(); got != 200*pageSize {
		t.Fatalf("third reservation is %d bytes, want %d", got, 200*pageSize)
	}
	checkFilled(t, f.Mapping().Bytes(), 4)
	must(t, f.Sync(0, f.Size()))
	must(t, f.Close())
	checkFilled(t, old.Bytes(), 4)
	checkFilled(t, m.Bytes(), 4)
	runtime.KeepAlive(old)
	onDisk, err := os.ReadFile(path)
	must(t, err)
	checkFilled(t, onDisk, 4)
}

// Goal: the sizes of reservations. Method: a table of lengths.
func TestReserveSizes(t *testing.T) {
	if strconv.IntSize == 32 {
		for _, length := range []int64{0, 1 << 20, 200 << 20, 1 << 30} {
			if got := min(firstReserve(length), maxReserveLen); got < length || got > 1<<30 {
				t.Errorf("reservation for %d bytes: %d", length, got)
			}
		}
		return
	}
	for _, c := range []struct {
		name               string
		length, first, nxt int64
	}{
		{"empty", 0, 4 << 30, 1 << 40},
		{"small", 1 << 20, 4 << 30, 1 << 40},
		{"larger than half", 3 << 30, 6 << 30, 1 << 40},
		{"large", 1 << 40, 2 << 40, 2 << 40},
		{"absurd", math.MaxInt64, math.MaxInt64 / 4 * 2, math.MaxInt64 / 4 * 2},
	} {
		if got := firstReserve(c.length); got != c.first {
			t.Errorf("%s: first %d, want %d", c.name, got, c.first)
		}
		if got := nextReserve(c.length); got != c.nxt {
			t.Errorf("%s: next %d, want %d", c.name, got, c.nxt)
		}
	}
}

// Goal: slices taken before a truncation stay addresses of the file after Close,
// which gives back only what no slice reaches.
func TestCloseKeepsWhatWasSeen(t *testing.T) {
	f, _ := newTestFile(t, 6)
	m := f.Mapping()
	seen := m.Bytes()
	must(t, f.Truncate(pageSize))
	must(t, f.Close())
	if got := m.span.size.Load(); got != 6*pageSize {
		t.Fatalf("%d bytes kept, want %d", got, 6*pageSize)
	}
	var fault *FaultError
	if err := guarded(f, func() { seen[5*pageSize]++ }); !errors.As(err, &fault) || fault.Off != 5*pageSize {
		t.Fatalf("%v, want a fault", err)
	}
	runtime.KeepAlive(m)
}

// Goal: Word is aligned and bounded. Method: a table of offsets.
func TestWord(t *testing.T) {
	path := newPath(t)
	f, err := Create(path, 0o600, pageSize+12)
	must(t, err)
	defer f.Close()
	for _, c := range []struct {
		name string
		off  int64
		ok   bool
	}{
		{"first", 0, true},
		{"second", 8, true},
		{"last whole", pageSize, true},
		{"cut off by the end", pageSize + 8, false},
		{"beyond the end", pageSize + 16, false},
		{"unaligned", 4, false},
		{"negative", -8, false},
		{"most negative", math.MinInt64, false},
		{"largest", math.MaxInt64 &^ 7, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer func() {
				if r := recover(); (r == nil) != c.ok {
					t.Fatalf("panic %v, want one: %v", r, !c.ok)
				}
			}()
			w := f.Mapping().Word(c.off)
			w.Store(uint64(c.off) + 1)
			if got := f.Mapping().Bytes()[c.off]; got != byte(c.off)+1 {
				t.Fatalf("byte under the word is %d", got)
			}
		})
	}
}

// Goal: an empty file has a mapping without bytes, which grows.
func TestEmptyFile(t *testing.T) {
	f, path := newTestFile(t, 0)
	g := openTest(t, path, ReadOnly)
	for _, f := range []*File{f, g} {
		if b := f.Mapping().Bytes(); len(b) != 0 || f.Size() != 0 {
			t.Fatalf("%d bytes, Size %d", len(b), f.Size())
		}
	}
	must(t, f.Sync(0, 0))
	f.Populate(0, 1)
	must(t, f.Grow(1))
	f.Mapping().Bytes()[0] = 'x'
	must(t, g.Refresh())
	if b := g.Mapping().Bytes(); string(b) != "x" {
		t.Fatalf("the reader sees %q", b)
	}
}

// Goal: what may run beside growth does so without races, faults or wrong errors,
// over several reservations. Method: goroutines of each kind while the file grows.
func TestGrowBesideOthers(t *testing.T) {
	reserving(t, 2, 8)
	f, _ := newTestFile(t, 1)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for name, do := range map[string]func(size int64) error{
		"sync":     func(size int64) error { return f.Sync(size/2, size-size/2) },
		"syncfile": func(int64) error { return f.SyncFile() },
		"populate": func(size int64) error { f.Populate(0, size); f.AdviseRandom(size/2, size/2); return nil },
		"write":    func(size int64) error { _, err := f.WriteAt([]byte("write"), size-5); return err },
		"refresh":  func(int64) error { return f.Refresh() },
		"read": func(size int64) error {
			m := f.Mapping()
			if b := m.Bytes(); int64(len(b)) < size || b[0] != 7 {
				return errors.New("reader sees less than Size")
			}
			runtime.KeepAlive(m)
			return nil
		},
	} {
		wg.Add(1)
		f.Mapping().Bytes()[0] = 7
		go func() {
			defer wg.Done()
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := do(f.Size()); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
			}
		}()
	}
	for n := int64(2); n <= 64; n++ {
		if err := f.Grow(n * pageSize); err != nil {
			t.Error(err)
		}
		if err := f.Protect(0, n*pageSize/4); err != nil {
			t.Error(err)
		}
	}
	close(done)
	wg.Wait()
	if len(f.outgrown) == 0 {
		t.Fatal("no reservation was outgrown")
	}
}
