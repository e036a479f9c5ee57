package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/dustin/go-humanize"
	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

func (t *tool) repairVerb() *cobra.Command {
	var output string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "repair STORE --output NEW",
		Short: "Write what verifies of a damaged store into a new one",
		Long: `Repair reads a store that is damaged, writes every current entry that verifies to a
new store, and reports what is missing. It never changes the damaged one. Nothing
may be at NEW, which gets its name only once it is whole and on the device. A store
without damage is copied.

The new store has the entries in the order in which they were last written, with
their deadlines; not their history, nor the times at which they were written.
Entries that have expired are left out.

Reported are the ranges of bytes that are missing, and how many of the entries were
last written before such a range: what was lost there may have been a later value
of theirs, or their deletion. Of what was lost, these keys can be told:

  probably lost        the key can be read in the damage; the new store lacks it
  probably older       likewise, and the new store has an earlier value
  probably undeleted   likewise; it was being deleted, and the new store has it again
  transaction cut      an entry that is there, while damage begins further on in
                       its transaction

Nothing vouches for a key that is read in the damage: it may be damaged itself. A key
of which no byte was left in place cannot be told, and neither can what follows
damage be told to be the rest of a transaction that began in it. At most 1000 keys
that were read in damage are named, and 1000 of cut transactions; the rest is counted.

If something is missing the exit code is 4.`,
		Example: `  kvtool repair --output mended.mmkv damaged.mmkv
  kvtool repair --json --output mended.mmkv damaged.mmkv | jq .missing`,
		Args: cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			if output == "" {
				return usagef("--output is needed: the new store")
			}
			report, err := t.repair(cmd.Context(), args[0], output)
			if report == nil {
				return err
			}
			if asJSON {
				return errors.Join(err, t.printJSON(report))
			}
			return errors.Join(err, t.print(report.print))
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "the `file` of the new store, which must not be there yet")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

