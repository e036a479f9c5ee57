package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

func (t *tool) checkVerb() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check STORE",
		Short: "Read the whole store and check every invariant",
		Long: `Check reads every record of a store, checks its sum and every invariant, and
prints a summary; or, a line each, whatever does not hold, with its offset, and
exits with 4. It changes nothing, and works on a store that is being written.

A torn write at the end of a store that was killed, or lost its power, is no
damage: the next Open for writing cuts it off.`,
		Example: `  kvtool check settings.mmkv
  kvtool check --json settings.mmkv | jq '.violations[].offset'`,
		Args: cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			report, err := t.check(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				err = t.printJSON(report)
			} else {
				err = t.print(func(w *bufio.Writer) error { return report.print(w, t.palette(t.out)) })
			}
			if n := len(report.Violations); n > 0 && err == nil {
				err = fmt.Errorf("%s: %w: violations: %d; restore a backup, or write what is left into a new store with kvtool repair", args[0], kv.ErrCorrupt, n)
			}
			return err
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

// check verifies the store at path, with a salvage only where Open refuses it: for
// a salvage, what lies behind a torn write at the end looks like damage.
func (t *tool) check(ctx context.Context, path string) (*checkReport, error) {
	var report *checkReport
	verify := func(s *kv.Store) error {
		r, err := s.Verify(ctx)
		report = newCheckReport(s.Path(), &r)
		return err
	}
	err := t.read(path, reading{}, verify)
	if report == nil && (errors.Is(err, kv.ErrCorrupt) || errors.Is(err, kv.ErrFault)) {
		err = t.read(path, reading{salvage: true}, verify)
	}
	if report != nil && len(report.Violations) > 0 && errors.Is(err, kv.ErrCorrupt) {
		err = nil // the violations say it, and where
	}
	return report, err
}

// checkReport is what check prints.
type checkReport struct {
	Path       printable   `json:"path"`
	Records    int64       `json:"records"`
	Tombstones int64       `json:"tombstones"`
	Keys       int64       `json:"keys"`
	LiveBytes  int64       `json:"live_bytes"`
	DeadBytes  int64       `json:"dead_bytes"`
	Violations []violation `json:"violations"`
}

type violation struct {
	Offset int64     `json:"offset"`
	What   printable `json:"what"`
}

func newCheckReport(path string, r *kv.Report) *checkReport {
	c := &checkReport{
		Path: printable(path), Records: r.Records, Tombstones: r.Tombstones, Keys: r.Keys,
		LiveBytes: r.LiveBytes, DeadBytes: r.DeadBytes, Violations: []violation{},
	}
	for _, v := range r.Violations {
		c.Violations = append(c.Violations, violation{v.Off, printable(v.What)})
	}
	return c
}

func (c *checkReport) print(w *bufio.Writer, p palette) error {
	if len(c.Violations) == 0 {
		fmt.Fprintf(w, "%s: %s records, %s keys, %s tombstones, %s live, %s dead\n", p.paint(inkGood, "ok"), humanize.Comma(c.Records),
			humanize.Comma(c.Keys), humanize.Comma(c.Tombstones), exactBytes(c.LiveBytes), exactBytes(c.DeadBytes))
	}
	for _, v := range c.Violations {
		fmt.Fprintf(w, "%s: %s\n", p.paint(inkBad, fmt.Sprintf("offset %d", v.Offset)), oneLine(string(v.What)))
	}
	return nil
}
