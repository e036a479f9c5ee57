package spacemap

import (
	"fmt"
	"html/template"
	"strings"
)

// class is that of the rectangles of a look.
func (l Look) class() string {
	return [Looks]string{"live", "mostly-live", "mostly-dead", "dead", "unused", "header", "lost"}[l]
}

// svgStyle has the colours, for light and dark. Inline, it holds for the page: so each rule
// names the drawing. A small screen shrinks it, and the legend is to be read there too.
const svgStyle = `<style>
.spacemap{max-width:100%;height:auto}
.spacemap .live{fill:#1a7f4b}.spacemap .mostly-live{fill:#7bc096}.spacemap .mostly-dead{fill:#eab56b}.spacemap .dead{fill:#c2571a}
.spacemap .unused{fill:#d7dbe0}.spacemap .header{fill:#5b6675}.spacemap .lost{fill:#c1121f}
.spacemap text{font:12px system-ui,sans-serif;fill:#1d2530}
@media (prefers-color-scheme:dark){
.spacemap .live{fill:#35b674}.spacemap .mostly-live{fill:#2b7a53}.spacemap .mostly-dead{fill:#9a6a22}.spacemap .dead{fill:#e0813f}
.spacemap .unused{fill:#333c47}.spacemap .header{fill:#8b98a8}.spacemap .lost{fill:#ff5a66}
.spacemap text{fill:#dfe5ec}}
@media (max-width:640px){.spacemap text{font-size:20px}}
</style>`

const (
	svgCell = 10 // pixels of a cell's side
	svgRow  = 26 // ... of a line of the legend
)

// SVG draws the map of a file of so many bytes, so many cells in a row, with its legend: an
// element for a page, which needs no script and no other file, and has nothing in it but numbers.
func (m *Map) SVG(fileBytes int64, columns int) template.HTML {
	looks := m.Drawn(fileBytes)
	rows := (len(looks) + columns - 1) / columns
	width, height := columns*svgCell, rows*svgCell
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="spacemap" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" role="img" aria-label="space map">`,
		width, height+2*svgRow+4, width)
	fmt.Fprintf(&b, "<title>Where the bytes of the file are</title><desc>%d cells of %d bytes, from the start of the file to its end</desc>%s\n", len(looks), m.size, svgStyle)
	for at := 0; at < len(looks); {
		end := at + 1 // equal cells in a row are one rectangle
		for end < len(looks) && end%columns != 0 && looks[end] == looks[at] {
			end++
		}
		fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%d" width="%d" height="%d"/>`+"\n",
			looks[at].class(), at%columns*svgCell, at/columns*svgCell, (end-at)*svgCell-1, svgCell-1)
		at = end
	}
	x, y := 0, height+svgRow-6
	for l := range Looks {
		if l == Lost && !m.AnyDamage() {
			continue
		}
		if x+svgLegend > width {
			x, y = 0, y+svgRow
		}
		fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%d" width="11" height="11"/><text x="%d" y="%d">%s</text>`+"\n", l.class(), x, y-10, x+16, y, l.Label())
		x += svgLegend
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

// svgLegend is the width of one entry of the legend.
const svgLegend = 150
