//go:build linux && !386 && !arm

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const usage = `cd tests/bench && GOWORK=off go run . [flags]

Measures mmapkv beside other stores and beside the machine's limits. Each (store,
workload, size) runs in a process of its own, the stores by turns; what comes out
are medians over the runs. Progress goes to stderr, the table to stdout or to -out.

  make bench-quick    100 k keys, one run, some minutes
  make bench          everything, many hours

`

func main() {
	if len(os.Args) == 3 && os.Args[1] == childFlag {
		if err := child(os.Args[2], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	p := &plan{progress: os.Stderr, rest: 2 * time.Second, only: regexp.MustCompile("")}
	var names []string
	for _, w := range workloads {
		names = append(names, w.name)
	}
	var (
		stores = flags.String("stores", strings.Join(storeNames(), ","), "stores to measure, by commas")
		only   = flags.String("only", "", "regular expression of the workloads to measure, of: "+strings.Join(append(names, "memcpy", "verify"), " "))
		keys   = flags.String("keys", "", "numbers of keys, by commas (10k, 1M); with -values instead of the usual sizes")
		values = flags.String("values", "100", "bytes of the values, by commas (8, 1K, 64K); 64 KiB values are at most 256 MiB together")
		quick  = flags.Bool("quick", false, "100 k keys, values of 100 bytes, one run, short measurements")
		scale  = flags.Bool("scale", false, "cost as work grows: mmapkv, map and the limits at 10 k to 10 M keys, and at 50 M where memory allows")
		tmpfs  = flags.Bool("tmpfs", false, "allow a -dir in memory; durable figures then mean nothing")
		goals  = flags.Bool("goals", false, "show the goals only, of the results in -csv, without measuring")
		out    = flags.String("out", "", "directory for bench.md, bench.csv, bench.svg and scale.svg")
		csv    = flags.String("csv", "", "file that results are appended to as they come; default: bench.csv in -out")
		resume = flags.Bool("resume", false, "measure only what the CSV file does not have yet")
	)
	flags.IntVar(&p.runs, "runs", 3, "runs, of which the medians are taken")
	flags.DurationVar(&p.time, "time", 2*time.Second, "length of one measurement")
	flags.DurationVar(&p.limit, "limit", 2*time.Minute, "after which a measurement that is of a fixed amount of work is given up")
	flags.DurationVar(&p.loadLimit, "load-limit", 20*time.Minute, "after which its preparation is given up")
	flags.IntVar(&p.killWrites, "kill-writes", 10_000, "puts between opening a store and killing its process")
	flags.DurationVar(&p.killIdle, "kill-idle", 100*time.Millisecond, "time between the last of them and the kill")
	flags.StringVar(&p.dir, "dir", os.TempDir(), "directory on the disk to measure on")
	if err := flags.Parse(args); err != nil {
		return err
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	p.stores = strings.Split(*stores, ",")
	p.shapes = usualShapes
	switch {
	case *quick:
		p.shapes, p.runs, p.time = []shape{{100_000, 100}}, 1, 300*time.Millisecond
	case *scale:
		p.shapes, p.stores = scaleShapes(), scaleStores
		if !given["only"] {
			var names []string
			for _, panel := range scalePanels {
				names = append(names, panel.workload)
			}
			*only = "^(" + strings.Join(names, "|") + ")$"
		}
	}
	if given["keys"] || given["values"] {
		var err error
		if p.shapes, err = shapesOf(*keys, *values); err != nil {
			return err
		}
	}
	for _, name := range p.stores {
		if !slices.Contains(storeNames(), name) {
			return fmt.Errorf("there is no store %q, only %s", name, strings.Join(storeNames(), ", "))
		}
	}
	var err error
	if p.only, err = regexp.Compile(*only); err != nil {
		return err
	}
	if *out != "" && *csv == "" {
		*csv = filepath.Join(*out, "bench.csv")
	}
	if *goals {
		f, err := os.Open(*csv)
		if err != nil {
			return fmt.Errorf("-goals needs results: %w", err)
		}
		defer f.Close()
		rs, err := readResults(f)
		if err != nil {
			return err
		}
		writeGoals(os.Stdout, rs)
		return nil
	}
	if _, memory, err := fileSystem(p.dir); err != nil {
		return err
	} else if memory && !*tmpfs {
		return errors.New("-dir is in memory: nothing durable can be measured there; choose one on a disk, or say -tmpfs")
	}
	env := environment(p.dir, commandLine(args))
	p.results = &results{}
	if *csv != "" {
		if p.log, p.results, env, err = openLog(*csv, *resume, env); err != nil {
			return err
		}
		defer p.log.f.Close()
	}
	if p.self, err = os.Executable(); err != nil {
		return err
	}
	if p.dir, err = os.MkdirTemp(p.dir, "mmapkv-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(p.dir)
	if err := p.measure(ctx); err != nil {
		return err
	}
	return publish(p.results, env, *out)
}

// publish writes table and charts to a directory, or the table to stdout.
func publish(rs *results, env []string, out string) error {
	if out == "" {
		writeTable(os.Stdout, rs, env)
		return nil
	}
	var table, bars, lines bytes.Buffer
	writeTable(&table, rs, env)
	writeBars(&bars, rs)
	writeScale(&lines, rs)
	return errors.Join(
		os.WriteFile(filepath.Join(out, "bench.md"), table.Bytes(), 0o644),
		os.WriteFile(filepath.Join(out, "bench.svg"), bars.Bytes(), 0o644),
		os.WriteFile(filepath.Join(out, "scale.svg"), lines.Bytes(), 0o644),
	)
}

// usualShapes are the sizes of `make bench`.
var usualShapes = []shape{
	{10_000, 100}, {1_000_000, 100}, {1_000_000, 8}, {1_000_000, 1 << 10}, {keysFor(1_000_000, 64<<10), 64 << 10}, {10_000_000, 100},
}

func scaleShapes() []shape {
	out := []shape{{10_000, 100}, {100_000, 100}, {1_000_000, 100}, {10_000_000, 100}}
	// The map needs about 10 GB, and twice that while it grows.
	if procLine("/proc/meminfo", "MemAvailable")<<10 > 16<<30 {
		out = append(out, shape{50_000_000, 8})
	}
	return out
}

// keysFor bounds the bytes of large values to 256 MiB.
func keysFor(keys int64, value int) int64 {
	if value >= 64<<10 {
		return min(keys, 256<<20/int64(value))
	}
	return keys
}

func shapesOf(keys, values string) (out []shape, err error) {
	if keys == "" {
		keys = "1M"
	}
	for _, v := range strings.Split(values, ",") {
		value, err := number(v, 1024)
		if err != nil || value < 8 {
			return nil, fmt.Errorf("-values: %q is no number from 8 on", v)
		}
		for _, k := range strings.Split(keys, ",") {
			n, err := number(k, 1000)
			if err != nil || n < 100 {
				return nil, fmt.Errorf("-keys: %q is no number from 100 on", k)
			}
			out = append(out, shape{keysFor(n, int(value)), int(value)})
		}
	}
	return out, nil
}

// number reads 10, 10k and 10M.
func number(s string, k int64) (int64, error) {
	factor := int64(1)
	if rest, ok := strings.CutSuffix(strings.ToLower(s), "k"); ok {
		s, factor = rest, k
	} else if rest, ok := strings.CutSuffix(strings.ToLower(s), "m"); ok {
		s, factor = rest, k*k
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n * factor, err
}
