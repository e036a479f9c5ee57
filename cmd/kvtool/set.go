package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

func (t *tool) setVerb() *cobra.Command {
	w := writing{mayCreate: true, options: kv.Options{CompactAt: -1}}
	var y typing
	var file string
	var ttl time.Duration
	var durable bool
	cmd := &cobra.Command{
		Use:   "set STORE KEY [VALUE | -]",
		Short: "Set a key to a value",
		Long: `Set sets a key to the value given: as an argument, on stdin if that is -, or in
the file that --file names. As text, stdin and files are taken byte for byte.

The store must exist; --create makes an empty one first. When set has ended with
exit code 0 the entry is on the device, for closing the store syncs it. --durable
syncs the entry by itself before that.

With --map the entry is one of a typed map that is there, and key and value are taken by
its codecs, as get --map shows them: a number, RFC 3339, JSON; a protobuf message as JSON
by the descriptor that --proto gives.`,
		Example: `  kvtool set --create settings.mmkv greeting hello
  kvtool set settings.mmkv session --ttl 10m abc
  kvtool set settings.mmkv avatar --file avatar.png
  date | kvtool set settings.mmkv now -
  kvtool set --map visits app.mmkv /about 17`,
		Args: cobra.RangeArgs(2, 3),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			if err := y.checkForms("the key", args[1]); err != nil {
				return err
			}
			if w.create && cmd.Flags().Changed("map") {
				return usagef("--create makes a store without maps; kvtool import --create --map makes one with a map")
			}
			if cmd.Flags().Changed("ttl") && ttl <= 0 {
				return usagef("--ttl %v: not a time to live", ttl)
			}
			value, err := t.value(cmd, args[2:], file, y.values)
			if err != nil {
				return err
			}
			return t.write(args[0], w, func(s *kv.Store) error {
				if err := y.open(cmd, s); err != nil {
					return err
				}
				m := y.chosen()
				key, err := m.key("the key", args[1])
				if err == nil {
					value, err = m.values.take("the value", value)
				}
				if err != nil {
					return err
				}
				return set(s, key, value, ttl, durable)
			})
		}),
	}
	w.flags(cmd)
	y.flags(cmd)
	cmd.Flags().StringVarP(&file, "file", "f", "", "take the value from this `file`")
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "let the entry expire after this time, such as 90s or 10m")
	cmd.Flags().BoolVar(&durable, "durable", false, "sync the entry before the store is closed")
	return cmd
}

func set(s *kv.Store, key, value []byte, ttl time.Duration, durable bool) error {
	err := error(nil)
	if ttl > 0 {
		err = s.PutTTL(key, value, ttl)
	} else {
		err = s.Put(key, value)
	}
	if err == nil && durable {
		err = s.Sync()
	}
	return err
}

// value returns the value that set is given in one of three ways.
func (t *tool) value(cmd *cobra.Command, args []string, file string, f form) ([]byte, error) {
	fromFile := cmd.Flags().Changed("file")
	switch {
	case fromFile == (len(args) == 1):
		return nil, usagef("one value is needed: an argument, - for stdin, or --file")
	case fromFile:
		in, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer in.Close()
		return readValue(cmd.Context(), in, file, f)
	case args[0] == "-":
		return readValue(cmd.Context(), t.in, "stdin", f)
	}
	return f.parse("the value", args[0])
}

// readValue reads a value, and not much more than a value may be long.
func readValue(ctx context.Context, in io.Reader, name string, f form) ([]byte, error) {
	limit := f.encodedLen(kv.MaxValueSize)
	if f != formText {
		limit += 1 << 20 // white space around it
	}
	b, err := io.ReadAll(io.LimitReader(newInput(ctx, in), limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: %w: a value has at most %s", name, kv.ErrTooLarge, exactBytes(kv.MaxValueSize))
	}
	if f == formText {
		return b, nil
	}
	b, err = f.parse("what "+name+" holds", string(bytes.TrimSpace(b)))
	if usage := (*usageError)(nil); errors.As(err, &usage) {
		return nil, errors.New(usage.text) // the command line was right
	}
	return b, err
}
