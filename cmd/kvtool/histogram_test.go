package main

import (
	"bufio"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// Goal: a size is counted in the bucket whose bounds hold it, at the edges too.
func TestSizes(t *testing.T) {
	for _, n := range []int64{0, 1, 2, 3, 4, 7, 8, 1023, 1024, 1 << 30, math.MaxInt64} {
		var s sizes
		s.add(n)
		rows := s.buckets()
		if len(rows) != 1 || rows[0].Count != 1 || n < rows[0].Least || n > rows[0].Most {
			t.Errorf("%d is counted in %+v", n, rows)
		}
	}
	var s sizes
	s.add(1)
	s.add(5)
	s.add(6)
	want := []bucket{{1, 1, 1}, {2, 3, 0}, {4, 7, 2}}
	rows := s.buckets()
	if len(rows) != len(want) || rows[0] != want[0] || rows[1] != want[1] || rows[2] != want[2] {
		t.Errorf("buckets %+v, want %+v", rows, want)
	}
	if got := rows[2].label(); got != "4 B to 8 B" {
		t.Errorf("label %q", got)
	}
	if rows := new(sizes).buckets(); len(rows) != 0 {
		t.Errorf("buckets of nothing: %+v", rows)
	}
}

// Goal: an age is counted under the limit that it has not reached.
func TestAges(t *testing.T) {
	for _, test := range []struct {
		name string
		age  time.Duration
		want string
	}{
		{"a clock set back", -time.Hour, "under 1 minute"},
		{"now", 0, "under 1 minute"},
		{"a minute", time.Minute, "under 1 hour"},
		{"a year", 365 * 24 * time.Hour, "under 10 years"},
		{"a century", 100 * 365 * 24 * time.Hour, "older"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var a ages
			a.add(test.age)
			if rows := a.buckets(); len(rows) != 1 || rows[0] != (ageBucket{test.want, 1}) {
				t.Errorf("counted in %+v, want %s", rows, test.want)
			}
		})
	}
}

// Goal: no line of a histogram is wider than the canvas; what is not nothing has a bar.
func TestHistogramFits(t *testing.T) {
	for _, c := range []canvas{{minColumns, true, false}, {defaultColumns, true, false}, {defaultColumns, false, false}, {maxColumns, false, false}} {
		var b strings.Builder
		w := bufio.NewWriter(&b)
		c.histogram(w, []row{{"512 KiB to 1.0 MiB", 1}, {"b", math.MaxInt32}, {"c", 0}})
		w.Flush()
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		for i, line := range lines {
			n := utf8.RuneCountInString(line)
			bar := strings.ContainsAny(line, "#█")
			if n > c.columns || bar != (i < 2) {
				t.Errorf("%d columns: %q", c.columns, line)
			}
		}
		if n := utf8.RuneCountInString(lines[1]); n != c.columns {
			t.Errorf("%d columns: the longest bar ends at %d", c.columns, n)
		}
	}
}
