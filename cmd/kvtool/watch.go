package main

import (
	"bufio"
	"context"
	"errors"
	"iter"
	"strconv"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

// watching are the flags of watch.
type watching struct {
	typing
	from       uint64
	resume     bool // from was given
	noExisting bool
	count      int64
	json       bool
}

func (t *tool) watchVerb() *cobra.Command {
	var o watching
	cmd := &cobra.Command{
		Use:   "watch STORE [PREFIX]",
		Short: "Print changes as they happen",
		Long: `Watch prints the entries that are there, in the order in which they were last
written, and then each change as it happens, until it is interrupted: a line each of
revision, put or delete, and key, for put also the value, with tabs in between. Keys and
values are printed as scan prints them. With a prefix only keys that begin with it count.

If it falls far behind, changes of keys that have changed again since are left out: it
says on stderr how many, with --json in the next object. That an entry expires is no
change. With --json each line is an object with revision, key and value (or key_base64
and value_base64), expires where the entry has a deadline, deleted, and missed.

Entries of typed maps are shown by their codecs, with the name of the map before the
key, those of one map with --map, and everything as bytes with --raw: see kvtool scan
--help.

--from continues after a revision that was seen before. It fails if a compaction has
left behind what was changed since.`,
		Example: `  kvtool watch settings.mmkv
  kvtool watch settings.mmkv user/ --no-existing --json | jq .key
  kvtool watch settings.mmkv --from 1234 --count 1
  kvtool watch --map sessions app.mmkv`,
		Args: cobra.RangeArgs(1, 2),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			prefix := append(args, "")[1]
			if err := o.checkForms("the prefix", prefix); err != nil {
				return err
			}
			o.resume = cmd.Flags().Changed("from")
			switch {
			case o.count < 0:
				return usagef("--count %d: a negative number", o.count)
			case o.resume && o.noExisting:
				return usagef("either --from or --no-existing")
			}
			return t.read(args[0], reading{}, func(s *kv.Store) error {
				if err := o.open(cmd, s); err != nil {
					return err
				}
				start, err := o.chosen().keysFrom(prefix)
				if err != nil {
					return err
				}
				return t.print(func(w *bufio.Writer) error { return t.watch(cmd.Context(), s, start, &o, w) })
			})
		}),
	}
	o.flags(cmd)
	o.rawFlag(cmd)
	cmd.Flags().Uint64Var(&o.from, "from", 0, "begin after this `revision`")
	cmd.Flags().BoolVar(&o.noExisting, "no-existing", false, "print only what changes from now on")
	cmd.Flags().Int64Var(&o.count, "count", 0, "end after so many lines (0: never)")
	cmd.Flags().BoolVar(&o.json, "json", false, "print a JSON object a line")
	return cmd
}

// watch prints what happens in s, each event at once.
func (t *tool) watch(ctx context.Context, s *kv.Store, prefix []byte, o *watching, w *bufio.Writer) error {
	printed, missed := int64(0), uint64(0)
	for e := range o.events(ctx, s, prefix) {
		if e.Missed > 0 && (!o.json || e.Err != nil) {
			t.notef("left out %d changes", e.Missed)
		}
		if e.Err != nil {
			return e.Err
		}
		m, key := o.of(e.Key)
		if m == nil {
			missed += e.Missed
			continue
		}
		e.Missed, missed = e.Missed+missed, 0
		if o.json {
			m.writeEvent(w, key, &e)
		} else {
			m.event(w, key, &e)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if printed++; printed == o.count {
			return nil
		}
	}
	return ctx.Err()
}

// events yields what the flags ask for.
func (o *watching) events(ctx context.Context, s *kv.Store, prefix []byte) iter.Seq[kv.Event] {
	switch {
	case o.resume:
		return s.WatchFrom(ctx, prefix, o.from)
	case o.noExisting:
		return changes(ctx, s, prefix)
	}
	return s.Watch(ctx, prefix)
}

// changes yields what changes from now on.
func changes(ctx context.Context, s *kv.Store, prefix []byte) iter.Seq[kv.Event] {
	return func(yield func(kv.Event) bool) {
		for first, again := true, true; again; {
			again = false
			for e := range s.WatchFrom(ctx, prefix, s.Stats().Revision) {
				if first && errors.Is(e.Err, kv.ErrCompacted) {
					again = true // compacted between the two calls: now begins a little later
					break
				}
				first = false
				if !yield(e) {
					return
				}
			}
		}
	}
}

// event prints one event as text.
func (m *mapping) event(w *bufio.Writer, key []byte, e *kv.Event) {
	w.WriteString(strconv.FormatUint(e.Revision, 10))
	if e.Deleted {
		w.WriteString("\tdelete\t")
	} else {
		w.WriteString("\tput\t")
	}
	m.column(w)
	m.keys.write(w, key, writeText)
	if !e.Deleted {
		w.WriteByte('\t')
		m.values.write(w, e.Value, writeText)
	}
	w.WriteByte('\n')
}

// writeEvent prints one event as a JSON object.
func (m *mapping) writeEvent(w *bufio.Writer, key []byte, e *kv.Event) {
	w.WriteString(`{"revision":` + strconv.FormatUint(e.Revision, 10) + `,`)
	m.writeName(w)
	m.keys.field(w, "key", key)
	if e.Deleted {
		w.WriteString(`,"deleted":true`)
	} else {
		w.WriteString(`,`)
		m.values.field(w, "value", e.Value)
		writeExpires(w, e.Expiry)
	}
	if e.Missed > 0 {
		w.WriteString(`,"missed":` + strconv.FormatUint(e.Missed, 10))
	}
	w.WriteString("}\n")
}
