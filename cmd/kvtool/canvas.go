package main

import (
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// canvas is what a drawing may use: so many columns, which characters, and colours.
type canvas struct {
	columns int
	ascii   bool
	palette
}

const (
	minColumns     = 40
	defaultColumns = 80
	maxColumns     = 160
)

// canvas returns that of stdout. A pipe has 80 columns of ASCII.
func (t *tool) canvas(ascii bool) canvas {
	c := canvas{columns: defaultColumns, ascii: ascii, palette: t.palette(t.out)}
	if !isTerminal(t.out) {
		c.ascii = true
		return c
	}
	if columns, _, err := term.GetSize(int(t.out.Fd())); err == nil && columns > 0 {
		c.columns = min(max(columns, minColumns), maxColumns)
	}
	c.ascii = c.ascii || !localeIsUTF8()
	return c
}

// localeIsUTF8 asks the variables that decide, in the order in which they do.
func localeIsUTF8() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(name); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

// bar draws n of most as a bar of at most columns. What is not nothing shows.
func (c canvas) bar(n, most int64, columns int) string {
	if n <= 0 || most <= 0 || columns <= 0 {
		return ""
	}
	mark := "█"
	if c.ascii {
		mark = "#"
	}
	return strings.Repeat(mark, max(1, int(float64(n)/float64(most)*float64(columns))))
}

// fit writes key in at most columns, quoted where it must be, and cut where it is
// too long.
func (c canvas) fit(key []byte, columns int) string {
	// Four bytes take a column at least, but for marks that combine with the rune
	// before them: what is cut anyway need not be escaped.
	cut := key[:min(len(key), 4*columns)]
	var b strings.Builder
	writeText(&b, cut)
	text := b.String()
	if c.ascii && !isASCII(text) {
		text = strconv.QuoteToASCII(string(cut))
	}
	const more = "..."
	used, end := 0, 0 // end: of what leaves room for more
	for i, r := range text {
		used += runeWidth(r)
		if used <= columns-len(more) {
			end = i + utf8.RuneLen(r)
		}
	}
	if used <= columns && len(cut) == len(key) {
		return text
	}
	return text[:end] + more
}

// runeWidth is the most columns that a printable rune takes. Some take less.
func runeWidth(r rune) int {
	if r < 0x1100 {
		return 1
	}
	return 2
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}
