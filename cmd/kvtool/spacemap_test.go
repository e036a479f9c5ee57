package main

import (
	"bufio"
	"strings"
	"testing"

	"github.com/mmapkv/mmapkv/internal/spacemap"
)

// Goal: the drawing is as wide as the canvas and no wider, and has a cell for each
// part of the file.
func TestSpaceMapDraw(t *testing.T) {
	for _, columns := range []int{minColumns, defaultColumns, maxColumns} {
		const fileBytes = 10_000
		c := canvas{columns: columns, ascii: true}
		m := spacemap.New(fileBytes, mapRows*(columns-mapMargin))
		m.Add(0, 5000, spacemap.Live)
		m.Add(5000, 5000, spacemap.Damaged)
		var b strings.Builder
		w := bufio.NewWriter(&b)
		c.drawMap(w, m, fileBytes)
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
		if want := len(m.Cells(fileBytes)); cells != want {
			t.Errorf("%d columns: %d cells, want %d", columns, cells, want)
		}
		if !strings.Contains(b.String(), "! lost") {
			t.Errorf("no word of the damage:\n%s", b.String())
		}
	}
}
