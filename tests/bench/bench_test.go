//go:build linux && !386 && !arm

package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests' own binary is the program too: the processes that do the work are it,
// called with childFlag.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == childFlag {
		if err := child(os.Args[2], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// tiny is a plan of everything at a size at which nothing takes long.
func tiny(t *testing.T) *plan {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &plan{
		shapes: []shape{{500, 100}}, stores: storeNames(), only: regexp.MustCompile(""), runs: 1,
		time: 2 * time.Millisecond, limit: time.Minute, rest: 5 * time.Millisecond, loadLimit: time.Minute, killWrites: 20,
		dir: t.TempDir(), self: self, progress: io.Discard, results: &results{}, small: true,
	}
}

// Goal: every store does every workload that it says it can do, in processes as in
// earnest, and each figure of the table is there.
// Method: all of them with few keys; each row of each workload has a number that is
// none of the impossible ones, and nothing else is left behind.
func TestPipe(t *testing.T) {
	for _, store := range storeNames() {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			p := tiny(t)
			p.stores = []string{store}
			if err := p.measure(t.Context()); err != nil {
				t.Fatal(err)
			}
			a, ok := adapterOf(store)
			for _, w := range workloads {
				if ok {
					checkFigures(t, p.results, a, w)
				}
			}
			for name := range limits {
				at := place{limitName, name, 500, 100}
				if why := p.results.trouble(at); !ok && (why != "" || len(p.results.places[at]) != 1) {
					t.Errorf("%s: %d results, %s", name, len(p.results.places[at]), why)
				}
			}
			left, err := os.ReadDir(p.dir)
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}

// checkFigures wants figures of a workload if the store can do it, and only then.
func checkFigures(t *testing.T, rs *results, a adapter, w workload) {
	at := place{a.name, w.name, 500, 100}
	n, why := len(rs.places[at]), rs.trouble(at)
	if w.lacks(a) != "" {
		if n > 0 {
			t.Errorf("it does %s", w.name)
		}
		return
	}
	found := 0
	for _, r := range w.rows {
		v, ok := rs.median(at, r.metric)
		if math.IsNaN(v) || math.IsInf(v, 0) {
			t.Errorf("%s: %s is %v", w.name, r.metric, v)
		}
		if ok {
			found++
		}
	}
	if found == 0 || n != 1 {
		t.Errorf("%s: %d results, %d figures, %s", w.name, n, found, why)
	}
}

// Goal: a workload that takes too long, one that fails and one that cannot begin are
// each told in words, and the others go on.
// Method: gets for an hour, of which a millisecond is granted; a directory that is a
// file.
func TestTrouble(t *testing.T) {
	p := tiny(t)
	p.stores, p.only, p.runs = []string{"map"}, regexp.MustCompile("^get$"), 2
	p.time, p.limit = time.Hour, time.Millisecond
	if err := p.measure(t.Context()); err != nil {
		t.Fatal(err)
	}
	at := place{"map", "get", 500, 100}
	if got := p.results.trouble(at); got != "did not finish in 1ms" {
		t.Errorf("status %q", got)
	}
	if n := len(p.results.places[at]); n != 1 {
		t.Errorf("%d runs of what did not finish, want 1", n)
	}
	p = tiny(t)
	if _, err := p.process(t.Context(), task{Store: "bbolt", Workload: "get", Keys: 500, Value: 100, Dir: os.Args[0]}); err == nil || errors.As(err, &unfinished{}) {
		t.Errorf("error %v, want that of the store", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.measure(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that it was cancelled", err)
	}
}

// Goal: a companion that cannot open the store, that is told what it does not know, or
// that dies, is an error, and none is left behind.
// Method: each of these; a process that was waited for has a state.
func TestCompanion(t *testing.T) {
	b := &bench{task: task{Store: "mmapkv", Keys: 500, Value: 100, Time: time.Millisecond, Dir: t.TempDir()}}
	if _, err := b.companion(os.Args[0], owner); err == nil {
		t.Error("a store below a file was opened")
	}
	for name, trouble := range map[string]func(c *companion) error{
		"nonsense": func(c *companion) error { return nil },
		"death":    func(c *companion) error { return c.cmd.Process.Kill() },
		"death before": func(c *companion) error {
			return errors.Join(c.cmd.Process.Kill(), unix.Waitid(unix.P_PID, c.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil))
		},
	} {
		c, err := b.companion(b.Dir, owner)
		if err != nil {
			t.Fatal(err)
		}
		found, err := c.do("fill")
		if err != nil || len(found) != 0 {
			t.Errorf("%s: an order that finds nothing: %v %v", name, found, err)
		}
		if err := trouble(c); err != nil {
			t.Fatal(err)
		}
		if _, err := c.do("nothing"); err == nil || c.cmd.ProcessState == nil {
			t.Errorf("%s: error %v, state %v", name, err, c.cmd.ProcessState)
		}
	}
}

// Goal: the locks that Gets are measured with keep a writer out while they are held, and
// no longer: else they would be measured too well.
// Method: within each, and behind it, a lock for writing by another descriptor.
func TestLocks(t *testing.T) {
	for _, l := range locks {
		path := filepath.Join(t.TempDir(), "lock")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		g, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		exclude := byFcntl(unix.F_OFD_SETLK, unix.F_WRLCK)
		if l.name == "flock" {
			exclude = byFlock(unix.LOCK_EX | unix.LOCK_NB)
		}
		within := errors.New("not called")
		err = l.around(int(f.Fd()), func() error { within = exclude(int(g.Fd())); return nil })()
		if err != nil || !errors.Is(within, unix.EAGAIN) {
			t.Errorf("%s: %v, a writer within: %v", l.name, err, within)
		}
		if err := exclude(int(g.Fd())); err != nil {
			t.Errorf("%s: a writer behind: %v", l.name, err)
		}
	}
}

// Goal: what was measured is read back as it was written, and is not measured again.
// Method: a log, resumed.
func TestResume(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bench.csv")
	first := []string{"a machine, a \"quote\"", "a commit"}
	l, rs, _, err := openLog(path, false, first)
	if err != nil || len(rs.all) != 0 {
		t.Fatal(rs, err)
	}
	want := []Result{
		{"map", "get", 10, 100, 1, done, map[string]float64{"ns_op": 12.5, "p50": 3}},
		{"map", "get", 10, 100, 2, done, map[string]float64{"ns_op": 14.5}},
		{"bbolt", "fill", 10, 100, 1, "did not finish in 2m0s", nil},
	}
	for _, r := range want {
		if err := l.add(r); err != nil {
			t.Fatal(err)
		}
	}
	l.f.Close()
	l, rs, envs, err := openLog(path, true, []string{first[0], "another commit"})
	if err != nil {
		t.Fatal(err)
	}
	l.f.Close()
	if want := append(first, "another commit"); !slices.Equal(envs, want) {
		t.Errorf("environments %q, want %q", envs, want)
	}
	if len(rs.all) != 3 {
		t.Fatalf("read %+v", rs.all)
	}
	if v, ok := rs.median(want[0].place(), "ns_op"); !ok || v != 13.5 {
		t.Errorf("median %v %v", v, ok)
	}
	if got := rs.trouble(want[2].place()); got != want[2].Status {
		t.Errorf("status %q", got)
	}
	for _, c := range []struct {
		r    Result
		run  int
		want bool
	}{{want[0], 2, true}, {want[0], 3, false}, {want[2], 3, true}} {
		if got := rs.has(c.r.place(), c.run); got != c.want {
			t.Errorf("has %v run %d: %v", c.r.place(), c.run, got)
		}
	}
	for name, text := range map[string]string{"a number": "map,get,x,1,1,ok,a,1\n", "a column less": "map,get,1,1,1,ok,a\n", "a metric": "map,get,1,1,1,ok,a,b\n"} {
		if _, err := readResults(strings.NewReader(text)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// fixed are results by hand.
func fixed() *results {
	rs := &results{}
	add := func(store, workload string, keys int64, m map[string]float64) {
		rs.add(Result{store, workload, keys, 100, 1, done, m})
	}
	add("mmapkv", "get", goal1M, map[string]float64{"ns_op": 500, "of_limit": 1.25, "p50": 480, "p99": 900, "p999": 1100, "max": 2e6})
	add("map", "get", goal1M, map[string]float64{"ns_op": 1000})
	add("bbolt", "get", goal1M, map[string]float64{"ns_op": 1500})
	add("badger", "get", goal1M, map[string]float64{"ns_op": 4500})
	add("limit", "get", goal1M, map[string]float64{"ns_op": 400})
	add("mmapkv", "get", goal10M, map[string]float64{"ns_op": 700})
	add("map", "get", goal10M, map[string]float64{"ns_op": 1000})
	rs.add(Result{"SQLite", "fill", goal1M, 100, 1, "did not finish in 2m0s", nil})
	add("mmapkv", "fill", goal1M, map[string]float64{"ns_op": 590})
	return rs
}

// Goal: a goal is reached, missed or not measured as its bound says.
// Method: goals of the fixed results whose figures can be had by head.
func TestGoals(t *testing.T) {
	want := map[string][2]string{
		"get over map's, 1 M keys":                                    {"0.50", "reached"},
		"get over map's, 10 M keys":                                   {"0.70", "missed"},
		"get over two cache misses by turns, 1 M keys":                {"1.25", "missed"},
		"gets over the best persistent peer's, 1 M keys":              {"3.00", "missed"},
		"gets over the best persistent peer's, 10 M keys":             {"", "not measured"},
		"fill over map's, 1 M keys":                                   {"", "not measured"},
		"puts of a fill over the fastest persistent peer's, 1 M keys": {"", "not measured"},
	}
	seen := map[string]bool{}
	for _, g := range goalsAt(goal1M) {
		if seen[g.name] {
			t.Errorf("two goals %q", g.name)
		}
		seen[g.name] = true
		if (g.most == 0) == (g.least == 0) {
			t.Errorf("%s has not one bound", g.name)
		}
		if w, ok := want[g.name]; ok {
			if figure, verdict := g.judge(fixed()); figure != w[0] || verdict != w[1] {
				t.Errorf("%s: %s, %s, want %v", g.name, figure, verdict, w)
			}
		}
	}
	for name := range want {
		if !seen[name] {
			t.Errorf("no goal %q", name)
		}
	}
}

// Goal: the table has every figure where it belongs, and words where there is none.
// Method: the fixed results; lines of the table.
func TestTable(t *testing.T) {
	var b bytes.Buffer
	writeTable(&b, fixed(), []string{"a machine"})
	for _, line := range []string{
		"- a machine",
		"| get over map's, 10 M keys | at most 0.50 | 0.70 | missed |",
		"## 1 M keys, values of 100 B",
		"| work | mmapkv | map | bbolt | badger | SQLite | limit |",
		"| get | 500 ns | 1.00 µs | 1.50 µs | 4.50 µs |  | 400 ns |",
		"| fill | 590 ns |  |  |  | did not finish in 2m0s |  |",
		"| get | 480 ns / 900 ns / 1.10 µs / 2.00 ms |  |  |  |  |  |",
		"- **pebble**: " + pebbleAdapter.note,
	} {
		if !strings.Contains(b.String(), line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
	if t.Failed() {
		t.Log(b.String())
	}
	for _, a := range adapters {
		if a.note == "" {
			t.Errorf("%s does not say how it is configured", a.name)
		}
	}
}

// Goal: the charts are well-formed, say every figure, and follow the page's colours.
// Method: an XML parser over both, for the fixed results and for none.
func TestCharts(t *testing.T) {
	for name, rs := range map[string]*results{"fixed": fixed(), "none": {}} {
		var bars, lines bytes.Buffer
		writeBars(&bars, rs)
		writeScale(&lines, rs)
		for chart, b := range map[string]*bytes.Buffer{"bars": &bars, "lines": &lines} {
			text := b.String()
			if !strings.Contains(text, "prefers-color-scheme: dark") {
				t.Errorf("%s of %s: one colour for all pages", chart, name)
			}
			if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
				t.Errorf("%s of %s: a number that is none", chart, name)
			}
			for d := xml.NewDecoder(b); ; {
				if _, err := d.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("%s of %s: %v", chart, name, err)
				}
			}
			if name == "fixed" && (!strings.Contains(text, "500 ns") || !strings.Contains(text, "10 M")) {
				t.Errorf("%s: a figure is missing", chart)
			}
			if name == "fixed" && chart == "bars" && !strings.Contains(text, "did not finish in 2m0s") {
				t.Error("a bar that is not there is not explained")
			}
		}
	}
}

// Goal: quantiles are right to a thirty-second.
// Method: numbers whose quantiles are known, in every class.
func TestHistogram(t *testing.T) {
	for ns := uint64(0); ns < 1<<40; ns = ns*9/8 + 1 {
		if m := middle(class(ns)); m < float64(ns)*(1-1.0/32) || m > float64(ns)*(1+1.0/32) {
			t.Errorf("%d is in a class around %v", ns, m)
		}
	}
	var a, b histogram
	for i := range 1000 {
		h := &a
		if i%2 == 0 {
			h = &b
		}
		h.add(time.Duration(i+1) * time.Microsecond)
	}
	a.merge(&b)
	for q, want := range map[float64]float64{0.5: 500e3, 0.99: 990e3, 0.999: 1e6, 1: 1e6} {
		if got := a.quantile(q); math.Abs(got-want) > want/30 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if a.max != time.Millisecond || a.n != 1000 {
		t.Errorf("max %v of %d", a.max, a.n)
	}
}

// Goal: the workloads' keys do not repeat, their orders visit each key, and a wrong
// value is noticed.
// Method: sets, and values damaged at the places that are looked at.
func TestKeys(t *testing.T) {
	const n = 1000
	keys, order := map[string]bool{}, map[uint64]bool{}
	at, step := uint64(0), stride(n)
	for i := range uint64(n) {
		for _, number := range []uint64{i, absent + i} {
			key := make([]byte, keySize)
			putKey(key, number)
			keys[string(key)] = true
		}
		order[at] = true
		at = (at + step) % n
	}
	if len(keys) != 2*n || len(order) != n {
		t.Errorf("%d keys, %d places, want %d and %d", len(keys), len(order), 2*n, n)
	}
	ranks := map[uint32]int{}
	for _, r := range zipf(n, 10*n) {
		ranks[r]++
		if r >= n {
			t.Fatalf("a draw of %d below %d", r, n)
		}
	}
	if len(ranks) < n/4 || len(ranks) == n && ranks[0] == 10 {
		t.Errorf("%d different draws", len(ranks))
	}
	key, value := make([]byte, keySize), newValue(100)
	putKey(key, 5)
	stamp(value, key, 6)
	old := bytes.Clone(value)
	stamp(value, key, 7)
	if bytes.Equal(value, old) {
		t.Error("another version is the same value")
	}
	if err := check(value, key, 100); err != nil {
		t.Error(err)
	}
	for name, v := range map[string][]byte{"short": value[:99], "none": nil, "first": append([]byte{value[0] + 1}, value[1:]...), "last": append(bytes.Clone(value[:99]), value[99]+1)} {
		if check(v, key, 100) == nil {
			t.Errorf("%s: a wrong value passes", name)
		}
	}
}

// Goal: the flags say what they say.
// Method: numbers, sizes and command lines, right and wrong.
func TestFlags(t *testing.T) {
	for text, want := range map[string]string{
		"10k,1M x 100": "[{10000 100} {1000000 100}]", "1M x 8,64K": "[{1000000 8} {4096 65536}]", " x 100": "[{1000000 100}]",
		"x x 100": "-keys", "1 x 100": "-keys", "1k x 7": "-values",
	} {
		keys, values, _ := strings.Cut(text, " x ")
		got, err := shapesOf(keys, values)
		if s := fmt.Sprint(got); s != want && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %s %v, want %s", text, s, err, want)
		}
	}
	if got := commandLine([]string{"-quick", "-csv", "/a/b", "-dir=/c", "-runs", "2"}); got != "GOWORK=off go run . -quick -runs 2" {
		t.Errorf("command line %q", got)
	}
	for _, args := range [][]string{{"-stores", "none"}, {"-only", "("}, {"-keys", "zero"}, {"-goals"}} {
		if err := run(t.Context(), args); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
