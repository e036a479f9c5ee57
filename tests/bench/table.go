//go:build linux && !386 && !arm

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// latencyNames are the metrics of the table of latencies, in its order.
var latencyNames = []string{"p50", "p99", "p999", "max"}

// bigShape is the number of keys that stands for a million in the goals.
func (rs *results) bigShape() int64 {
	big := int64(goal1M)
	shapes := rs.shapes()
	if !slices.ContainsFunc(shapes, func(s shape) bool { return s.keys == goal1M }) {
		for _, s := range shapes {
			if s.value == 100 {
				big = s.keys
			}
		}
	}
	return big
}

// writeGoals writes the table of the goals.
func writeGoals(w io.Writer, rs *results) {
	fmt.Fprint(w, "| goal | bound | figure | |\n|---|---|---:|---|\n")
	for _, g := range goalsAt(rs.bigShape()) {
		figure, verdict := g.judge(rs)
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", g.name, g.bound(), figure, verdict)
	}
}

// writeTable writes everything in Markdown.
func writeTable(w io.Writer, rs *results, env []string) {
	fmt.Fprint(w, "# Measurements\n\nWritten by `make bench`. Ratios within one run carry over to other machines, absolute figures do not.\n\n")
	for _, line := range env {
		fmt.Fprintf(w, "- %s\n", line)
	}
	runs := 0
	for _, r := range rs.all {
		runs = max(runs, r.Run)
	}
	fmt.Fprintf(w, "- runs: %d, of which the medians are shown; each figure of a process of its own, the stores by turns\n", runs)
	fmt.Fprintf(w, "- what else ran: beside half of the processes others took %.2f or more of a core, beside a tenth %.2f or more (the kernel's work for the process included)\n\n## Goals\n\n", rs.others(0.5), rs.others(0.9))
	writeGoals(w, rs)
	for _, s := range rs.shapes() {
		writeShape(w, rs, s)
	}
	fmt.Fprint(w, "\n## How each store is configured\n\n")
	for _, a := range adapters {
		fmt.Fprintf(w, "- **%s**: %s\n", a.name, a.note)
	}
	fmt.Fprintf(w, "- **%s**: %s\n", limitName, limitNote)
	fmt.Fprint(w, "\n## What each workload does\n\n")
	for _, wl := range workloads {
		fmt.Fprintf(w, "- **%s**: %s.\n", wl.name, wl.about)
	}
	fmt.Fprintln(w, "\nBytes written to the device are the whole machine's, as the kernel counts them for the device below; the count of the process is the kernel's for it, of pages that it made dirty. Every get checks the value's length and two of its bytes.")
}

// others returns how much of a core others took beside the process of rank q.
func (rs *results) others(q float64) float64 {
	var all []float64
	for _, r := range rs.all {
		if v, ok := r.Metrics["others_cpu"]; ok {
			all = append(all, v)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[int(q*float64(len(all)-1))]
}

// columns are the stores that have a result at s.
func (rs *results) columns(s shape) []string {
	var out []string
	for _, name := range storeNames() {
		for p := range rs.places {
			if p.Store == name && p.Keys == s.keys && p.Value == s.value {
				out = append(out, name)
				break
			}
		}
	}
	return out
}

func storeNames() []string {
	var out []string
	for _, a := range adapters {
		out = append(out, a.name)
	}
	return append(out, limitName)
}

func writeShape(w io.Writer, rs *results, s shape) {
	columns := rs.columns(s)
	fmt.Fprintf(w, "\n## %s keys, values of %s\n\n", count(s.keys), bytesOf.format(float64(s.value)))
	fmt.Fprintf(w, "| work | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---:|", len(columns)))
	for _, wl := range workloads {
		for _, r := range wl.rows {
			writeLine(w, columns, r.label, func(store string) string {
				return rs.cell(place{store, wl.name, s.keys, s.value}, r.metric, r.unit, wl)
			})
		}
	}
	fmt.Fprintf(w, "\nLatencies: p50 / p99 / p99.9 / the longest.\n\n| work | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---:|", len(columns)))
	for _, wl := range workloads {
		writeLine(w, columns, wl.name, func(store string) string {
			var parts []string
			for _, m := range latencyNames {
				if v, ok := rs.median(place{store, wl.name, s.keys, s.value}, m); ok {
					parts = append(parts, nanoseconds.format(v))
				}
			}
			return strings.Join(parts, " / ")
		})
	}
}

// writeLine writes a line of a table, unless all of it is empty.
func writeLine(w io.Writer, columns []string, label string, cell func(store string) string) {
	cells := make([]string, len(columns))
	figures := false
	for i, c := range columns {
		cells[i] = cell(c)
		figures = figures || cells[i] != "" && !strings.HasPrefix(cells[i], "(")
	}
	if figures {
		fmt.Fprintf(w, "| %s | %s |\n", label, strings.Join(cells, " | "))
	}
}

// cell is a figure, or in words why there is none.
func (rs *results) cell(p place, metric string, u unit, wl workload) string {
	if v, ok := rs.median(p, metric); ok {
		return u.format(v)
	}
	if why := rs.trouble(p); why != "" {
		return strings.ReplaceAll(why, "|", "/")
	}
	if a, ok := adapterOf(p.Store); ok {
		if why := wl.lacks(a); why != "" {
			return "(" + why + ")"
		}
	}
	return ""
}
