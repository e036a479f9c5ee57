package main

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"

	"github.com/spf13/cobra"
)

// form is how bytes are written on the command line and in what is printed.
type form string

const (
	formText   form = "text"
	formHex    form = "hex"
	formBase64 form = "base64"
)

var errForm = errors.New("must be text, hex or base64")

// form is a pflag.Value.
func (f *form) String() string { return string(*f) }
func (f *form) Type() string   { return "text|hex|base64" }
func (f *form) Set(s string) error {
	switch form(s) {
	case formText, formHex, formBase64:
		*f = form(s)
		return nil
	}
	return errForm
}

func (f *form) keyFlag(cmd *cobra.Command)   { f.flag(cmd, "key-format", "how keys are written") }
func (f *form) valueFlag(cmd *cobra.Command) { f.flag(cmd, "value-format", "how values are written") }
func (f *form) flag(cmd *cobra.Command, name, usage string) {
	*f = formText
	cmd.Flags().Var(f, name, usage+": text, hex or base64")
	completeFlag(cmd, name, formText, formHex, formBase64)
}

// parse returns the bytes that s stands for; what names s in the error.
func (f form) parse(what, s string) ([]byte, error) {
	var b []byte
	var err error
	switch f {
	case formHex:
		b, err = hex.DecodeString(s)
	case formBase64:
		b, err = base64.StdEncoding.Strict().DecodeString(s)
	default:
		return []byte(s), nil
	}
	if err != nil {
		return nil, usagef("%s is not %s: %v", what, f, err)
	}
	return b, nil
}

// encodedLen returns how many characters n bytes take.
func (f form) encodedLen(n int64) int64 {
	switch f {
	case formHex:
		return 2 * n
	case formBase64:
		return (n + 2) / 3 * 4
	}
	return n
}

// write writes b to w without needing memory in proportion to it. text is how
// text is written.
func (f form) write(w stringWriter, b []byte, text func(stringWriter, []byte)) {
	switch f {
	case formHex:
		hex.NewEncoder(w).Write(b)
	case formBase64:
		writeBase64(w, b)
	default:
		text(w, b)
	}
}

func writeBase64(w io.Writer, b []byte) {
	e := base64.NewEncoder(base64.StdEncoding, w)
	e.Write(b)
	e.Close()
}

// rawText writes b as it is.
func rawText(w stringWriter, b []byte) { w.Write(b) }
