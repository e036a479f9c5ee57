//go:build linux && !386 && !arm

package main

import (
	"fmt"
	"html"
	"io"
	"math"
)

// A chart is one file without scripts or fonts of its own, which follows the
// reader's choice of a light or a dark page. All axes are logarithmic: a bar that is
// one step longer is ten times as slow.

const chartStyle = `<style>
svg { font: 12px system-ui, sans-serif; background: #fff; }
text { fill: #222; } .quiet { fill: #666; } .title { font-weight: 600; font-size: 13px; }
.mmapkv { fill: #0b6e4f; stroke: #0b6e4f; } .memory { fill: #b0b7c0; stroke: #b0b7c0; } .disk { fill: #6b7f99; stroke: #6b7f99; }
.limit { fill: none; stroke: #c0392b; stroke-dasharray: 4 3; } .limits { fill: #c0392b; } .grid { stroke: #e4e7ea; }
.line { fill: none; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117; } text { fill: #e6edf3; } .quiet { fill: #8b949e; }
.mmapkv { fill: #3fcf8e; stroke: #3fcf8e; } .memory { fill: #4b535d; stroke: #4b535d; } .disk { fill: #6e87a8; stroke: #6e87a8; }
.limit { stroke: #ff7b72; } .limits { fill: #ff7b72; } .grid { stroke: #21262d; } .line { fill: none; }
}
</style>
`

// panel is one small chart.
type panel struct {
	title, workload string
	keys            int64
	metric          string
	unit            unit
}

func (rs *results) barPanels() []panel {
	big := rs.bigShape()
	m := count(big)
	out := []panel{{"get, " + m + " keys", "get", big, "ns_op", nanoseconds}}
	if big == goal1M {
		out = append(out, panel{"get, 10 M keys", "get", goal10M, "ns_op", nanoseconds})
	}
	return append(out,
		panel{"put, filling to " + m + " keys", "fill", big, "ns_op", nanoseconds},
		panel{"durable put, 1 goroutine", "durable-1", big, "ns_op", nanoseconds},
		panel{"durable put, 64 goroutines", "durable-64", big, "ns_op", nanoseconds},
		panel{"durable put, 256 goroutines", "durable-256", big, "ns_op", nanoseconds},
		panel{"iterate, each of " + m + " entries", "iterate", big, "ns_op", nanoseconds},
		panel{"open after close, " + m + " keys", "open-close", big, "ns_op", nanoseconds},
	)
}

const (
	panelWidth = 460
	labelWidth = 84
	barsWidth  = 280
	barHeight  = 18
	panelGap   = 46
)

// axis maps a logarithmic scale to pixels.
type axis struct{ low, high, width float64 } // low and high are powers of ten

// newAxis spans whole powers of ten around the numbers.
func newAxis(numbers []float64, width float64) axis {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range numbers {
		low, high = min(low, v), max(high, v)
	}
	a := axis{math.Floor(math.Log10(low)), math.Ceil(math.Log10(high)), width}
	if a.high <= a.low {
		a.high = a.low + 1
	}
	return a
}

func (a axis) at(v float64) float64 { return a.width * (math.Log10(v) - a.low) / (a.high - a.low) }

// writeBars writes the chart of the stores side by side.
func writeBars(w io.Writer, rs *results) {
	panels := rs.barPanels()
	rows := (len(panels) + 1) / 2
	height := rows*(len(adapters)*barHeight+panelGap) + 40
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="time of one operation, by store">`+"\n%s", 2*panelWidth, height, chartStyle)
	fmt.Fprintf(w, `<text x="10" y="20">Time of one operation, less is better; logarithmic. Values of 100 bytes. Dashed: what the machine can do at best.</text>`+"\n")
	for i, p := range panels {
		fmt.Fprintf(w, `<g transform="translate(%d %d)">`+"\n", i%2*panelWidth+10, i/2*(len(adapters)*barHeight+panelGap)+44)
		p.write(w, rs)
		fmt.Fprintln(w, "</g>")
	}
	fmt.Fprintln(w, "</svg>")
}

func (p panel) write(w io.Writer, rs *results) {
	fmt.Fprintf(w, `<text class="title" x="0" y="0">%s</text>`+"\n", html.EscapeString(p.title))
	var numbers []float64
	for _, name := range storeNames() {
		if v, ok := rs.median(sized(name, p.workload, p.keys), p.metric); ok && v > 0 {
			numbers = append(numbers, v)
		}
	}
	if len(numbers) == 0 {
		fmt.Fprintln(w, `<text class="quiet" x="0" y="20">not measured</text>`)
		return
	}
	ax := newAxis(numbers, barsWidth)
	y := 8
	bottom := y + len(adapters)*barHeight
	for e := ax.low; e <= ax.high; e++ {
		x := labelWidth + ax.at(math.Pow(10, e))
		fmt.Fprintf(w, `<line class="grid" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/><text class="quiet" x="%.1f" y="%d" text-anchor="middle" font-size="10">%s</text>`+"\n",
			x, x, y, bottom, x, bottom+11, p.unit.tick(math.Pow(10, e)))
	}
	for _, a := range adapters {
		at := sized(a.name, p.workload, p.keys)
		fmt.Fprintf(w, `<text x="0" y="%d">%s</text>`+"\n", y+13, html.EscapeString(a.name))
		if v, ok := rs.median(at, p.metric); ok && v > 0 {
			length := max(ax.at(v), 1)
			fmt.Fprintf(w, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d"/><text x="%.1f" y="%d">%s</text>`+"\n",
				a.class(), labelWidth, y+3, length, barHeight-6, labelWidth+length+5, y+13, p.unit.format(v))
		} else {
			why := rs.trouble(at)
			if wl, ok := workloadOf(p.workload); ok && why == "" {
				why = wl.lacks(a)
			}
			if why == "" {
				why = "not measured"
			}
			fmt.Fprintf(w, `<text class="quiet" x="%d" y="%d">%s</text>`+"\n", labelWidth+4, y+13, html.EscapeString(why))
		}
		y += barHeight
	}
	if v, ok := rs.median(sized(limitName, p.workload, p.keys), p.metric); ok && v > 0 {
		x := labelWidth + ax.at(v)
		fmt.Fprintf(w, `<line class="limit" x1="%.1f" x2="%.1f" y1="4" y2="%d"/><text class="limits" x="%d" y="0" font-size="11" text-anchor="end">limit %s</text>`+"\n",
			x, x, bottom, labelWidth+barsWidth, p.unit.format(v))
	}
}

