package main

import (
	"bufio"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

func (t *tool) statsVerb() *cobra.Command {
	var asJSON, prom bool
	cmd := &cobra.Command{
		Use:   "stats STORE...",
		Short: "Print the figures of stores, also for Prometheus",
		Long: `Stats prints the figures of one or more stores, a line each: keys, records, bytes of
each kind, and how much of the log is not synced yet. It takes no lock, and needs no
more than an Open for reading does.

With --json it prints an object a store. With --prom it prints the text format of
Prometheus, each figure as a metric mmapkv_NAME with the label store, the path: such
as the node exporter's textfile collector reads. That reads a file at any moment, so
give it one that is whole, as in the example.

Of a damaged store only what the header says is printed, mmapkv_damaged is 1, and the
exit code is 4. A store that cannot be read is left out; the others are printed.`,
		Example: `  kvtool stats settings.mmkv
  kvtool stats --prom /var/lib/*/*.mmkv > stores.tmp; mv stores.tmp /var/lib/node_exporter/stores.prom`,
		Args: cobra.MinimumNArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			if asJSON && prom {
				return usagef("either --json or --prom")
			}
			var infos []*storeInfo
			var failed error
			for _, path := range args {
				if err := cmd.Context().Err(); err != nil {
					return err
				}
				info, err := t.storeInfo(path)
				failed = errors.Join(failed, err)
				if info != nil {
					infos = append(infos, info)
				}
			}
			return errors.Join(failed, t.print(func(w *bufio.Writer) error {
				switch {
				case prom:
					printProm(w, infos)
				case asJSON:
					printStatsJSON(w, infos)
				default:
					printStats(w, infos)
				}
				return nil
			}))
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a store")
	cmd.Flags().BoolVar(&prom, "prom", false, "print the text format of Prometheus")
	return cmd
}

// storeInfo reads what there is to tell of the store at path. Of a damaged store it
// returns what the header says, and an error.
func (t *tool) storeInfo(path string) (*storeInfo, error) {
	header, err := kv.Inspect(path)
	if err != nil {
		return nil, err
	}
	info := headerInfo(header)
	damage := t.read(path, reading{}, func(s *kv.Store) error {
		stats := s.Stats()
		info.addLog(&stats)
		return nil
	})
	if errors.Is(damage, kv.ErrCorrupt) {
		info.Damage = printable(damage.Error())
	} else if damage != nil {
		return nil, damage
	}
	return info, damage
}

// figure is a number that stats prints, under its name and, for Prometheus, under
// mmapkv_ and its name.
type figure struct {
	name string // ends with its unit, if it has one; with _total if it only ever grows
	help string
	of   func(i *storeInfo) int64
	log  bool // only reading the log tells
}

// counts tells whether it is a counter, which only ever grows, and no gauge.
func (f *figure) counts() bool { return strings.HasSuffix(f.name, "_total") }

// figures are those that stats prints, in this order.
var figures = []figure{
	{"keys", "Keys of the store, expired ones that no compaction has left behind included.", func(i *storeInfo) int64 { return i.Keys }, true},
	{"records", "Records in the log, dead ones included.", func(i *storeInfo) int64 { return i.Records }, true},
	{"mutations_total", "Puts and deletes of the store since it was created: its revision.", func(i *storeInfo) int64 { return int64(i.Revision) }, true},
	{"durable_mutations_total", "Those of them that are past their durability point.", func(i *storeInfo) int64 { return int64(i.DurableRevision) }, false},
	{"generation", "Number of the file of the store: each compaction makes the next.", func(i *storeInfo) int64 { return int64(i.Generation) }, false},
	{"live_bytes", "Bytes of the log that hold current entries.", func(i *storeInfo) int64 { return i.LiveBytes }, true},
	{"dead_bytes", "Bytes of the log that a compaction would leave behind.", func(i *storeInfo) int64 { return i.DeadBytes }, true},
	{"slack_bytes", "Bytes of the file behind the log.", func(i *storeInfo) int64 { return max(0, i.FileBytes-i.Tail) }, false},
	{"file_bytes", "Length of the file.", func(i *storeInfo) int64 { return i.FileBytes }, false},
	{"unsynced_bytes", "Bytes of the log that are not past their durability point.", func(i *storeInfo) int64 { return i.UnsyncedBytes }, false},
	{"checkpoint_bytes", "Bytes of the log that an Open after a kill need not read, for they are covered by the checkpoint.", func(i *storeInfo) int64 { return i.CheckpointBytes }, true},
	{"index_bytes", "Bytes of memory that the index takes in each process.", func(i *storeInfo) int64 { return i.IndexBytes }, true},
	{"created_timestamp_seconds", "When the store was created, in seconds since 1970.", func(i *storeInfo) int64 { return i.Created.Unix() }, false},
	{"compacted_timestamp_seconds", "When the file was made, by the last compaction or as the store was created, in seconds since 1970.",
		func(i *storeInfo) int64 { return i.GenerationCreated.Unix() }, false},
	{"holder", "1 if a process holds the store open for writing, or wrote it last and lives.", func(i *storeInfo) int64 { return one(i.Holder != 0) }, false},
	{"damaged", "1 if the store is damaged: then what only the log tells is left out.", func(i *storeInfo) int64 { return one(i.Damage != "") }, false},
}

func one(is bool) int64 {
	if is {
		return 1
	}
	return 0
}

// value returns the figure of a store, if it can be told.
func (f *figure) value(i *storeInfo) (n int64, ok bool) {
	if f.log && i.logInfo == nil {
		return 0, false
	}
	return f.of(i), true
}

// text is the value n for a person.
func (f *figure) text(n int64) string {
	switch {
	case strings.HasSuffix(f.name, "_bytes"):
		return exactBytes(n)
	case strings.HasSuffix(f.name, "_timestamp_seconds"):
		return moment(time.Unix(n, 0))
	}
	return humanize.Comma(n)
}

// printStats prints figures for people.
func printStats(w *bufio.Writer, infos []*storeInfo) {
	for n, i := range infos {
		if n > 0 {
			w.WriteString("\n")
		}
		writeText(w, []byte(i.Path))
		w.WriteString("\n")
		for _, f := range figures {
			if v, ok := f.value(i); ok {
				fmt.Fprintf(w, "  %-28s %s\n", strings.TrimSuffix(f.name, "_timestamp_seconds"), f.text(v))
			}
		}
	}
}

// printStatsJSON prints an object a store, a line each.
func printStatsJSON(w *bufio.Writer, infos []*storeInfo) {
	for _, i := range infos {
		path, _ := i.Path.MarshalJSON() // never fails
		fmt.Fprintf(w, `{"store":%s`, path)
		for _, f := range figures {
			if v, ok := f.value(i); ok {
				fmt.Fprintf(w, `,"%s":%d`, f.name, v)
			}
		}
		w.WriteString("}\n")
	}
}

// printProm prints the text exposition format, version 0.0.4: each metric once, with a
// line for each store that has it. A store that was named twice counts once.
func printProm(w *bufio.Writer, infos []*storeInfo) {
	for _, f := range figures {
		kind := "gauge"
		if f.counts() {
			kind = "counter"
		}
		fmt.Fprintf(w, "# HELP mmapkv_%s %s\n# TYPE mmapkv_%s %s\n", f.name, f.help, f.name, kind)
		printed := map[printable]bool{}
		for _, i := range infos {
			if v, ok := f.value(i); ok && !printed[i.Path] {
				printed[i.Path] = true
				fmt.Fprintf(w, "mmapkv_%s{store=\"%s\"} %s\n", f.name, promLabel(string(i.Path)), strconv.FormatInt(v, 10))
			}
		}
	}
}

// promEscape is how the value of a label is written.
var promEscape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// promLabel is s as the value of a label, which is UTF-8.
func promLabel(s string) string { return promEscape.Replace(strings.ToValidUTF8(s, "\uFFFD")) }
