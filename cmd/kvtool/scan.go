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
	typing
	start    string // of the keys
	limit    int64
	keysOnly bool
	json     bool
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
value_base64: base64 where the bytes are no UTF-8.

Entries of typed maps are shown by the codecs that the store notes of them, as get
--map does, behind the name of the map and a tab; with --json the object has the map
too, and keys and values are numbers, true, JSON where they are that. With --map only
the entries of one map are printed, and no name. --raw shows everything as bytes, what
the store notes of its maps included. Without --map, --prefix is of these bytes.

A protobuf message is shown by the names of its fields with --proto, without those that
its descriptor does not have; else by their numbers, but as undecoded bytes if it has more
than 1 MiB.`,
		Example: `  kvtool scan settings.mmkv
  kvtool scan --prefix user/ --keys-only settings.mmkv
  kvtool scan --json --limit 10 settings.mmkv | jq -r .key
  kvtool scan --map sessions --json app.mmkv | jq .value.user`,
		Args: cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			if o.limit < 0 {
				return usagef("--limit %d: a negative number", o.limit)
			}
			if err := o.checkForms("the prefix", o.start); err != nil {
				return err
			}
			return t.read(args[0], o.reading, func(s *kv.Store) error {
				if err := o.open(cmd, s); err != nil {
					return err
				}
				prefix, err := o.chosen().keysFrom(o.start)
				if err != nil {
					return err
				}
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
							printed += o.entry(w, &record)
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
	o.reading.flags(cmd)
	o.typing.flags(cmd)
	o.rawFlag(cmd)
	cmd.Flags().StringVar(&o.start, "prefix", "", "print only keys that begin with this")
	cmd.Flags().Int64Var(&o.limit, "limit", 0, "print at most so many entries (0: all)")
	cmd.Flags().BoolVar(&o.keysOnly, "keys-only", false, "print no values")
	cmd.Flags().BoolVar(&o.json, "json", false, "print a JSON object a line")
	return cmd
}

// entry prints one entry, if it is to be shown, and returns how many that were.
func (o *scanning) entry(w *bufio.Writer, r *kv.Record) int64 {
	m, key := o.of(r.Key)
	switch {
	case m == nil:
		return 0
	case o.json && o.keysOnly:
		m.writeKey(w, key)
	case o.json:
		m.writeEntry(w, key, r.Value, r.Expiry)
	default:
		m.column(w)
		m.keys.write(w, key, writeText)
		if !o.keysOnly {
			w.WriteByte('\t')
			m.values.write(w, r.Value, writeText)
		}
		w.WriteByte('\n')
	}
	return 1
}
