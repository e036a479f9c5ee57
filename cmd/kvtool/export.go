package main

import (
	"bufio"
	"bytes"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

func (t *tool) exportVerb() *cobra.Command {
	var r reading
	var y typing
	var output string
	var force bool
	cmd := &cobra.Command{
		Use:   "export STORE",
		Short: "Print all entries as JSON lines",
		Long: `Export prints the entries of one moment, a JSON object a line, which kvtool import
reads back exactly: key and value, or key_base64 and value_base64 for bytes that
are no UTF-8; and expires, where an entry has a deadline. Entries that have
expired are left out.

These are the bytes of the store, with what it notes of its typed maps. With --map it
prints the entries of one map, keys and values as what they are: see kvtool scan --help;
kvtool import --map reads that back. A value of which JSON cannot have all, such as a
protobuf message without --proto, is its bytes in value_base64. JSON loses only its white
space.

With --output it writes a file, which has its name only once it is whole.`,
		Example: `  kvtool export settings.mmkv > settings.jsonl
  kvtool export --output settings.jsonl --force settings.mmkv
  kvtool export --map sessions app.mmkv > sessions.jsonl
  kvtool export --salvage damaged.mmkv | kvtool import --create mended.mmkv`,
		Args: cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			if force && output == "" {
				return usagef("--force is for --output")
			}
			if output == "" {
				return t.read(args[0], r, func(s *kv.Store) error {
					return t.print(func(w *bufio.Writer) error { return t.export(cmd, s, &y, w, true) })
				})
			}
			return t.readToFile(args[0], r, output, force, func(s *kv.Store, w *bufio.Writer) error {
				return t.export(cmd, s, &y, w, false)
			})
		}),
	}
	r.flags(cmd)
	y.mapFlag(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to this `file`, which must not be there yet")
	cmd.Flags().BoolVar(&force, "force", false, "let --output replace a file")
	return cmd
}

func (t *tool) export(cmd *cobra.Command, s *kv.Store, y *typing, w *bufio.Writer, toStdout bool) error {
	if err := y.open(cmd, s); err != nil {
		return err
	}
	m := y.chosen()
	m.keys.whole, m.values.whole = true, true
	bar := t.besides(toStdout)
	defer bar.end()
	total := s.Stats().Tail
	for record, err := range s.Records(cmd.Context()) {
		if err != nil {
			return err
		}
		bar.at("export", record.Off, total)
		if key, ok := bytes.CutPrefix(record.Key, m.prefix); ok && record.Live && !record.Expired {
			m.writeEntry(w, key, record.Value, record.Expiry)
		}
		// A write that failed says so again at the Flush; why read on?
		if _, err := w.Write(nil); err != nil {
			return err
		}
	}
	return nil
}
