package main

import (
	"bufio"
	"bytes"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

// scanning are the flags of scan.
type scanning struct {
	reading
	keys, values form
	prefix       string
	limit        int64
	keysOnly     bool
	json         bool
}

func (t *tool) scanVerb() *cobra.Command {
	var o scanning
	cmd := &cobra.Command{
		Use:   "scan STORE",
		Short: "Print keys and values, one entry a line",
		Long: `Scan prints the entries of one moment, in the order in which they were last
written: key, a tab, value. What is not plain printable text stands in quotes,
escaped as in a Go string literal, so that no entry is more than a line and none
does anything to a terminal. What is empty, or begins with a quote, is quoted too.

With --json each line is an object with key or key_base64, and value or
value_base64: base64 where the bytes are no UTF-8.`,
		Example: `  kvtool scan settings.mmkv
  kvtool scan --prefix user/ --keys-only settings.mmkv
  kvtool scan --json --limit 10 settings.mmkv | jq -r .key`,
		Args: cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			prefix, err := o.keys.parse("the prefix", o.prefix)
			if err != nil {
				return err
			}
			if o.limit < 0 {
				return usagef("--limit %d: a negative number", o.limit)
			}
			return t.read(args[0], o.reading, func(s *kv.Store) error {
				return t.print(func(w *bufio.Writer) error {
					bar := t.besides(true)
					defer bar.end()
					printed, total := int64(0), s.Stats().Tail
					for record, err := range s.Records(cmd.Context()) {
						if err != nil {
							return err
						}
						bar.at("scan", record.Off, total)
						if o.limit > 0 && printed == o.limit {
							break
						}
						if record.Live && !record.Expired && bytes.HasPrefix(record.Key, prefix) {
							o.entry(w, &record)
							printed++
						}
						// A write that failed says so again at the Flush; why read on?
						if _, err := w.Write(nil); err != nil {
							return err
						}
					}
					return nil
				})
			})
		}),
	}
	o.flags(cmd)
	o.keys.keyFlag(cmd)
	o.values.valueFlag(cmd)
	cmd.Flags().StringVar(&o.prefix, "prefix", "", "print only keys that begin with this")
	cmd.Flags().Int64Var(&o.limit, "limit", 0, "print at most so many entries (0: all)")
	cmd.Flags().BoolVar(&o.keysOnly, "keys-only", false, "print no values")
	cmd.Flags().BoolVar(&o.json, "json", false, "print a JSON object a line")
	return cmd
}

// entry prints one entry.
func (o *scanning) entry(w *bufio.Writer, r *kv.Record) {
	switch {
	case o.json && o.keysOnly:
		writeKey(w, r.Key)
	case o.json:
		writeEntry(w, r.Key, r.Value, r.Expiry)
	default:
		o.keys.write(w, r.Key, writeText)
		if !o.keysOnly {
			w.WriteByte('\t')
			o.values.write(w, r.Value, writeText)
		}
		w.WriteByte('\n')
	}
}
