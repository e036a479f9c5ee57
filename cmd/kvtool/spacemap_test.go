package main

import (
	"bufio"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/mmapkv/mmapkv/kv"
)

// Goal: every byte is counted once, in the cell that it lies in, also when the
// file outgrows the map. Method: random records against a slice of all bytes.
func TestSpaceMapCounts(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		m := newSpaceMap(rng.Int64N(4000), 1+rng.IntN(70))
		var live, dead []bool // of each byte of the file
		for range rng.IntN(60) {
			r := kv.Record{Off: int64(len(live)), Len: 8 * (1 + rng.Int64N(30)), Live: rng.IntN(2) == 0}
			m.record(&r)
			for range r.Len {
				live, dead = append(live, r.Live), append(dead, !r.Live)
			}
		}
		for i, c := range m.cells {
			from := min(int64(i)*m.cell, int64(len(live)))
			to := min(from+m.cell, int64(len(live)))
			if want := trues(live[from:to]); c.live != want {
				t.Fatalf("seed %d: cell %d has %d live bytes, want %d", seed, i, c.live, want)
			}
			if want := trues(dead[from:to]); c.dead != want {
				t.Fatalf("seed %d: cell %d has %d dead bytes, want %d", seed, i, c.dead, want)
			}
		}
		if covered := m.cell * int64(len(m.cells)); covered < int64(len(live)) {
			t.Fatalf("seed %d: the map covers %d bytes of %d", seed, covered, len(live))
		}
	}
}

func trues(bs []bool) (n int64) {
	for _, b := range bs {
		if b {
			n++
		}
	}
	return n
}

// Goal: a cell looks like most of its bytes; damage always shows.
func TestSpaceMapMark(t *testing.T) {
	for _, test := range []struct {
		name string
		cell cellBytes
		size int64
		want string
	}{
		{"live", cellBytes{live: 100}, 100, "#"},
		{"live but for a crumb", cellBytes{live: 95, dead: 5}, 100, "#"},
		{"mostly live", cellBytes{live: 60, dead: 40}, 100, "+"},
		{"mostly dead", cellBytes{live: 40, dead: 60}, 100, "-"},
		{"dead", cellBytes{dead: 100}, 100, "x"},
		{"nothing", cellBytes{}, 100, "."},
		{"a little of the tail", cellBytes{live: 40}, 100, "."},
		{"the last cell, cut short", cellBytes{live: 40}, 50, "#"},
		{"header", cellBytes{header: 60, live: 40}, 100, "H"},
		{"a little header", cellBytes{header: 10, live: 90}, 100, "#"},
		{"one byte of damage", cellBytes{live: 99, damaged: 1}, 100, "!"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := asciiLegend.mark(&test.cell, test.size); got != test.want {
				t.Errorf("looks like %s, want %s", got, test.want)
			}
		})
	}
}

// Goal: the drawing is as wide as the canvas and no wider, and has a cell for each
// part of the file.
func TestSpaceMapDraw(t *testing.T) {
	for _, columns := range []int{minColumns, defaultColumns, maxColumns} {
		const fileBytes = 10_000
		c := canvas{columns: columns, ascii: true}
		m := newSpaceMap(fileBytes, mapRows*(columns-mapMargin))
		m.add(0, 5000, inLive)
		m.add(5000, 5000, inDamaged)
		var b strings.Builder
		w := bufio.NewWriter(&b)
		m.draw(w, c, fileBytes)
		w.Flush()
		cells := 0
		for i, line := range strings.Split(b.String(), "\n") {
			if i < mapRows {
				cells += len(line) - mapMargin
				if len(line) > columns {
					t.Errorf("%d columns: row %q has %d", columns, line, len(line))
				}
			}
		}
		if want := int((fileBytes + m.cell - 1) / m.cell); cells != want {
			t.Errorf("%d columns: %d cells, want %d", columns, cells, want)
		}
		if !strings.Contains(b.String(), "! lost") {
			t.Errorf("no word of the damage:\n%s", b.String())
		}
	}
}
