package main

import (
	"bufio"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

func (t *tool) compactVerb() *cobra.Command {
	w := writing{options: kv.Options{CompactAt: -1}}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "compact STORE",
		Short: "Give back the space of dead records",
		Long: `Compact rewrites a store without what is dead: overwritten, deleted and expired
entries. It takes as much free disk as the live bytes need. Interrupted, it
leaves the store as it was.

A store that another process has open for writing, and does not share, can only be
compacted by that process, with Store.Compact: then the exit code is 5.`,
		Example: `  kvtool compact settings.mmkv
  kvtool compact --wait 10s --json settings.mmkv`,
		Args: cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			report := compactReport{}
			err := t.write(args[0], w, func(s *kv.Store) error {
				report.Path = printable(s.Path())
				report.FileBefore = s.Stats().FileBytes
				info, err := s.Compact(cmd.Context())
				report.Generation, report.Keys, report.LogBefore, report.LogAfter = info.Generation, info.Keys, info.Before, info.After
				report.Seconds = info.Took.Seconds()
				return err
			})
			if errors.Is(err, kv.ErrLocked) {
				return fmt.Errorf("%w; that process can compact it (Store.Compact), or must close it first", err)
			}
			if err != nil {
				return err
			}
			// Close trims the file, so that its length is known only now.
			header, err := kv.Inspect(args[0])
			if err != nil {
				return err
			}
			report.FileAfter = header.FileBytes
			if asJSON {
				return t.printJSON(report)
			}
			return t.print(report.print)
		}),
	}
	w.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

// compactReport is what compact prints.
type compactReport struct {
	Path       printable `json:"path"`
	Generation uint64    `json:"generation"`
	Keys       int64     `json:"keys"`
	LogBefore  int64     `json:"log_bytes_before"`
	LogAfter   int64     `json:"log_bytes_after"`
	FileBefore int64     `json:"file_bytes_before"`
	FileAfter  int64     `json:"file_bytes_after"`
	Seconds    float64   `json:"seconds"`
}

func (c *compactReport) print(w *bufio.Writer) error {
	fmt.Fprintf(w, "before  %s\nafter   %s\n", exactBytes(c.FileBefore), exactBytes(c.FileAfter))
	fmt.Fprintf(w, "%s keys in generation %d, in %s\n", humanize.Comma(c.Keys), c.Generation,
		brief(time.Duration(c.Seconds*float64(time.Second))))
	return nil
}

// brief is d with as many digits as a person reads.
func brief(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}
