package main

import (
	"fmt"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

func (t *tool) deleteVerb() *cobra.Command {
	w := writing{options: kv.Options{CompactAt: -1}}
	var y typing
	cmd := &cobra.Command{
		Use:   "delete STORE KEY...",
		Short: "Delete keys",
		Long: `Delete deletes keys, in one transaction.

Keys that are not there are named on stderr and make the exit code 3; the others
are deleted all the same. When delete has ended with exit code 0 or 3 that is on
the device. With --map the keys are those of a typed map: see kvtool get --help.`,
		Example: `  kvtool delete settings.mmkv greeting session
  kvtool delete --key-format hex settings.mmkv 00ff`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: t.completeKeys(&y, -1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			if err := y.checkForms("a key", args[1:]...); err != nil {
				return err
			}
			return t.write(args[0], w, func(s *kv.Store) error {
				if err := y.open(cmd, s); err != nil {
					return err
				}
				return t.delete(s, y.chosen(), args[1:])
			})
		}),
	}
	w.flags(cmd)
	y.keys.keyFlag(cmd)
	y.mapFlag(cmd)
	return cmd
}

func (t *tool) delete(s *kv.Store, m *mapping, names []string) error {
	keys := make([][]byte, len(names))
	for i, name := range names {
		key, err := m.key("a key", name)
		if err != nil {
			return err
		}
		keys[i] = key
	}
	var absent []string
	err := s.Update(func(tx *kv.Tx) error {
		for i, key := range keys {
			found, err := tx.Has(key)
			if err == nil && found {
				err = tx.Delete(key)
			}
			if err != nil {
				return err
			}
			if !found {
				absent = append(absent, m.quote(key, names[i]))
			}
		}
		return nil
	})
	if err != nil || len(absent) == 0 {
		return err
	}
	for _, name := range absent[1:] {
		t.notef("%s: %v: %s", s.Path(), kv.ErrNotFound, name)
	}
	return fmt.Errorf("%s: %w: %s", s.Path(), kv.ErrNotFound, absent[0])
}
