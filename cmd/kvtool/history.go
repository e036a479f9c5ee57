package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

// historic are the flags of history.
type historic struct {
	reading
	typing
	json bool
}

func (t *tool) historyVerb() *cobra.Command {
	var o historic
	cmd := &cobra.Command{
		Use:   "history STORE KEY",
		Short: "Print every version of a key that is still in the log",
		Long: `History prints what was put under a key, and its deletions, the oldest first: all
that no compaction has left behind. It reads the whole log, at one moment.

A line is a version: the time at which it was written, to the second or so, its
revision, put or delete, what has become of it, its deadline or a dash, and for put
the size of the value in bytes and the value, as scan prints it; with tabs in between.
What has become of it:

  live     what get prints
  expired  the last version, but its deadline has passed
  dead     followed by another version, or a deletion

With --json each line is an object with key and value (or key_base64 and
value_base64), written, revision, offset and record_bytes (in the log), live, and,
where they apply, expires, expired and deleted. With --map key and values are those of
a typed map: see kvtool get --help.

If the log has no version of the key the exit code is 3.`,
		Example: `  kvtool history settings.mmkv greeting
  kvtool history --json settings.mmkv greeting | jq -r .written`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: t.completeKeys(&o.typing, 1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			if err := o.checkForms("the key", args[1]); err != nil {
				return err
			}
			return t.read(args[0], o.reading, func(s *kv.Store) error {
				if err := o.open(cmd, s); err != nil {
					return err
				}
				return t.print(func(w *bufio.Writer) error { return t.history(cmd.Context(), s, args[1], &o, w) })
			})
		}),
	}
	o.reading.flags(cmd)
	o.typing.flags(cmd)
	cmd.Flags().BoolVar(&o.json, "json", false, "print a JSON object a line")
	return cmd
}

// history prints the versions of the key that name stands for.
func (t *tool) history(ctx context.Context, s *kv.Store, name string, o *historic, w *bufio.Writer) error {
	m := o.chosen()
	key, err := m.key("the key", name)
	if err != nil {
		return err
	}
	bar := t.besides(true)
	defer bar.end()
	total, found := s.Stats().Tail, false
	for r, err := range s.Records(ctx) {
		if err != nil {
			return err
		}
		bar.at("history", r.Off, total)
		if !bytes.Equal(r.Key, key) {
			continue
		}
		found = true
		if o.json {
			m.writeVersion(w, &r)
		} else {
			m.version(w, &r)
		}
		// A write that failed says so again at the Flush; why read on?
		if _, err := w.Write(nil); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("%s: no version in the log: %w: %s", s.Path(), kv.ErrNotFound, m.quote(key, name))
	}
	return nil
}

// version prints one version as text.
func (m *mapping) version(w *bufio.Writer, r *kv.Record) {
	what, state, expires := "put", "dead", "-"
	if r.Deleted {
		what = "delete"
	}
	switch {
	case r.Live && r.Expired:
		state = "expired"
	case r.Live:
		state = "live"
	}
	if !r.Expiry.IsZero() {
		expires = r.Expiry.UTC().Format(time.RFC3339)
	}
	fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s", r.Written.UTC().Format(time.RFC3339), r.Revision, what, state, expires)
	if !r.Deleted {
		fmt.Fprintf(w, "\t%d\t", len(r.Value))
		m.values.write(w, r.Value, writeText)
	}
	w.WriteByte('\n')
}

// writeVersion prints one version as a JSON object.
func (m *mapping) writeVersion(w *bufio.Writer, r *kv.Record) {
	w.WriteString(`{"revision":` + strconv.FormatUint(r.Revision, 10))
	fmt.Fprintf(w, `,"written":"%s","offset":%d,"record_bytes":%d,"live":%t,`, r.Written.UTC().Format(time.RFC3339), r.Off, r.Len, r.Live)
	m.keys.field(w, "key", r.Key[len(m.prefix):])
	if r.Deleted {
		w.WriteString(`,"deleted":true`)
	} else {
		w.WriteString(`,`)
		m.values.field(w, "value", r.Value)
		writeExpires(w, r.Expiry)
	}
	if r.Live && r.Expired {
		w.WriteString(`,"expired":true`)
	}
	w.WriteString("}\n")
}
