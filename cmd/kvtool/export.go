package main

import (
	"bufio"
	"context"
	"errors"
	"os"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

func (t *tool) exportVerb() *cobra.Command {
	var r reading
	var output string
	var force bool
	cmd := &cobra.Command{
		Use:   "export STORE",
		Short: "Print all entries as JSON lines",
		Long: `Export prints the entries of one moment, a JSON object a line, which kvtool import
reads back exactly: key and value, or key_base64 and value_base64 for bytes that
are no UTF-8; and expires, where an entry has a deadline. Entries that have
expired are left out.

With --output it writes a file, which has its name only once it is whole.`,
		Example: `  kvtool export settings.mmkv > settings.jsonl
  kvtool export --output settings.jsonl --force settings.mmkv
  kvtool export --salvage damaged.mmkv | kvtool import --create mended.mmkv`,
		Args: cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			if force && output == "" {
				return usagef("--force is for --output")
			}
			if output == "" {
				return t.read(args[0], r, func(s *kv.Store) error {
					return t.print(func(w *bufio.Writer) error { return t.export(cmd.Context(), s, w, true) })
				})
			}
			return t.exportFile(cmd.Context(), args[0], r, output, force)
		}),
	}
	r.flags(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to this `file`, which must not be there yet")
	cmd.Flags().BoolVar(&force, "force", false, "let --output replace a file")
	return cmd
}

func (t *tool) export(ctx context.Context, s *kv.Store, w *bufio.Writer, toStdout bool) error {
	bar := t.besides(toStdout)
	defer bar.end()
	total := s.Stats().Tail
	for record, err := range s.Records(ctx) {
		if err != nil {
			return err
		}
		bar.at("export", record.Off, total)
		if record.Live && !record.Expired {
			writeEntry(w, record.Key, record.Value, record.Expiry)
		}
		// A write that failed says so again at the Flush; why read on?
		if _, err := w.Write(nil); err != nil {
			return err
		}
	}
	return nil
}

// exportFile exports to a file. With a salvage it does so though bytes are missing,
// and returns that they are.
func (t *tool) exportFile(ctx context.Context, path string, r reading, output string, force bool) error {
	var missing error
	err := t.writeNew(output, force, func(f *os.File) error {
		err := t.read(path, r, func(s *kv.Store) error {
			w := bufio.NewWriterSize(f, 1<<20)
			if err := t.export(ctx, s, w, false); err != nil {
				return err
			}
			return w.Flush()
		})
		if r.salvage && errors.Is(err, kv.ErrCorrupt) {
			missing, err = err, nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return missing
}
