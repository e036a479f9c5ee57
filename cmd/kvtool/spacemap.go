package main

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/mmapkv/mmapkv/internal/spacemap"
)

// legend is a mark for each way that a cell may look, in the order of spacemap.Look.
type legend [spacemap.Looks]string

var (
	asciiLegend   = legend{"#", "+", "-", "x", ".", "H", "!"}
	unicodeLegend = legend{"█", "▓", "▒", "░", "·", "H", "!"}
)

func (c canvas) legend() legend {
	if c.ascii {
		return asciiLegend
	}
	return unicodeLegend
}

// inkOf returns the colour of a look.
func inkOf(l spacemap.Look) ink {
	switch l {
	case spacemap.AllLive, spacemap.MostlyLive:
		return inkGood
	case spacemap.MostlyDead:
		return inkWarn
	case spacemap.AllDead:
		return inkBad
	case spacemap.Lost:
		return inkAlarm
	}
	return inkFaint
}

// mapCells is how many cells drawMap has room for.
func (c canvas) mapCells() int { return mapRows * (c.columns - mapMargin) }

// drawMap draws the map of a file of so many bytes in rows of cells, each row behind the offset
// of its first.
func (c canvas) drawMap(w *bufio.Writer, m *spacemap.Map, fileBytes int64) {
	marks := c.legend()
	columns := c.columns - mapMargin
	looks := m.Drawn(fileBytes)
	for row := 0; row < len(looks); row += columns {
		fmt.Fprintf(w, "%*s  ", mapMargin-2, shortBytes(int64(row)*m.CellSize()))
		end := min(len(looks), row+columns)
		for at, next := row, row; at < end; at = next { // equal marks in a row are painted at once
			for next < end && looks[next] == looks[at] {
				next++
			}
			w.WriteString(c.paint(inkOf(looks[at]), strings.Repeat(marks[looks[at]], next-at)))
		}
		w.WriteString("\n")
	}
	w.WriteString(strings.Repeat(" ", mapMargin-2))
	for l := range spacemap.Looks {
		if l != spacemap.Lost || m.AnyDamage() {
			fmt.Fprintf(w, "  %s %s", c.paint(inkOf(l), marks[l]), l.Label())
		}
	}
	fmt.Fprintf(w, "\n%*sa cell is %s\n", mapMargin, "", shortBytes(m.CellSize()))
}

const (
	mapMargin = 10 // columns left of the map
	mapRows   = 4
)
