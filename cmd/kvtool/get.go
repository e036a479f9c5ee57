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
	var y typing
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "get STORE KEY",
		Short: "Print the value of a key",
		Long: `Get prints the value of a key: its very bytes, and nothing after them.

On a terminal it ends the line, and shows a value that is no plain text in quotes
and escaped. A key that is not there is exit code 3.

With --map key and value are those of a typed map, by the codecs that the store
notes of it: numbers, true and false, RFC 3339, JSON, text. A protobuf message is
JSON by its descriptor, where --proto gives that, and else an object of its fields
by their numbers. What does not decode is shown as bytes, behind "undecoded:".
kvtool inspect lists the maps.`,
		Example: `  kvtool get settings.mmkv greeting
  kvtool get settings.mmkv avatar > avatar.png
  kvtool get --key-format hex --value-format base64 settings.mmkv 00ff
  kvtool get --map sessions app.mmkv 42
  kvtool get --map '' visits.mmkv /about`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: t.completeKeys(&y, 1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			if err := y.checkForms("the key", args[1]); err != nil {
				return err
			}
			return t.read(args[0], r, func(s *kv.Store) error {
				if err := y.open(cmd, s); err != nil {
					return err
				}
				return t.get(s, &y, args[1], asJSON)
			})
		}),
	}
	r.flags(cmd)
	y.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object, as scan --json does")
	return cmd
}

func (t *tool) get(s *kv.Store, y *typing, name string, asJSON bool) error {
	m := y.chosen()
	key, err := m.key("the key", name)
	if err != nil {
		return err
	}
	record, err := s.Lookup(key)
	if err == nil {
		err = t.print(func(w *bufio.Writer) error {
			switch {
			case asJSON:
				m.writeEntry(w, record.Key[len(m.prefix):], record.Value, record.Expiry)
			case isTerminal(t.out):
				m.values.write(w, record.Value, terminalText)
				w.WriteByte('\n')
			default:
				m.values.write(w, record.Value, rawText)
			}
			return nil
		})
	}
	if errors.Is(err, kv.ErrNotFound) {
		return fmt.Errorf("%s: %w: %s", s.Path(), err, m.quote(key, name))
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
