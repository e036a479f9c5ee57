package main

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/mmapkv/mmapkv/kv"
)

// spaceMap adds up, for each of some cells of equal size over the file, how many
// of its bytes are what. Its size does not depend on that of the file.
type spaceMap struct {
	cell  int64 // bytes of one
	cells []cellBytes
}

// cellBytes are the bytes of one cell; those of no kind are slack and gaps.
type cellBytes struct{ header, live, dead, damaged int64 }

// newSpaceMap returns a map of a file of so many bytes, or a little more.
func newSpaceMap(fileBytes int64, cells int) *spaceMap {
	m := &spaceMap{cell: 8, cells: make([]cellBytes, cells)}
	m.cell = max(m.cell, (fileBytes+int64(cells)-1)/int64(cells))
	return m
}

// add counts the bytes [off, off+n) as one kind: pick says where.
func (m *spaceMap) add(off, n int64, pick func(*cellBytes) *int64) {
	for off+n > m.cell*int64(len(m.cells)) {
		m.fold()
	}
	for n > 0 {
		i := off / m.cell
		part := min(n, (i+1)*m.cell-off)
		*pick(&m.cells[i]) += part
		off, n = off+part, n-part
	}
}

func inHeader(c *cellBytes) *int64  { return &c.header }
func inLive(c *cellBytes) *int64    { return &c.live }
func inDead(c *cellBytes) *int64    { return &c.dead }
func inDamaged(c *cellBytes) *int64 { return &c.damaged }

// fold makes each cell twice as large, for a file that has grown.
func (m *spaceMap) fold() {
	for i := range m.cells {
		var sum cellBytes
		for _, j := range [...]int{2 * i, 2*i + 1} {
			if j < len(m.cells) {
				c := &m.cells[j]
				sum.header += c.header
				sum.live += c.live
				sum.dead += c.dead
				sum.damaged += c.damaged
			}
		}
		m.cells[i] = sum
	}
	m.cell *= 2
}

// record counts a record.
func (m *spaceMap) record(r *kv.Record) {
	if r.Live {
		m.add(r.Off, r.Len, inLive)
	} else {
		m.add(r.Off, r.Len, inDead)
	}
}

// legend is a mark for each way that a cell may look.
type legend struct{ header, live, mostlyLive, mostlyDead, dead, damaged, slack string }

var (
	asciiLegend   = legend{"H", "#", "+", "-", "x", "!", "."}
	unicodeLegend = legend{"H", "█", "▓", "▒", "░", "!", "·"}
)

func (c canvas) legend() legend {
	if c.ascii {
		return asciiLegend
	}
	return unicodeLegend
}

// ink returns the colour of a mark.
func (l *legend) ink(mark string) ink {
	switch mark {
	case l.live, l.mostlyLive:
		return inkGood
	case l.mostlyDead:
		return inkWarn
	case l.dead:
		return inkBad
	case l.damaged:
		return inkAlarm
	}
	return inkFaint
}

// marks appends so many equal marks, in their colour.
func (c canvas) marks(b *strings.Builder, l *legend, mark string, n int) {
	b.WriteString(c.paint(l.ink(mark), strings.Repeat(mark, n)))
}

// mark returns how a cell of which size bytes lie in the file looks. Damage shows
// wherever there is any; otherwise it is what most of it is.
func (l *legend) mark(c *cellBytes, size int64) string {
	log := c.live + c.dead
	switch {
	case c.damaged > 0:
		return l.damaged
	case 2*c.header > size:
		return l.header
	case 2*(log+c.header) < size:
		return l.slack
	case 16*c.dead <= log:
		return l.live
	case 16*c.live <= log:
		return l.dead
	case c.live >= c.dead:
		return l.mostlyLive
	}
	return l.mostlyDead
}

// draw draws the map of a file of so many bytes in rows of cells, each row behind
// the offset of its first.
func (m *spaceMap) draw(w *bufio.Writer, c canvas, fileBytes int64) {
	l := c.legend()
	columns := c.columns - mapMargin
	n := min(len(m.cells), int((fileBytes+m.cell-1)/m.cell))
	for row := 0; row < n; row += columns {
		var b strings.Builder
		last, run := "", 0 // equal marks in a row are painted at once
		for i := row; i < min(n, row+columns); i++ {
			mark := l.mark(&m.cells[i], min(m.cell, fileBytes-int64(i)*m.cell))
			if mark != last {
				c.marks(&b, &l, last, run)
				last, run = mark, 0
			}
			run++
		}
		c.marks(&b, &l, last, run)
		fmt.Fprintf(w, "%*s  %s\n", mapMargin-2, shortBytes(int64(row)*m.cell), b.String())
	}
	key := func(mark string) string { return c.paint(l.ink(mark), mark) }
	fmt.Fprintf(w, "%*s%s live  %s mostly live  %s mostly dead  %s dead  %s unused  %s header", mapMargin, "",
		key(l.live), key(l.mostlyLive), key(l.mostlyDead), key(l.dead), key(l.slack), key(l.header))
	if m.anyDamage() {
		fmt.Fprintf(w, "  %s lost", key(l.damaged))
	}
	fmt.Fprintf(w, "\n%*sa cell is %s\n", mapMargin, "", shortBytes(m.cell))
}

func (m *spaceMap) anyDamage() bool {
	for i := range m.cells {
		if m.cells[i].damaged > 0 {
			return true
		}
	}
	return false
}

const (
	mapMargin = 10 // columns left of the map
	mapRows   = 4
)
