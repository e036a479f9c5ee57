package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

func (t *tool) backupVerb() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "backup STORE FILE|-",
		Short: "Copy a store, also while it is in use",
		Long: `Backup writes a copy of a store as it is at one moment to a file, or to stdout.
Others may go on reading and writing the store meanwhile. Each record is verified on
the way; a damaged store is refused with exit code 4, and no file is written.

The file has its name only once it is whole and on the device, and only its owner may
read it. It is a store itself: the verbs that read work on it, and kvtool restore puts
it in the place of one. It has the log as it is, dead records included; one that was
cut short or damaged later is refused.

On stderr it says up to which revision the copy goes: kvtool watch --from shows what
came after that.`,
		Example: `  kvtool backup settings.mmkv settings.backup
  kvtool backup --force settings.mmkv /backups/settings.mmkv
  kvtool backup settings.mmkv - | ssh elsewhere kvtool restore - settings.mmkv`,
		Args: cobra.ExactArgs(2),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			if args[1] == "-" {
				if force {
					return usagef("--force is for a file")
				}
				if isTerminal(t.out) {
					return usagef("stdout is a terminal: name a file, or send it elsewhere")
				}
				return t.backup(cmd.Context(), args[0], t.out)
			}
			if force {
				if err := mayReplace(args[0], args[1]); err != nil {
					return err
				}
			}
			return t.writeNew(args[1], force, func(f *os.File) error { return t.backup(cmd.Context(), args[0], f) })
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "let it replace a file")
	return cmd
}

// mayReplace returns an error if the file at path is the store itself, or one that
// somebody writes: what is written to it after that would be lost.
func mayReplace(store, path string) error {
	if sameFile(store, path) {
		return fmt.Errorf("%s is the store itself; name another file", path)
	}
	return refuseUsed(path, kv.AccessShared)
}

// sameFile tells whether both paths name one file.
func sameFile(a, b string) bool {
	fa, err := os.Stat(a)
	if err != nil {
		return false
	}
	fb, err := os.Stat(b)
	return err == nil && os.SameFile(fa, fb)
}

// backup writes a copy of the store at path to w, and says up to where it goes.
func (t *tool) backup(ctx context.Context, path string, w io.Writer) error {
	return t.read(path, reading{}, func(s *kv.Store) error {
		to := &copying{ctx: ctx, to: w, bar: t.progress(), op: "backup", total: s.Stats().Tail}
		defer to.bar.end()
		// The copy is of this moment or a later one.
		revision := s.Stats().Revision
		n, err := s.WriteTo(to)
		if err != nil {
			return err
		}
		to.bar.end()
		t.notef("copied %s, with all changes up to revision %d", exactBytes(n), revision)
		return nil
	})
}

// copying is a writer that shows how far it has come, and ends with its context.
type copying struct {
	ctx   context.Context
	to    io.Writer
	bar   *progress
	op    string
	total int64 // bytes; -1: nobody knows
	done  int64
}

func (c *copying) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.to.Write(p)
	c.done += int64(n)
	c.bar.at(c.op, c.done, c.total)
	return n, err
}
