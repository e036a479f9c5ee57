//go:build linux || darwin || freebsd

package mmapfile

import (
	"errors"
	"math"
	"testing"
	"unsafe"
)

// Goal: a region has the words asked for, zero and writable to the last, aligned
// for huge pages if so. Method: a table of sizes.
func TestRegion(t *testing.T) {
	for _, n := range []int{0, 1, 511, 513, 1 << 18, 1<<18 + 1, 1 << 20} {
		for _, huge := range []bool{false, true} {
			r, err := NewRegion(n, huge)
			must(t, err)
			if len(r.Words) != n || cap(r.Words) != n {
				t.Fatalf("%d words (capacity %d), want %d", len(r.Words), cap(r.Words), n)
			}
			if n == 0 {
				continue
			}
			align := uintptr(pageSize)
			if huge || n*8 >= hugePageSize {
				align = hugePageSize
			}
			if base := uintptr(unsafe.Pointer(&r.Words[0])); base%align != 0 {
				t.Errorf("%d words, huge %v: base %#x", n, huge, base)
			}
			for i := range r.Words {
				if r.Words[i] != 0 {
					t.Fatalf("word %d is %d", i, r.Words[i])
				}
				r.Words[i] = uint64(i)
			}
			for i := range r.Words {
				if r.Words[i] != uint64(i) {
					t.Fatalf("word %d became %d", i, r.Words[i])
				}
			}
		}
	}
}

func TestRegionRefuses(t *testing.T) {
	for _, c := range []struct {
		n    int
		want error
	}{
		{-1, ErrRange}, {math.MinInt, ErrRange}, {math.MaxInt, ErrNoAddressSpace}, {math.MaxInt / 8, ErrNoAddressSpace},
	} {
		if r, err := NewRegion(c.n, true); r != nil || !errors.Is(err, c.want) {
			t.Errorf("%d words: %v, want %v", c.n, err, c.want)
		}
	}
}
