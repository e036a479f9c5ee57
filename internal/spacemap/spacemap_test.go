package spacemap

import (
	"encoding/xml"
	"errors"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/mmapkv/mmapkv/kv/kvtest"
)

// Goal: every byte is counted once, in the cell that it lies in, also when the file outgrows the
// map. Method: random records against a slice of all bytes.
func TestCounts(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		m := New(rng.Int64N(4000), 1+rng.IntN(70))
		var live, dead []bool // of each byte of the file
		for range rng.IntN(60) {
			n, isLive := 8*(1+rng.Int64N(30)), rng.IntN(2) == 0
			m.Record(int64(len(live)), n, isLive)
			for range n {
				live, dead = append(live, isLive), append(dead, !isLive)
			}
		}
		for i, c := range m.cells {
			from := min(int64(i)*m.size, int64(len(live)))
			to := min(from+m.size, int64(len(live)))
			if got, want := [2]int64{c[Live], c[Dead]}, [2]int64{trues(live[from:to]), trues(dead[from:to])}; got != want {
				t.Fatalf("seed %d: cell %d has %d live and dead bytes, want %d", seed, i, got, want)
			}
		}
		if covered := m.size * int64(len(m.cells)); covered < int64(len(live)) {
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

// Goal: the map of a store has its records byte for byte, and all of the file that it is said to
// be of, whatever is written meanwhile. Method: a store that is written, and grows, while it is read.
func TestRead(t *testing.T) {
	s := kvtest.Open(t, nil)
	put := func(key byte, n int) {
		if err := s.Put([]byte{key}, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	put(1, 1000)
	put(1, 100)
	const cells = 50
	begun := s.Stats()
	live, dead := int64(0), int64(0)
	m, st, err := Read(t.Context(), s, cells, func(r *kv.Record, end int64) {
		if live+dead == 0 {
			put(2, 2*cells*int(begun.FileBytes))
		}
		if r.Live {
			live += r.Len
		} else {
			dead += r.Len
		}
		if end != begun.Tail {
			t.Errorf("the log ends at %d, want %d", end, begun.Tail)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	var sum Cell
	for _, c := range m.Cells(st.FileBytes) {
		for k, n := range c {
			sum[k] += n
		}
	}
	if want := (Cell{Header: HeaderBytes, Live: live, Dead: dead}); sum != want || live == 0 || dead == 0 {
		t.Errorf("the map has %v, the log %v", sum, want)
	}
	if covered := m.CellSize() * int64(len(m.Cells(st.FileBytes))); covered < st.FileBytes {
		t.Errorf("the map covers %d bytes of %d", covered, st.FileBytes)
	}
}

// Goal: a cell looks like most of its bytes; damage always shows. Method: a table.
func TestLook(t *testing.T) {
	for _, tc := range []struct {
		name string
		cell Cell
		size int64
		want Look
	}{
		{"live", Cell{Live: 100}, 100, AllLive},
		{"live but for a crumb", Cell{Live: 95, Dead: 5}, 100, AllLive},
		{"mostly live", Cell{Live: 60, Dead: 40}, 100, MostlyLive},
		{"mostly dead", Cell{Live: 40, Dead: 60}, 100, MostlyDead},
		{"dead", Cell{Dead: 100}, 100, AllDead},
		{"nothing", Cell{}, 100, Unused},
		{"a little of the tail", Cell{Live: 40}, 100, Unused},
		{"the last cell, cut short", Cell{Live: 40}, 50, AllLive},
		{"header", Cell{Header: 60, Live: 40}, 100, IsHeader},
		{"a little header", Cell{Header: 10, Live: 90}, 100, AllLive},
		{"one byte of damage", Cell{Live: 99, Damaged: 1}, 100, Lost},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.cell.Look(tc.size); got != tc.want {
				t.Errorf("looks %s, want %s", got.Label(), tc.want.Label())
			}
		})
	}
}

// Goal: the SVG is one well-formed element, with a rectangle over each cell and none outside the
// drawing, and tells of damage if there is any. Method: an XML parser over maps of several sizes.
func TestSVG(t *testing.T) {
	for _, fileBytes := range []int64{0, 1, 800, 10_000, 1 << 40} {
		m := New(fileBytes, 300)
		m.Add(0, fileBytes/2, Live)
		if fileBytes > 1000 {
			m.Add(fileBytes/2, 100, Damaged)
		}
		const columns = 60
		svg := string(m.SVG(fileBytes, columns))
		cells, rows := 0, (len(m.Cells(fileBytes))+columns-1)/columns
		for d := xml.NewDecoder(strings.NewReader(svg)); ; {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%d bytes: %v", fileBytes, err)
			}
			if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
				n := map[string]int{}
				for _, a := range e.Attr {
					n[a.Name.Local], _ = strconv.Atoi(a.Value)
				}
				if n["y"] < rows*svgCell {
					cells += (n["width"] + 1) / svgCell
				}
				if n["x"]+n["width"] > columns*svgCell {
					t.Errorf("%d bytes: a rectangle ends at %d", fileBytes, n["x"]+n["width"])
				}
			}
		}
		if want := len(m.Cells(fileBytes)); cells != want {
			t.Errorf("%d bytes: %d cells, want %d", fileBytes, cells, want)
		}
		if strings.Contains(svg, ">lost<") != m.AnyDamage() {
			t.Errorf("%d bytes: damage %v, and the legend %s", fileBytes, m.AnyDamage(), svg)
		}
	}
}