// repair writes what verifies of the store at path to a new one at output. There is
// a report only if output is there, and an error too if something is missing.
func (t *tool) repair(ctx context.Context, path, output string) (*repairReport, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if err := mayCreate(fi, output); err != nil {
		return nil, err
	}
	// A directory of its own, so that all that an Open leaves beside a store goes too.
	dir, err := os.MkdirTemp(filepath.Dir(output), ".kvtool-repair-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	temp := filepath.Join(dir, "store")
	r := &repair{t: t, report: repairReport{Output: printable(output), Missing: []byteRange{}, Keys: []namedKey{}}}
	write := func(s *kv.Store) error { return r.write(ctx, s, temp, fi.Mode().Perm()|0o600) }
	// With a salvage only where Open refuses the store: for a salvage, what lies behind
	// a torn write at the end looks like damage.
	damage := t.read(path, reading{verify: true}, write)
	if r.out == nil && (errors.Is(damage, kv.ErrCorrupt) || errors.Is(damage, kv.ErrFault)) {
		damage = t.read(path, reading{salvage: true, verify: true}, write)
		if r.out == nil && errors.Is(damage, kv.ErrCorrupt) {
			damage = fmt.Errorf("%w; without its header no record can be told from damage: restore a backup", damage)
		}
	}
	if !r.whole {
		return nil, damage
	}
	if err := place(temp, output, false); err != nil {
		return nil, err
	}
	return &r.report, damage
}

// mayCreate returns an error if something is at output, such as the store itself.
func mayCreate(store fs.FileInfo, output string) error {
	if fi, err := os.Stat(output); err == nil && os.SameFile(fi, store) {
		return fmt.Errorf("%s is the store that is to be repaired; name a new one", output)
	}
	switch _, err := os.Lstat(output); {
	case err == nil:
		return fmt.Errorf("%s is there already; name a new store", output)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return nil
}

// repair is one on its way.
type repair struct {
	t      *tool
	report repairReport
	out    *kv.Store
	whole  bool // out is written, and synced

	missing  []kv.Range // those that lie ahead
	suspects map[string]*kv.Suspect
	older    map[string]bool // of a suspect's key, whether there is an earlier value
	run      [][]byte        // keys of the transaction that is being read, at most maxNamed
	cut      []namedKey      // keys of transactions that are cut, at most maxNamed
}

// maxNamed bounds the keys of each kind that are held in memory to be named.
const maxNamed = 1000

// write writes what s has to a new store at temp, and closes it.
func (r *repair) write(ctx context.Context, s *kv.Store, temp string, perm fs.FileMode) error {
	out, err := kv.Open(temp, &kv.Options{Perm: perm, Durability: kv.SyncManual, CompactAt: -1})
	if err != nil {
		return err
	}
	r.out = out
	r.report.Path = printable(s.Path())
	bar := r.t.progress()
	err = bar.during("search", func() error { return r.suspect(ctx, s) })
	if err == nil {
		err = r.copy(ctx, s)
	}
	if err = errors.Join(err, bar.during("close", out.Close)); err != nil {
		return err
	}
	r.name()
	info, err := kv.Inspect(temp)
	r.report.OutputBytes = info.FileBytes
	r.whole = err == nil
	return err
}

// suspect notes what keys can be read in the damage, the last record of each.
func (r *repair) suspect(ctx context.Context, s *kv.Store) error {
	r.missing = s.Stats().Missing
	r.report.Missing, r.report.MissingBytes = ranges(r.missing), sum(r.missing)
	r.suspects, r.older = make(map[string]*kv.Suspect), make(map[string]bool)
	for found, err := range s.Suspects(ctx) {
		if err != nil {
			return err
		}
		if _, known := r.suspects[string(found.Key)]; known || len(r.suspects) < maxNamed {
			r.suspects[string(found.Key)] = &found
		} else {
			r.report.MoreKeys++
		}
	}
	return nil
}

// copy puts the current entries of s into out, in the order of the log.
func (r *repair) copy(ctx context.Context, s *kv.Store) error {
	bar := r.t.progress()
	defer bar.end()
	i := &importer{importing: importing{typing: typing{s: r.out}}}
	total := s.Stats().Tail
	last := int64(0) // where the last damage begins
	if n := len(r.missing); n > 0 {
		last = r.missing[n-1].Off
	}
	for record, err := range s.Records(ctx) {
		if err != nil {
			return err
		}
		bar.at("repair", record.Off, total)
		r.follow(&record)
		switch {
		case !record.Live:
			continue
		case record.Expired:
			r.report.Expired++
			continue
		case record.Off < last:
			r.report.BeforeDamage++
		}
		if err := i.add(entry{bytes.Clone(record.Key), append([]byte{}, record.Value...), record.Expiry}); err != nil {
			return err
		}
	}
	r.passMissing(total)
	err := i.flush()
	r.report.Entries = i.imported
	return err
}

// follow notes what a record tells of the damage before it, and of what was read
// in damage.
func (r *repair) follow(record *kv.Record) {
	if len(r.report.Missing) == 0 {
		return
	}
	r.passMissing(record.Off)
	if record.More && len(r.run) < maxNamed {
		r.run = append(r.run, bytes.Clone(record.Key))
	} else if !record.More {
		r.run = r.run[:0]
	}
	if found := r.suspects[string(record.Key)]; found != nil {
		if record.Off > found.Off {
			delete(r.suspects, string(record.Key)) // what was lost was not the last word
		} else {
			r.older[string(record.Key)] = !record.Deleted && !record.Expired
		}
	}
}

// passMissing goes on to off: if a damaged range lies before it, a transaction that
// is being read is cut.
func (r *repair) passMissing(off int64) {
	for len(r.missing) > 0 && r.missing[0].Off <= off {
		for _, key := range r.run {
			if len(r.cut) == maxNamed {
				r.report.MoreKeys++
				continue
			}
			r.cut = append(r.cut, newNamedKey(r.missing[0].Off, "transaction cut", key))
		}
		r.run = r.run[:0]
		r.missing = r.missing[1:]
	}
}

// name adds to the report the keys that were read in damage, in the order of the file,
// and after them those of transactions that are cut.
func (r *repair) name() {
	found := make([]*kv.Suspect, 0, len(r.suspects))
	for _, f := range r.suspects {
		found = append(found, f)
	}
	slices.SortFunc(found, func(a, b *kv.Suspect) int { return cmp.Compare(a.Off, b.Off) })
	for _, f := range found {
		what := "probably lost"
		switch older := r.older[string(f.Key)]; {
		case f.Deleted && older:
			what = "probably undeleted"
		case f.Deleted:
			continue
		case older:
			what = "probably older"
		}
		r.report.Keys = append(r.report.Keys, newNamedKey(f.Off, what, f.Key))
	}
	r.report.Keys = append(r.report.Keys, r.cut...)
}

// repairReport is what repair prints.
type repairReport struct {
	Path         printable   `json:"path"`
	Output       printable   `json:"output"`
	OutputBytes  int64       `json:"output_bytes"`
	Entries      int64       `json:"entries"`
	Expired      int64       `json:"expired"`
	MissingBytes int64       `json:"missing_bytes"`
	Missing      []byteRange `json:"missing"`
	BeforeDamage int64       `json:"entries_before_damage"`
	Keys         []namedKey  `json:"keys"`
	MoreKeys     int64       `json:"more_keys"`
}

// namedKey is a key of which something can be told. Offset is that of the damage.
type namedKey struct {
	Offset int64  `json:"offset"`
	What   string `json:"what"`
	jsonKey
	key []byte
}

func newNamedKey(off int64, what string, key []byte) namedKey {
	return namedKey{Offset: off, What: what, jsonKey: newJSONKey(key), key: key}
}

func (r *repairReport) print(w *bufio.Writer) error {
	w.WriteString("wrote " + humanize.Comma(r.Entries) + " entries to ")
	writeText(w, []byte(r.Output))
	fmt.Fprintf(w, ", %s\n", exactBytes(r.OutputBytes))
	if r.Expired > 0 {
		fmt.Fprintf(w, "left out %s entries that have expired\n", humanize.Comma(r.Expired))
	}
	if len(r.Missing) == 0 {
		fmt.Fprintf(w, "nothing missing\n")
		return nil
	}
	fmt.Fprintf(w, "missing: %s in %s places\n", exactBytes(r.MissingBytes), humanize.Comma(int64(len(r.Missing))))
	for _, m := range r.Missing {
		fmt.Fprintf(w, "  offset %d: %s\n", m.Offset, exactBytes(m.Bytes))
	}
	fmt.Fprintf(w, "entries last written before missing bytes, which may have held later ones: %s\n", humanize.Comma(r.BeforeDamage))
	for _, k := range r.Keys {
		fmt.Fprintf(w, "%s: ", k.What)
		writeText(w, k.key)
		fmt.Fprintf(w, "  (offset %d)\n", k.Offset)
	}
	if r.MoreKeys > 0 {
		fmt.Fprintf(w, "and %s keys more\n", humanize.Comma(r.MoreKeys))
	}
	return nil
}
