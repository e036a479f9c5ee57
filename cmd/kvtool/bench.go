package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

func (t *tool) benchVerb() *cobra.Command {
	b := &bench{t: t}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "bench [DIR]",
		Short: "Measure a new store in a directory, beside what the machine can do",
		Long: `Bench measures a temporary store in a directory, by default the current one, in some
seconds: what it is like on this machine and this device. Beside each figure stands one
of the machine, measured in the same run in one goroutine, and their ratio:

  fill       putting all keys; beside copying each key and value into memory
  get        copies of the values of random keys; beside a Go map that does the same
  iterate    all entries; beside a loop over the Go map
  overwrite  putting random keys again; beside replacing the values in the Go map
  durable    puts that are each on the device when they return; beside writing 4 KiB to
             a file, each time until they are there
  open       opening for reading after Close; beside nothing

Puts are without a sync but in durable; the store does not compact meanwhile. The
figures are means, of a time that --time gives: nothing else should be running. Get and
iterate check what they find.

The files are in a directory .kvtool-bench-* of their own, which is removed at the end,
also after an interrupt.`,
		Example: `  kvtool bench
  kvtool bench --keys 1000000 --value-size 1000 --time 5s /mnt/data`,
		Args: cobra.MaximumNArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) (err error) {
			if err := b.usage(); err != nil {
				return err
			}
			parent := "."
			if len(args) == 1 {
				parent = args[0]
			}
			if b.dir, err = os.MkdirTemp(parent, ".kvtool-bench-*"); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
			if err := b.run(cmd.Context()); err != nil {
				return err
			}
			if asJSON {
				return t.printJSON(b.json(parent))
			}
			return t.print(func(w *bufio.Writer) error { b.print(w, parent); return nil })
		}),
	}
	cmd.Flags().Int64Var(&b.keys, "keys", 200_000, "so many keys of 16 bytes")
	cmd.Flags().IntVar(&b.valueSize, "value-size", 100, "bytes of a value")
	cmd.Flags().DurationVar(&b.time, "time", time.Second, "for how long each figure is measured")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

// bench is one run of the benchmark.
type bench struct {
	t         *tool
	keys      int64
	valueSize int
	time      time.Duration
	dir       string

	ctx   context.Context
	bar   *progress
	steps int // that are over
	s     *kv.Store
	rows  []benchRow
}

const (
	benchKeys   = 100_000_000
	benchMemory = min(8<<30, math.MaxInt/2) // bytes of keys and values that the Go map may hold
)

func (b *bench) usage() error {
	switch {
	case b.keys < 1 || b.keys > benchKeys:
		return usagef("--keys %d: from 1 to %d", b.keys, benchKeys)
	case b.valueSize < benchValueMin || b.valueSize > kv.MaxValueSize:
		return usagef("--value-size %d: from %d to %d", b.valueSize, benchValueMin, kv.MaxValueSize)
	case b.keys > benchMemory/int64(benchKeySize+b.valueSize):
		return usagef("--keys %d of %d bytes: more than %s in memory", b.keys, b.valueSize, humanize.IBytes(benchMemory))
	case b.time <= 0:
		return usagef("--time %v: not a time", b.time)
	}
	return nil
}

// benchRow is a figure, in nanoseconds an operation, and the one beside it.
type benchRow struct {
	Name     string  `json:"name"`
	NS       float64 `json:"ns"`
	BesideNS float64 `json:"beside_ns,omitempty"` // 0: there is none
	Beside   string  `json:"beside,omitempty"`
}

// run measures everything.
func (b *bench) run(ctx context.Context) error {
	b.ctx, b.bar = ctx, b.t.progress()
	defer b.bar.end()
	path := filepath.Join(b.dir, "bench.mmkv")
	s, err := kv.Open(path, &kv.Options{Durability: kv.SyncManual, CompactAt: -1})
	if err != nil {
		return err
	}
	b.s = s
	err = b.measure()
	if closeErr := s.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	open, err := b.rate(1<<62, func() error {
		s, err := kv.Open(path, &kv.Options{ReadOnly: true})
		if err != nil {
			return err
		}
		return s.Close()
	})
	b.row("open", open, 0, "")
	return err
}