func (a adapter) class() string {
	switch {
	case a.name == mmapkvAdapter.name:
		return "mmapkv"
	case a.persistent:
		return "disk"
	}
	return "memory"
}

// scalePanels are the workloads of the chart of cost against size.
var scalePanels = []panel{
	{title: "get", workload: "get", metric: "ns_op"},
	{title: "get 64 at once, each", workload: "getmany-64", metric: "ns_op"},
	{title: "put, filling", workload: "fill", metric: "ns_op"},
	{title: "overwrite", workload: "overwrite", metric: "ns_op"},
	{title: "iterate, each entry", workload: "iterate", metric: "ns_op"},
	{title: "open after close", workload: "open-close", metric: "ns_op"},
	{title: "open after SIGKILL", workload: "open-kill", metric: "ns_op"},
	{title: "open without a checkpoint", workload: "rebuild", metric: "ns_op"},
}

// scaleStores are the stores of that chart.
var scaleStores = []string{"mmapkv", "map", limitName}

const (
	plotWidth  = 330
	plotHeight = 150
)

// writeScale writes the chart of cost as work grows.
func writeScale(w io.Writer, rs *results) {
	rows := (len(scalePanels) + 1) / 2
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="time of one operation, by the number of keys">`+"\n%s",
		2*panelWidth, rows*(plotHeight+70)+40, chartStyle)
	fmt.Fprintf(w, `<text x="10" y="20">Time of one operation by the number of keys; both logarithmic. Values of 100 bytes, at 50 M keys of 8.</text>`+"\n")
	for i, p := range scalePanels {
		fmt.Fprintf(w, `<g transform="translate(%d %d)">`+"\n", i%2*panelWidth+10, i/2*(plotHeight+70)+48)
		p.writeLines(w, rs)
		fmt.Fprintln(w, "</g>")
	}
	fmt.Fprintln(w, "</svg>")
}

func (p panel) writeLines(w io.Writer, rs *results) {
	fmt.Fprintf(w, `<text class="title" x="0" y="0">%s</text>`+"\n", html.EscapeString(p.title))
	type point struct{ keys, v float64 }
	lines := map[string][]point{}
	var xs, ys []float64
	for _, s := range rs.shapes() {
		if s.value != 100 && (s.value != 8 || s.keys < 50_000_000) {
			continue
		}
		for _, name := range scaleStores {
			if v, ok := rs.median(place{name, p.workload, s.keys, s.value}, p.metric); ok && v > 0 {
				lines[name] = append(lines[name], point{float64(s.keys), v})
				xs, ys = append(xs, float64(s.keys)), append(ys, v)
			}
		}
	}
	if len(ys) == 0 {
		fmt.Fprintln(w, `<text class="quiet" x="0" y="20">not measured</text>`)
		return
	}
	ax, ay := newAxis(xs, plotWidth), newAxis(ys, plotHeight)
	top := 14.0
	for e := ay.low; e <= ay.high; e++ {
		y := top + plotHeight - ay.at(math.Pow(10, e))
		fmt.Fprintf(w, `<line class="grid" x1="50" x2="%d" y1="%.1f" y2="%.1f"/><text class="quiet" x="46" y="%.1f" text-anchor="end" font-size="10">%s</text>`+"\n",
			50+plotWidth, y, y, y+3, nanoseconds.tick(math.Pow(10, e)))
	}
	for e := ax.low; e <= ax.high; e++ {
		x := 50 + ax.at(math.Pow(10, e))
		fmt.Fprintf(w, `<text class="quiet" x="%.1f" y="%.1f" text-anchor="middle" font-size="10">%s</text>`+"\n", x, top+plotHeight+14, count(int64(math.Pow(10, e))))
	}
	for _, name := range scaleStores {
		class := name
		if name == "map" {
			class = "memory"
		}
		path := ""
		for _, q := range lines[name] {
			x, y := 50+ax.at(q.keys), top+plotHeight-ay.at(q.v)
			path += fmt.Sprintf("%.1f,%.1f ", x, y)
			fmt.Fprintf(w, `<circle class="%s" cx="%.1f" cy="%.1f" r="3"><title>%s, %s keys: %s</title></circle>`+"\n", class, x, y, name, count(int64(q.keys)), nanoseconds.format(q.v))
		}
		if n := len(lines[name]); n > 0 {
			q := lines[name][n-1]
			fmt.Fprintf(w, `<polyline class="%s line" style="fill:none" points="%s"/><text x="%.1f" y="%.1f" font-size="11">%s</text>`+"\n",
				class, path, 50+ax.at(q.keys)+6, top+plotHeight-ay.at(q.v)+4, name)
		}
	}
}
