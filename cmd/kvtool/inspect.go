package main

import (
	"bufio"
	"context"
	"time"

	"github.com/mmapkv/mmapkv/internal/spacemap"
	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

func (t *tool) inspectVerb() *cobra.Command {
	var r reading
	var ascii, asJSON, force bool
	var output string
	cmd := &cobra.Command{
		Use:   "inspect STORE",
		Short: "Show how a store uses its space",
		Long: `Inspect reads the whole log of a store and draws where its bytes are: a map of the
file, the sizes of keys and values, the largest entries, their ages and deadlines,
and the typed maps with their codecs. It needs little memory, whatever the size of the store.

Of the entries in the histograms are counted those that are current, expired ones
included until a compaction leaves them behind. On a terminal the drawings are as
wide as it is; in a pipe they are ASCII, of 80 columns.

With --html it writes all that, and when what is in the log was written, as one page
that needs no script, no network and no other file, for a browser in light or dark. The
file has its name only once it is whole, and only its owner may read it.`,
		Example: `  kvtool inspect settings.mmkv
  kvtool inspect --html report.html --force settings.mmkv
  kvtool inspect --json settings.mmkv | jq .largest`,
		Args: cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			switch {
			case output != "" && (asJSON || ascii):
				return usagef("--html is without --json and --ascii")
			case output == "-":
				return usagef("--html wants the name of a file")
			case output != "":
				return t.inspectPage(cmd.Context(), args[0], r, output, force)
			case force:
				return usagef("--force is for --html")
			}
			c := t.canvas(ascii)
			return t.read(args[0], r, func(s *kv.Store) error {
				i, err := t.inspect(cmd.Context(), s, c.mapCells())
				if err != nil {
					return err
				}
				if asJSON {
					return t.printJSON(i.json())
				}
				return t.print(func(w *bufio.Writer) error {
					i.drawSpace(w, c)
					i.drawEntries(w, c)
					return nil
				})
			})
		}),
	}
	r.flags(cmd)
	cmd.Flags().BoolVar(&ascii, "ascii", false, "draw in ASCII on a terminal too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	cmd.Flags().StringVar(&output, "html", "", "write a page to this `file`, which must not be there yet")
	cmd.Flags().BoolVar(&force, "force", false, "let --html replace a file")
	return cmd
}

// inspection is what one pass over the log adds up. Its size is bounded.
type inspection struct {
	path  string
	stats kv.Stats
	space *spacemap.Map

	records, liveRecords, tombstones    int64
	headerBytes, liveBytes, deadBytes   int64
	keySizes, valueSizes                sizes
	largest                             largest
	maps                                mapSizes
	ages                                ages
	growth                              growth
	oldest, newest                      time.Time // of live entries
	noDeadline, laterDeadline, outdated int64     // live entries by their deadline
	now                                 time.Time
}

// inspect reads the log of s, and makes a map of so many cells. The writer may go on meanwhile, and
// replace the file: what is read, and offsets and lengths, are of one file and one moment.
func (t *tool) inspect(ctx context.Context, s *kv.Store, cells int) (*inspection, error) {
	bar := t.progress()
	defer bar.end()
	i := &inspection{path: s.Path(), largest: largest{most: 10}, now: time.Now(), headerBytes: spacemap.HeaderBytes}
	var err error
	i.space, i.stats, err = spacemap.Read(ctx, s, cells, func(r *kv.Record, end int64) {
		i.add(r)
		bar.at("inspect", r.Off, end)
	})
	if err != nil {
		return nil, err
	}
	return i, nil
}

func (i *inspection) add(r *kv.Record) {
	i.records++
	written := nameable(r.Written)
	i.growth.add(written, r.Len)
	if r.Deleted {
		i.tombstones++
	}
	if !r.Live {
		i.deadBytes += r.Len
		return
	}
	i.liveRecords++
	i.liveBytes += r.Len
	i.keySizes.add(int64(len(r.Key)))
	i.valueSizes.add(int64(len(r.Value)))
	i.largest.add(r)
	i.maps.add(r)
	i.ages.add(i.now.Sub(written))
	if i.oldest.IsZero() || written.Before(i.oldest) {
		i.oldest = written
	}
	if written.After(i.newest) {
		i.newest = written
	}
	switch {
	case r.Expiry.IsZero():
		i.noDeadline++
	case r.Expired:
		i.outdated++
	default:
		i.laterDeadline++
	}
}

// gaps are what the log leaves out between records (kv.Options.SyncAligned).
func (i *inspection) gaps() int64 {
	return max(0, i.stats.Tail-i.headerBytes-i.liveBytes-i.deadBytes-sum(i.stats.Missing))
}

// slack is what the file has beyond the log that was read.
func (i *inspection) slack() int64 { return max(0, i.stats.FileBytes-i.stats.Tail) }
