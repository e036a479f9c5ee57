package main

import (
	"bufio"
	"errors"
	"fmt"
	"slices"
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

// inHeader are the figures of kv that the header tells, though the log cannot be read.
var inHeader = []string{"durable_mutations_total", "generation", "slack_bytes", "file_bytes", "unsynced_bytes"}

// figures returns what can be told of a store: for Prometheus, each is named mmapkv_ and its name.
func (i *storeInfo) figures() []kv.Figure {
	own := []kv.Figure{
		{Name: "created_timestamp_seconds", Value: i.Created.Unix(), Help: "When the store was created, in seconds since 1970."},
		{Name: "compacted_timestamp_seconds", Value: i.GenerationCreated.Unix(), Help: "When the file was made, by the last compaction or as the store was created, in seconds since 1970."},
		{Name: "holder", Value: one(i.Holder != 0), Help: "1 if a process holds the store open for writing, or wrote it last and lives."},
		{Name: "damaged", Value: one(i.Damage != ""), Help: "1 if the store is damaged: then what only the log tells is left out."},
	}
	// What this process did with the store says nothing of the store.
	return append(slices.DeleteFunc(i.stats.Figures(), func(f kv.Figure) bool {
		return f.OfHandle || i.logInfo == nil && !slices.Contains(inHeader, f.Name)
	}), own...)
}

func one(is bool) int64 {
	if is {
		return 1
	}
	return 0
}

// figureText is the value of f for a person.
func figureText(f *kv.Figure) string {
	switch {
	case strings.HasSuffix(f.Name, "_bytes"):
		return exactBytes(f.Value)
	case strings.HasSuffix(f.Name, "_timestamp_seconds"):
		return moment(time.Unix(f.Value, 0))
	}
	return humanize.Comma(f.Value)
}

// printStats prints figures for people.
func printStats(w *bufio.Writer, infos []*storeInfo) {
	for n, i := range infos {
		if n > 0 {
			w.WriteString("\n")
		}
		writeText(w, []byte(i.Path))
		w.WriteString("\n")
		for _, f := range i.figures() {
			fmt.Fprintf(w, "  %-28s %s\n", strings.TrimSuffix(f.Name, "_timestamp_seconds"), figureText(&f))
		}
	}
}

// printStatsJSON prints an object a store, a line each.
func printStatsJSON(w *bufio.Writer, infos []*storeInfo) {
	for _, i := range infos {
		path, _ := i.Path.MarshalJSON() // never fails
		fmt.Fprintf(w, `{"store":%s`, path)
		for _, f := range i.figures() {
			fmt.Fprintf(w, `,"%s":%d`, f.Name, f.Value)
		}
		w.WriteString("}\n")
	}
}

// printProm prints the text exposition format, version 0.0.4: each metric once, with a
// line for each store that has it. A store that was named twice counts once.
func printProm(w *bufio.Writer, infos []*storeInfo) {
	var families []kv.Figure // each name once
	lines := map[string][]string{}
	printed := map[printable]bool{}
	for _, i := range infos {
		if printed[i.Path] {
			continue
		}
		printed[i.Path] = true
		for _, f := range i.figures() {
			if lines[f.Name] == nil {
				families = append(families, f)
			}
			lines[f.Name] = append(lines[f.Name], fmt.Sprintf("mmapkv_%s{store=\"%s\"} %d\n", f.Name, promLabel(string(i.Path)), f.Value))
		}
	}
	for _, f := range families {
		kind := "gauge"
		if f.Counter {
			kind = "counter"
		}
		fmt.Fprintf(w, "# HELP mmapkv_%s %s\n# TYPE mmapkv_%s %s\n", f.Name, f.Help, f.Name, kind)
		for _, line := range lines[f.Name] {
			w.WriteString(line)
		}
	}
}

// promEscape is how the value of a label is written.
var promEscape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// promLabel is s as the value of a label, which is UTF-8.
func promLabel(s string) string { return promEscape.Replace(strings.ToValidUTF8(s, "\uFFFD")) }
