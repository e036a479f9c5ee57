package main

import (
	"bufio"
	"fmt"
	"math/bits"
	"time"

	"github.com/dustin/go-humanize"
)

// sizes counts sizes: bucket 0 those of 0, bucket n those of 2^(n-1) to 2^n - 1.
type sizes [65]int64

func (s *sizes) add(n int64) { s[bits.Len64(uint64(n))]++ }

// bounds returns the least and the greatest size in a bucket.
func bounds(bucket int) (least, most int64) {
	if bucket == 0 {
		return 0, 0
	}
	return 1 << (bucket - 1), 1<<(bucket-1) - 1 + 1<<(bucket-1)
}

// buckets returns the ones from the first to the last that hold anything.
func (s *sizes) buckets() (rows []bucket) {
	for i, n := range s {
		if n == 0 && len(rows) == 0 {
			continue
		}
		least, most := bounds(i)
		rows = append(rows, bucket{Least: least, Most: most, Count: n})
	}
	for len(rows) > 0 && rows[len(rows)-1].Count == 0 {
		rows = rows[:len(rows)-1]
	}
	return rows
}

// bucket is a row of a histogram of sizes.
type bucket struct {
	Least int64 `json:"least"` // bytes
	Most  int64 `json:"most"`  // bytes
	Count int64 `json:"count"`
}

func (b bucket) label() string {
	if b.Least == b.Most {
		return shortBytes(b.Least)
	}
	return fmt.Sprintf("%s to %s", shortBytes(b.Least), shortBytes(b.Most+1))
}

// ages counts how long ago something was.
type ages [8]int64

// ageLimits are the upper bounds of all buckets but the last.
var ageLimits = [len(ages{}) - 1]struct {
	name  string
	limit time.Duration
}{
	{"1 minute", time.Minute},
	{"1 hour", time.Hour},
	{"1 day", 24 * time.Hour},
	{"1 week", 7 * 24 * time.Hour},
	{"30 days", 30 * 24 * time.Hour},
	{"1 year", 365 * 24 * time.Hour},
	{"10 years", 3652 * 24 * time.Hour},
}

// add counts an age. A negative one, of a clock that was set back, is none.
func (a *ages) add(age time.Duration) {
	for i := range ageLimits {
		if age < ageLimits[i].limit {
			a[i]++
			return
		}
	}
	a[len(a)-1]++
}

func ageLabel(i int) string {
	if i == len(ageLimits) {
		return "older"
	}
	return "under " + ageLimits[i].name
}

// ageBucket is a row of a histogram of ages.
type ageBucket struct {
	Label string `json:"label"`
	Count int64  `json:"count"`
}

// buckets returns those that hold anything.
func (a *ages) buckets() (rows []ageBucket) {
	for i, n := range a {
		if n > 0 {
			rows = append(rows, ageBucket{ageLabel(i), n})
		}
	}
	return rows
}

// row is a line of a drawn histogram.
type row struct {
	label string
	count int64
}

func (s *sizes) rows() (rows []row) {
	for _, b := range s.buckets() {
		rows = append(rows, row{b.label(), b.Count})
	}
	return rows
}

func (a *ages) rows() (rows []row) {
	for _, b := range a.buckets() {
		rows = append(rows, row{b.Label, b.Count})
	}
	return rows
}

const (
	labelColumns = 20
	countColumns = 14
)

// histogram draws rows with a bar each; the longest fills the line.
func (c canvas) histogram(w *bufio.Writer, rows []row) {
	most := int64(0)
	for _, r := range rows {
		most = max(most, r.count)
	}
	for _, r := range rows {
		line := fmt.Sprintf("%*s %*s", labelColumns, r.label, countColumns, humanize.Comma(r.count))
		if bar := c.bar(r.count, most, c.columns-labelColumns-countColumns-2); bar != "" {
			line += " " + bar
		}
		fmt.Fprintln(w, line)
	}
}

// shortBytes is n in at most eight characters.
func shortBytes(n int64) string { return humanize.IBytes(uint64(n)) }
