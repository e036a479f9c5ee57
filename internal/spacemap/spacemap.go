// Package spacemap adds up what the bytes of a store's file are, in a memory that does not depend
// on its length, and draws that: kvtool in characters, pages as SVG.
package spacemap

// Kind is what a byte is. Bytes that were added as none are slack, or gaps in the log.
type Kind int

const (
	Header Kind = iota
	Live
	Dead
	Damaged
	kinds
)

// Cell has the bytes of each kind in one part of the file.
type Cell [kinds]int64

// Map is the file in cells of equal size.
type Map struct {
	size  int64 // bytes of a cell
	cells []Cell
}

// minCell is the smallest size of a cell, in bytes: records are as long at least.
const minCell = 8

// New returns a map in so many cells of a file of so many bytes, which may grow.
func New(fileBytes int64, cells int) *Map {
	return &Map{size: max(minCell, (fileBytes+int64(cells)-1)/int64(cells)), cells: make([]Cell, cells)}
}

// CellSize is the number of bytes that a cell stands for.
func (m *Map) CellSize() int64 { return m.size }

// Cells returns those of a file of so many bytes, in order: fewer than the map has, if it is shorter.
func (m *Map) Cells(fileBytes int64) []Cell {
	return m.cells[:min(int64(len(m.cells)), (fileBytes+m.size-1)/m.size)]
}

// Add counts the bytes [off, off+n) as one kind.
func (m *Map) Add(off, n int64, k Kind) {
	for off+n > m.size*int64(len(m.cells)) {
		m.fold()
	}
	for n > 0 {
		i := off / m.size
		part := min(n, (i+1)*m.size-off)
		m.cells[i][k] += part
		off, n = off+part, n-part
	}
}

// fold makes each cell twice as large, for a file that has grown.
func (m *Map) fold() {
	for i := range m.cells {
		var sum Cell
		for _, j := range [...]int{2 * i, 2*i + 1} {
			if j < len(m.cells) {
				for k, n := range m.cells[j] {
					sum[k] += n
				}
			}
		}
		m.cells[i] = sum
	}
	m.size *= 2
}

// Record counts a record of the log.
func (m *Map) Record(off, n int64, live bool) {
	if live {
		m.Add(off, n, Live)
	} else {
		m.Add(off, n, Dead)
	}
}

// AnyDamage tells whether any bytes are damaged.
func (m *Map) AnyDamage() bool {
	for i := range m.cells {
		if m.cells[i][Damaged] > 0 {
			return true
		}
	}
	return false
}

// Look is how a cell is drawn.
type Look int

const (
	AllLive Look = iota
	MostlyLive
	MostlyDead
	AllDead
	Unused
	IsHeader
	Lost
	Looks // how many there are
)

// Look returns how a cell looks of which size bytes lie in the file. Damage shows wherever there
// is any; otherwise it is what most of it is.
func (c *Cell) Look(size int64) Look {
	log := c[Live] + c[Dead]
	switch {
	case c[Damaged] > 0:
		return Lost
	case 2*c[Header] > size:
		return IsHeader
	case 2*(log+c[Header]) < size:
		return Unused
	case 16*c[Dead] <= log:
		return AllLive
	case 16*c[Live] <= log:
		return AllDead
	case c[Live] >= c[Dead]:
		return MostlyLive
	}
	return MostlyDead
}

// Drawn returns how each cell of a file of so many bytes looks.
func (m *Map) Drawn(fileBytes int64) []Look {
	cells := m.Cells(fileBytes)
	looks := make([]Look, len(cells))
	for i := range cells {
		looks[i] = cells[i].Look(min(m.size, fileBytes-int64(i)*m.size))
	}
	return looks
}

// Label says what a look means.
func (l Look) Label() string {
	return [Looks]string{"live", "mostly live", "mostly dead", "dead", "unused", "header", "lost"}[l]
}
