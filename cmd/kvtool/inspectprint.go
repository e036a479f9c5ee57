package main

import (
	"bufio"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/mmapkv/mmapkv/internal/spacemap"
	"github.com/mmapkv/mmapkv/kv"
)

// drawSpace draws where the bytes of the file are.
func (i *inspection) drawSpace(w *bufio.Writer, c canvas) {
	file := max(i.stats.FileBytes, 1)
	fmt.Fprintf(w, "%s\n", c.fit([]byte(i.path), c.columns))
	fmt.Fprintf(w, "generation %d, %s records: %s live, %s dead, %s of them tombstones\n\n", i.stats.Generation,
		humanize.Comma(i.records), humanize.Comma(i.liveRecords), humanize.Comma(i.records-i.liveRecords), humanize.Comma(i.tombstones))
	for _, p := range i.parts() {
		fmt.Fprintf(w, "%*s  %-32s %5.1f %%\n", mapMargin-2, p.name, exactBytes(p.bytes), 100*float64(p.bytes)/float64(file))
	}
	fmt.Fprintln(w)
	c.drawMap(w, i.space, i.stats.FileBytes)
}

// part is what some bytes of the file are.
type part struct {
	name  string
	bytes int64
}

// parts returns what the bytes of the file are, and last the file itself.
func (i *inspection) parts() []part {
	parts := []part{{"live", i.liveBytes}, {"dead", i.deadBytes}}
	if lost := sum(i.stats.Missing); lost > 0 {
		parts = append(parts, part{"lost", lost})
	}
	if gaps := i.gaps(); gaps > 0 {
		parts = append(parts, part{"gaps", gaps})
	}
	return append(parts, part{"slack", i.slack()}, part{"header", i.headerBytes}, part{"file", i.stats.FileBytes})
}

// drawEntries draws what the live entries are like.
func (i *inspection) drawEntries(w *bufio.Writer, c canvas) {
	if i.liveRecords == 0 {
		fmt.Fprintf(w, "\nno keys\n")
		return
	}
	fmt.Fprintf(w, "\nsizes of keys\n")
	c.histogram(w, i.keySizes.rows())
	fmt.Fprintf(w, "\nsizes of values\n")
	c.histogram(w, i.valueSizes.rows())
	fmt.Fprintf(w, "\nlargest records\n")
	for _, l := range i.largest.rows {
		label := fmt.Sprintf("%*s  ", mapMargin-2, shortBytes(l.recordBytes))
		fmt.Fprintf(w, "%s%s\n", label, c.fit(l.key, c.columns-len(label)))
	}
	fmt.Fprintf(w, "\nwritten how long ago, from %s to %s\n", day(i.oldest), day(i.newest))
	c.histogram(w, i.ages.rows())
	fmt.Fprintf(w, "\ndeadlines\n")
	c.histogram(w, i.deadlines())
	i.maps.print(w)
}

func (i *inspection) deadlines() []row {
	return []row{{"none", i.noDeadline}, {"to come", i.laterDeadline}, {"passed", i.outdated}}
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// inspectJSON is what inspect --json prints.
type inspectJSON struct {
	Path        printable   `json:"path"`
	Generation  uint64      `json:"generation"`
	Records     int64       `json:"records"`
	LiveRecords int64       `json:"live_records"`
	Tombstones  int64       `json:"tombstones"`
	HeaderBytes int64       `json:"header_bytes"`
	LiveBytes   int64       `json:"live_bytes"`
	DeadBytes   int64       `json:"dead_bytes"`
	GapBytes    int64       `json:"gap_bytes"`
	SlackBytes  int64       `json:"slack_bytes"`
	FileBytes   int64       `json:"file_bytes"`
	Missing     []byteRange `json:"missing"`
	Space       spaceJSON   `json:"space_map"`
	KeySizes    []bucket    `json:"key_sizes"`
	ValueSizes  []bucket    `json:"value_sizes"`
	Largest     []largeJSON `json:"largest"`
	Maps        []mapSize   `json:"maps"`
	Ages        []ageBucket `json:"ages"`
	Growth      []growthRow `json:"growth"` // of the log: dead records too
	Oldest      *time.Time  `json:"oldest,omitempty"`
	Newest      *time.Time  `json:"newest,omitempty"`
	Deadlines   struct {
		None   int64 `json:"none"`
		ToCome int64 `json:"to_come"`
		Passed int64 `json:"passed"`
	} `json:"deadlines"`
}

type byteRange struct {
	Offset int64 `json:"offset"`
	Bytes  int64 `json:"bytes"`
}

// spaceJSON is the map of the file: the bytes of each cell, in order.
type spaceJSON struct {
	CellBytes int64   `json:"cell_bytes"`
	Live      []int64 `json:"live"`
	Dead      []int64 `json:"dead"`
}

type largeJSON struct {
	jsonKey
	Offset      int64 `json:"offset"`
	RecordBytes int64 `json:"record_bytes"`
	ValueBytes  int64 `json:"value_bytes"`
}

func (i *inspection) json() *inspectJSON {
	j := &inspectJSON{
		Path: printable(i.path), Generation: i.stats.Generation, Records: i.records, LiveRecords: i.liveRecords, Tombstones: i.tombstones,
		HeaderBytes: i.headerBytes, LiveBytes: i.liveBytes, DeadBytes: i.deadBytes, GapBytes: i.gaps(), SlackBytes: i.slack(), FileBytes: i.stats.FileBytes,
		Missing: ranges(i.stats.Missing), KeySizes: i.keySizes.buckets(), ValueSizes: i.valueSizes.buckets(), Ages: i.ages.buckets(), Growth: i.growth.rows(), Maps: i.maps.list(),
	}
	j.Space.CellBytes = i.space.CellSize()
	for _, c := range i.space.Cells(i.stats.FileBytes) {
		j.Space.Live = append(j.Space.Live, c[spacemap.Live])
		j.Space.Dead = append(j.Space.Dead, c[spacemap.Dead])
	}
	for _, l := range i.largest.rows {
		j.Largest = append(j.Largest, largeJSON{newJSONKey(l.key), l.off, l.recordBytes, l.valueBytes})
	}
	if i.liveRecords > 0 {
		oldest, newest := i.oldest.UTC(), i.newest.UTC()
		j.Oldest, j.Newest = &oldest, &newest
	}
	j.Deadlines.None, j.Deadlines.ToCome, j.Deadlines.Passed = i.noDeadline, i.laterDeadline, i.outdated
	return j
}

func ranges(missing []kv.Range) []byteRange {
	rs := []byteRange{}
	for _, m := range missing {
		rs = append(rs, byteRange{m.Off, m.Len})
	}
	return rs
}
