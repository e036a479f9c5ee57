package main

import (
	"fmt"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

func (t *tool) deleteVerb() *cobra.Command {
	w := writing{options: kv.Options{CompactAt: -1}}
	var keys form
	cmd := &cobra.Command{
		Use:   "delete STORE KEY...",
		Short: "Delete keys",
		Long: `Delete deletes keys, in one transaction.

Keys that are not there are named on stderr and make the exit code 3; the others
are deleted all the same. When delete has ended with exit code 0 or 3 that is on
the device.`,
		Example: `  kvtool delete settings.mmkv greeting session
  kvtool delete --key-format hex settings.mmkv 00ff`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: t.completeKeys(-1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			wanted := make([][]byte, len(args)-1)
			for i := range wanted {
				key, err := keys.parse("a key", args[i+1])
				if err != nil {
					return err
				}
				wanted[i] = key
			}
			return t.write(args[0], w, func(s *kv.Store) error { return t.delete(s, wanted) })
		}),
	}
	w.flags(cmd)
	keys.keyFlag(cmd)
	return cmd
}

func (t *tool) delete(s *kv.Store, keys [][]byte) error {
	var absent [][]byte
	err := s.Update(func(tx *kv.Tx) error {
		for _, key := range keys {
			found, err := tx.Has(key)
			if err == nil && found {
				err = tx.Delete(key)
			}
			if err != nil {
				return err
			}
			if !found {
				absent = append(absent, key)
			}
		}
		return nil
	})
	if err != nil || len(absent) == 0 {
		return err
	}
	for _, key := range absent[1:] {
		t.notef("%s: %v: %s", s.Path(), kv.ErrNotFound, quoteKey(key))
	}
	return fmt.Errorf("%s: %w: %s", s.Path(), kv.ErrNotFound, quoteKey(absent[0]))
}
