package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK       = 0
	exitError    = 1
	exitUsage    = 2
	exitNotFound = 3
	exitCorrupt  = 4
	exitLocked   = 5
)

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit code of kvtool says",
		Long: `Exit codes of kvtool:

  0  done
  1  an error: the message on stderr says which; also: interrupted, not a store
  2  wrong usage: nothing was done
  3  not found: get and delete, when a key is not there; history, when it never was,
     as far as the log goes back; --map, when there is no map of that name
  4  corrupt: the store or the backup is damaged, or --salvage or repair passed over
     damaged bytes
  5  locked: another process has the store open for writing; restore: or for reading`,
	}
}

// runError is an error of running a verb. All others are errors of usage.
type runError struct{ err error }

func (e *runError) Error() string { return e.err.Error() }
func (e *runError) Unwrap() error { return e.err }

// usageError is what a verb returns for arguments that it cannot make sense of.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// exitCode tells how the process ends after err.
func exitCode(err error) int {
	var usage *usageError
	var run *runError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage), !errors.As(err, &run):
		return exitUsage
	case errors.Is(err, kv.ErrCorrupt):
		return exitCorrupt
	case errors.Is(err, kv.ErrLocked):
		return exitLocked
	case errors.Is(err, kv.ErrNotFound):
		return exitNotFound
	}
	return exitError
}

// report prints err, of the verb cmd, and returns the exit code.
func (t *tool) report(cmd *cobra.Command, err error) int {
	code := exitCode(err)
	switch {
	case code == exitOK:
	case code == exitUsage:
		fmt.Fprintf(t.err, "kvtool: %s\nsee %s --help\n", oneLine(err.Error()), cmd.CommandPath())
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(t.err, "kvtool: interrupted")
	default:
		text := oneLine(err.Error())
		if !strings.HasPrefix(text, "mmapkv: ") {
			text = "kvtool: " + text
		}
		fmt.Fprintln(t.err, text)
	}
	return code
}

var lineBreaks = regexp.MustCompile(`\s*\n\s*`)

// oneLine makes a message that quotes paths and bytes of anybody's making safe
// for a terminal.
func oneLine(text string) string {
	text = strings.TrimSpace(lineBreaks.ReplaceAllString(text, " "))
	var b strings.Builder
	escape(&b, []byte(text), escapeControl)
	return b.String()
}
