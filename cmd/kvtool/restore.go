package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

func (t *tool) restoreVerb() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "restore BACKUP|- STORE",
		Short: "Put a backup in the place of a store",
		Long: `Restore copies a backup, or another store, or what comes on stdin, to the path of a
store. The copy has that name only once it is on the device and every record and every
invariant of it has been checked; a damaged backup is refused with exit code 4, and
nothing is changed.

A store that is there already is replaced only with --force, damaged or not, and never
while a process has it open: then the exit code is 5. Readers are seen on Linux only, as
far as this user may see them. What is there and is no store is never replaced. The new
store gets the permissions of the old one, and its owner where this user may give it.`,
		Example: `  kvtool restore settings.backup settings.mmkv
  kvtool restore --force /backups/settings.mmkv settings.mmkv`,
		Args: cobra.ExactArgs(2),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			return t.restore(cmd.Context(), args[0], args[1], force)
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "let it replace a store that nobody has open")
	return cmd
}

// checkpointSuffix names what lies beside a store for its next Open.
const checkpointSuffix = ".mmapkv-index"

// restore puts a verified copy of backup at path.
func (t *tool) restore(ctx context.Context, backup, path string, force bool) error {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved // the store is replaced, and not a link to it
	}
	old, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case sameFile(backup, path):
		return fmt.Errorf("%s is the backup itself", path)
	case !force:
		return fmt.Errorf("%s is there already; --force replaces it", path)
	default:
		if err := mayReplaceStore(path); err != nil { // and again, once the copy is there
			return err
		}
	}
	// A directory of its own, so that all that an Open leaves beside a store goes too.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".kvtool-restore-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	temp := filepath.Join(dir, "store")
	if err := t.receive(ctx, backup, temp, old); err != nil {
		return err
	}
	if err := t.verifyCopy(ctx, backup, temp); err != nil {
		return err
	}
	if old == nil {
		err = replaceStore(temp, path, false)
	} else {
		err = t.locked(path, func() error { return replaceStore(temp, path, true) })
	}
	if err != nil {
		return err
	}
	header, err := kv.Inspect(path)
	if err == nil {
		t.notef("restored %s, with all changes up to revision %d", exactBytes(header.FileBytes), header.DurableRevision)
	}
	return err
}

// mayReplaceStore returns an error if a process has the file at path open, or if it is
// no store, as far as can be told of a damaged one.
func mayReplaceStore(path string) error {
	if _, err := kv.Inspect(path); err != nil && !errors.Is(err, kv.ErrCorrupt) && !errors.Is(err, kv.ErrFault) {
		return err
	}
	return refuseUsed(path, kv.AccessRead)
}

// receive makes a copy of backup at temp, on the device, with the permissions and the
// owner of old, if there is one.
func (t *tool) receive(ctx context.Context, backup, temp string, old fs.FileInfo) error {
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	to := &copying{ctx: ctx, to: f, bar: t.progress(), op: "restore", total: -1}
	defer to.bar.end()
	if backup == "-" {
		_, err = io.Copy(to, newInput(ctx, t.in))
	} else {
		err = t.read(backup, reading{}, func(s *kv.Store) error {
			to.total = s.Stats().Tail
			_, err := s.WriteTo(to)
			return err
		})
	}
	if err == nil && old != nil {
		err = inheritOwner(f, old)
	}
	if err == nil {
		err = to.bar.during("sync", f.Sync)
	}
	return err
}

// verifyCopy checks every record and every invariant of the copy of backup at temp.
func (t *tool) verifyCopy(ctx context.Context, backup, temp string) error {
	report, err := t.check(ctx, temp)
	if err == nil && len(report.Violations) > 0 {
		err = fmt.Errorf("%w: offset %d: %s", kv.ErrCorrupt, report.Violations[0].Offset, report.Violations[0].What)
	}
	if err != nil {
		return fmt.Errorf("the copy of %s: %w", backup, err)
	}
	return nil
}

// locked runs fn while nobody else can open the store at path for writing.
func (t *tool) locked(path string, fn func() error) error {
	// Without checkpoints, as one of the old log is of no use to the new one.
	s, err := kv.Open(path, &kv.Options{CheckpointBytes: -1, CompactAt: -1, Durability: kv.SyncManual})
	switch {
	case err == nil:
		defer s.Close() // of a file that has no name any more, if fn did its work
	case !errors.Is(err, kv.ErrCorrupt) && !errors.Is(err, kv.ErrFault):
		return err
	}
	// One that is damaged, nobody can open for writing; but one may have done so before.
	if err := refuseUsed(path, kv.AccessRead); err != nil {
		return err
	}
	return fn()
}

// replaceStore gives the store at temp the name path. The checkpoint of an earlier
// store there goes before: that does no harm, whatever happens next.
func replaceStore(temp, path string, replace bool) error {
	if err := os.Remove(path + checkpointSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return place(temp, path, replace)
}
