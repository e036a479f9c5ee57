package main

import (
	"bufio"
	"context"
	_ "embed"
	"fmt"
	"html/template"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/mmapkv/mmapkv/kv"
)

// pageText is the page of inspect --html. Html/template escapes what it is given; what a page
// could still be misread by, such as a change of the writing direction, is escaped before, by
// writeText, as in what is printed.
//
//go:embed inspect.html.tmpl
var pageText string

var pageTemplate = template.Must(template.New("inspect").Funcs(template.FuncMap{
	"bytes": shortBytes, "exact": exactBytes, "comma": humanize.Comma, "day": day, "text": shown[printable],
}).Parse(pageText))

// The space map of a page.
const (
	pageMapColumns = 60
	pageMapRows    = 30
)

// shownColumns is how much of a key, a path or a name a page has.
const shownColumns = 160

// shown returns b as a page shows it, cut where it is too long.
func shown[T ~string | ~[]byte](b T) string {
	return canvas{columns: shownColumns}.fit([]byte(b), shownColumns)
}

// inspectPage writes what inspect finds of the store at path to output, as a page.
func (t *tool) inspectPage(ctx context.Context, path string, r reading, output string, force bool) error {
	if force {
		if err := mayReplace(path, output); err != nil {
			return err
		}
	}
	return t.readToFile(path, r, output, force, func(s *kv.Store, w *bufio.Writer) error {
		i, err := t.inspect(ctx, s, pageMapColumns*pageMapRows)
		if err != nil {
			return err
		}
		return pageTemplate.Execute(w, i.page())
	})
}

// page is what pageTemplate shows.
type page struct {
	Path           string
	Generation     uint64
	Keys           int64
	LogRecords     int64
	DeadRecords    int64
	Tombstones     int64
	FileBytes      int64
	LostBytes      int64
	Lost           []byteRange // the first of them
	LostMore       int         // how many are not in Lost
	Space          []barRow
	Map            template.HTML
	Cell           int64
	Growth         *growthChart // nil: nothing is in the log
	Entries        []bars       // what the live entries are like
	Oldest, Newest time.Time
	Largest        []largeRow
	Maps           []mapSize
	Now            time.Time
	Version        string
}

// barRow is a row of a histogram: its bar is a share of the longest, in percent.
type barRow struct {
	Label, Figure, Share string
	Bar                  float64
}

type bars struct {
	Title string
	Of    string // what a row's label is
	Rows  []barRow
}

type largeRow struct {
	Key                   string
	Record, Value, Offset int64
}

// lostShown is how many damaged places a page lists.
const lostShown = 20

func (i *inspection) page() *page {
	p := &page{
		Path: shown(i.path), Generation: i.stats.Generation, Keys: i.liveRecords, LogRecords: i.records, DeadRecords: i.records - i.liveRecords, Tombstones: i.tombstones,
		FileBytes: i.stats.FileBytes, LostBytes: sum(i.stats.Missing), Lost: ranges(i.stats.Missing),
		Map: i.space.SVG(i.stats.FileBytes, pageMapColumns), Cell: i.space.CellSize(), Growth: i.growth.chart(),
		Oldest: i.oldest, Newest: i.newest, Maps: i.maps.list(), Now: i.now, Version: toolVersion(),
	}
	if more := len(p.Lost) - lostShown; more > 0 {
		p.Lost, p.LostMore = p.Lost[:lostShown], more
	}
	for _, part := range i.parts() {
		share := 100 * float64(part.bytes) / float64(max(i.stats.FileBytes, 1))
		p.Space = append(p.Space, barRow{part.name, exactBytes(part.bytes), fmt.Sprintf("%.1f %%", share), share})
	}
	for _, l := range i.largest.rows {
		p.Largest = append(p.Largest, largeRow{shown(l.key), l.recordBytes, l.valueBytes, l.off})
	}
	if i.liveRecords > 0 {
		p.Entries = []bars{
			{"Sizes of keys", "size", barsOf(i.keySizes.rows())},
			{"Sizes of values", "size", barsOf(i.valueSizes.rows())},
			{"Written how long ago", "age", barsOf(i.ages.rows())},
			{"Deadlines", "deadline", barsOf(i.deadlines())},
		}
	}
	return p
}

// barsOf draws rows. What is not nothing shows.
func barsOf(rows []row) (drawn []barRow) {
	most := int64(1)
	for _, r := range rows {
		most = max(most, r.count)
	}
	for _, r := range rows {
		bar := 100 * float64(r.count) / float64(most)
		if r.count > 0 {
			bar = max(bar, 0.5)
		}
		drawn = append(drawn, barRow{Label: r.label, Figure: humanize.Comma(r.count), Bar: bar})
	}
	return drawn
}

// growthChart is growth as a line: the bytes in the log by when they were written.
type growthChart struct {
	Bytes            int64 // in all
	From, Middle, To time.Time
	Line             string // points of an SVG, from 0,0 to chartWidth,chartHeight
	Parts            []growthSlice
}

// growthSlice is a part of the chart, which says what it is when it is pointed at.
type growthSlice struct {
	growthRow
	X, Width float64
}

const (
	chartWidth  = 600
	chartHeight = 160
)

func (g *growth) chart() *growthChart {
	rows := g.rows()
	if len(rows) == 0 {
		return nil
	}
	c := &growthChart{From: rows[0].From, To: rows[len(rows)-1].To}
	c.Middle = time.Unix(c.From.Unix()+(c.To.Unix()-c.From.Unix())/2, 0) // a Duration may be too short for all of it
	for _, r := range rows {
		c.Bytes += r.Bytes
	}
	var line strings.Builder
	fmt.Fprintf(&line, "0,%d", chartHeight)
	width, done := chartWidth/float64(len(rows)), int64(0)
	for i, r := range rows {
		done += r.Bytes
		x := float64(i) * width
		fmt.Fprintf(&line, " %.2f,%.2f", x+width, chartHeight*(1-float64(done)/float64(c.Bytes)))
		c.Parts = append(c.Parts, growthSlice{r, x, width})
	}
	c.Line = line.String()
	return c
}
