package main

import (
	"bufio"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

func (t *tool) getVerb() *cobra.Command {
	var r reading
	var keys, values form
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "get STORE KEY",
		Short: "Print the value of a key",
		Long: `Get prints the value of a key: its very bytes, and nothing after them.

On a terminal it ends the line, and shows a value that is no plain text in quotes
and escaped. A key that is not there is exit code 3.`,
		Example: `  kvtool get settings.mmkv greeting
  kvtool get settings.mmkv avatar > avatar.png
  kvtool get --key-format hex --value-format base64 settings.mmkv 00ff`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: t.completeKeys(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			key, err := keys.parse("the key", args[1])
			if err != nil {
				return err
			}
			return t.read(args[0], r, func(s *kv.Store) error { return t.get(s, key, values, asJSON) })
		}),
	}
	r.flags(cmd)
	keys.keyFlag(cmd)
	values.valueFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object, as scan --json does")
	return cmd
}

func (t *tool) get(s *kv.Store, key []byte, values form, asJSON bool) error {
	record, err := s.Lookup(key)
	if err == nil {
		err = t.print(func(w *bufio.Writer) error {
			switch {
			case asJSON:
				writeEntry(w, record.Key, record.Value, record.Expiry)
			case isTerminal(t.out):
				values.write(w, record.Value, terminalText)
				w.WriteByte('\n')
			default:
				values.write(w, record.Value, rawText)
			}
			return nil
		})
	}
	if errors.Is(err, kv.ErrNotFound) {
		return fmt.Errorf("%s: %w: %s", s.Path(), err, quoteKey(key))
	}
	return err
}

// terminalText writes text of several lines as it is, and all else quoted.
func terminalText(w stringWriter, b []byte) {
	var buf [16]byte
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r != '\n' && r != '\t' && len(escapeControl.append(buf[:0], r, b[i:i+n])) > 0 {
			w.WriteString(`"`)
			escape(w, b, escapeText)
			w.WriteString(`"`)
			return
		}
		i += n
	}
	w.Write(b)
}