// measure measures what is done with an open store.
func (b *bench) measure() error {
	for _, step := range []func() error{b.fill, b.get, b.iterate, b.overwrite, b.durable} {
		if err := step(); err != nil {
			return err
		}
		// What lies in memory to be written would be in the way of the next.
		if err := b.s.Sync(); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) row(name string, ns, besideNS float64, beside string) {
	b.rows = append(b.rows, benchRow{name, ns, besideNS, beside})
}

// benchSteps is how often rate is called in a run.
const benchSteps = 11

// rate calls op for about b.time, or most times if that is sooner, looks at the clock
// about every millisecond, and returns the nanoseconds of one call.
func (b *bench) rate(most int64, op func() error) (ns float64, err error) {
	runtime.GC() // what earlier steps left is not this one's cost
	return b.counted(most, b.time, op)
}

// all calls op for each key, however long it takes.
func (b *bench) all(op func() error) (ns float64, err error) {
	runtime.GC()
	return b.counted(b.keys, 1<<62, op)
}

func (b *bench) counted(most int64, limit time.Duration, op func() error) (ns float64, err error) {
	ops, chunk, took := int64(0), int64(1), time.Duration(0)
	start := time.Now()
	for took < limit && ops < most {
		n, before := min(chunk, most-ops), took
		for range n {
			if err := op(); err != nil {
				return 0, err
			}
		}
		ops += n
		took = time.Since(start)
		if took-before < time.Millisecond/2 {
			chunk *= 2
		}
		if err := b.ctx.Err(); err != nil {
			return 0, err
		}
		part := max(float64(took)/float64(limit), float64(ops)/float64(most))
		b.bar.at("bench", int64(1000*(float64(b.steps)+min(part, 1))), 1000*benchSteps)
	}
	b.steps++
	return float64(took) / float64(max(ops, 1)), nil
}

// print prints a table.
func (b *bench) print(w *bufio.Writer, dir string) {
	w.WriteString("directory  ")
	writeText(w, []byte(dir))
	fmt.Fprintf(w, "\nmachine    %s/%s, %d CPUs, %s\nentries    %s keys of %d bytes, values of %s\n\n",
		runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), runtime.Version(), humanize.Comma(b.keys), benchKeySize, exactBytes(int64(b.valueSize)))
	fmt.Fprintf(w, "%-10s %10s %12s %10s %7s  %s\n", "", "each", "a second", "beside", "ratio", "of")
	for _, r := range b.rows {
		fmt.Fprintf(w, "%-10s %10s %12s", r.Name, nanoseconds(r.NS), humanize.Comma(int64(1e9/r.NS)))
		if r.BesideNS > 0 {
			fmt.Fprintf(w, " %10s %7.2f  %s", nanoseconds(r.BesideNS), r.NS/r.BesideNS, r.Beside)
		}
		w.WriteByte('\n')
	}
}

// benchJSON is what bench --json prints.
type benchJSON struct {
	Dir       printable  `json:"dir"`
	Go        string     `json:"go"`
	CPUs      int        `json:"cpus"`
	Keys      int64      `json:"keys"`
	KeySize   int        `json:"key_size"`
	ValueSize int        `json:"value_size"`
	Rows      []benchRow `json:"rows"`
}

func (b *bench) json(dir string) *benchJSON {
	return &benchJSON{printable(dir), runtime.Version(), runtime.GOMAXPROCS(0), b.keys, benchKeySize, b.valueSize, b.rows}
}

// nanoseconds is a time with three digits.
func nanoseconds(ns float64) string {
	for _, u := range []struct {
		per  float64
		name string
	}{{1e9, "s"}, {1e6, "ms"}, {1e3, "µs"}, {1, "ns"}} {
		if n := ns / u.per; n >= 1 || u.per == 1 {
			digits := 2
			for limit := 10.0; digits > 0 && n >= limit; limit *= 10 {
				digits--
			}
			return fmt.Sprintf("%.*f %s", digits, n, u.name)
		}
	}
	return ""
}
