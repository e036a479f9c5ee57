//go:build linux && !386 && !arm

package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Result is what one process found.
type Result struct {
	Store, Workload string
	Keys            int64
	Value, Run      int
	Status          string // done, or why there are no metrics
	Metrics         map[string]float64
}

const done = "ok"

// place is what a result is about.
type place struct {
	Store, Workload string
	Keys            int64
	Value           int
}

func (r Result) place() place { return place{r.Store, r.Workload, r.Keys, r.Value} }

// results are those of all runs.
type results struct {
	all    []Result
	places map[place][]int // in all
}

func (rs *results) add(r Result) {
	if rs.places == nil {
		rs.places = map[place][]int{}
	}
	rs.places[r.place()] = append(rs.places[r.place()], len(rs.all))
	rs.all = append(rs.all, r)
}

// has tells whether the run needs no process: it is there, or an earlier one did
// not come to its end.
func (rs *results) has(p place, run int) bool {
	return slices.ContainsFunc(rs.places[p], func(i int) bool { return rs.all[i].Run == run || rs.all[i].Status != done })
}

// median returns the median of a metric over all runs.
func (rs *results) median(p place, metric string) (float64, bool) {
	var v []float64
	for _, i := range rs.places[p] {
		if n, ok := rs.all[i].Metrics[metric]; ok {
			v = append(v, n)
		}
	}
	return median(v), len(v) > 0
}

// trouble returns why a place has no figures: "" if it has, or was never tried.
func (rs *results) trouble(p place) string {
	for _, i := range rs.places[p] {
		if s := rs.all[i].Status; s != done {
			return s
		}
	}
	return ""
}

// shape is a size of the work.
type shape struct {
	keys  int64
	value int
}

func (rs *results) shapes() []shape {
	seen := map[shape]bool{}
	for p := range rs.places {
		seen[shape{p.Keys, p.Value}] = true
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b shape) int {
		if a.keys != b.keys {
			return int(a.keys - b.keys)
		}
		return a.value - b.value
	})
}

var csvHeader = []string{"store", "workload", "keys", "value_bytes", "run", "status", "metric", "number"}

// writeResult appends r, a line for each metric, in one write, so that a process which
// is ended meanwhile leaves all of them or none.
func writeResult(w io.Writer, r Result) error {
	var b bytes.Buffer
	c := csv.NewWriter(&b)
	line := func(metric, number string) {
		c.Write([]string{r.Store, r.Workload, strconv.FormatInt(r.Keys, 10), strconv.Itoa(r.Value), strconv.Itoa(r.Run), r.Status, metric, number})
	}
	for _, m := range slices.Sorted(maps.Keys(r.Metrics)) {
		line(m, strconv.FormatFloat(r.Metrics[m], 'g', 6, 64))
	}
	if len(r.Metrics) == 0 {
		line("", "")
	}
	c.Flush()
	_, err := w.Write(b.Bytes())
	return errors.Join(c.Error(), err)
}

// readResults reads what writeResult wrote.
func readResults(r io.Reader) (*results, error) {
	c := csv.NewReader(r)
	c.Comment = '#'
	c.FieldsPerRecord = len(csvHeader)
	rs := &results{}
	var open *Result
	flush := func() {
		if open != nil {
			rs.add(*open)
		}
	}
	for n := 0; ; n++ {
		rec, err := c.Read()
		if errors.Is(err, io.EOF) {
			flush()
			return rs, nil
		} else if err != nil {
			return nil, err
		}
		if n == 0 && slices.Equal(rec, csvHeader) {
			continue
		}
		next := Result{Store: rec[0], Workload: rec[1], Status: rec[5], Metrics: map[string]float64{}}
		var errs [4]error
		next.Keys, errs[0] = strconv.ParseInt(rec[2], 10, 64)
		next.Value, errs[1] = strconv.Atoi(rec[3])
		next.Run, errs[2] = strconv.Atoi(rec[4])
		if open == nil || open.place() != next.place() || open.Run != next.Run {
			flush()
			open = &next
		}
		if rec[6] != "" {
			open.Metrics[rec[6]], errs[3] = strconv.ParseFloat(rec[7], 64)
		}
		if err := errors.Join(errs[:]...); err != nil {
			return nil, fmt.Errorf("record %d: %w", n+1, err)
		}
	}
}

// log is a CSV file that results are appended to as they come.
type log struct{ f *os.File }

// openLog opens the file, or begins it, and notes the environment there, as comments,
// unless it is that of an earlier call. It returns those of all calls too.
func openLog(path string, resume bool, env []string) (l *log, rs *results, envs []string, err error) {
	flags := os.O_RDWR | os.O_CREATE | os.O_APPEND
	if !resume {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return nil, nil, nil, err
	}
	text, err := io.ReadAll(f)
	if err == nil {
		rs, err = readResults(bytes.NewReader(text))
	}
	for line := range strings.Lines(string(text)) {
		if env, ok := strings.CutPrefix(line, "# "); ok {
			envs = append(envs, strings.TrimSpace(env))
		}
	}
	for _, line := range env {
		if err == nil && !slices.Contains(envs, line) {
			envs = append(envs, line)
			_, err = fmt.Fprintf(f, "# %s\n", line)
		}
	}
	if err == nil && !bytes.Contains(text, []byte(csvHeader[0]+",")) {
		c := csv.NewWriter(f)
		c.Write(csvHeader)
		c.Flush()
		err = c.Error()
	}
	if err != nil {
		return nil, nil, nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return &log{f}, rs, envs, nil
}

func (l *log) add(r Result) error { return writeResult(l.f, r) }
