package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/mmapkv/mmapkv/kv"
)

// Goal: each error has the exit code of its kind, however it is wrapped.
func TestExitCode(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error
		want int
	}{
		{"none", nil, exitOK},
		{"of running", &runError{errors.New("x")}, exitError},
		{"of cobra", errors.New("unknown flag"), exitUsage},
		{"of usage, found while running", &runError{usagef("x")}, exitUsage},
		{"not found", &runError{fmt.Errorf("k: %w", kv.ErrNotFound)}, exitNotFound},
		{"corrupt", &runError{&kv.Error{Op: "open", Err: &kv.CorruptError{}}}, exitCorrupt},
		{"corrupt, and another", &runError{errors.Join(kv.ErrCorrupt, errors.New("x"))}, exitCorrupt},
		{"locked", &runError{&kv.Error{Op: "open", Err: kv.ErrLocked}}, exitLocked},
		{"interrupted", &runError{context.Canceled}, exitError},
		{"no store", &runError{kv.ErrFormat}, exitError},
		{"a later version", &runError{kv.ErrVersion}, exitError},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := exitCode(test.err); got != test.want {
				t.Errorf("exit code %d, want %d", got, test.want)
			}
		})
	}
}

// Goal: a message is one line, and does nothing to a terminal.
func TestOneLine(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"as it is", `open "a  b\c": no`, `open "a  b\c": no`},
		{"several lines", "a\n\n\tb\n", "a b"},
		{"control bytes", "a\x1b[2J\xff", `a\x1b[2J\xff`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := oneLine(test.in); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}
