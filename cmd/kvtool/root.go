package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// tool is one run of kvtool: where its bytes go, and what holds for every verb.
type tool struct {
	in, out, err *os.File
	quiet        bool // no progress bars
	color        coloring
}

func (t *tool) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "kvtool",
		Short: "Look into, check and maintain mmapkv stores",
		Long: `Kvtool works on the stores of mmapkv, embedded key-value stores of one file each.

The verbs that read (get, scan, watch, history, info, stats, inspect, check, backup,
export, repair) take no lock: they work while others write the store, and none of
them changes it.
The verbs that write (set, delete, import, compact) work beside processes that share
the store. Where one has it for itself, --wait gives it time to let go. And restore
replaces only a store that nobody has open.

Keys and values on the command line are text. --key-format and --value-format
name another form, hex or base64, for what is read and what is printed alike; --map
takes them as those of a typed map, by its codecs.
Put -- before keys that begin with a dash.

Data goes to stdout, all else to stderr. The exit codes: kvtool help exit-codes.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().BoolVarP(&t.quiet, "quiet", "q", false, "show no progress bars")
	t.color = colorAuto
	root.PersistentFlags().Var(&t.color, "color", "colour what is printed: auto, always or never; auto heeds NO_COLOR")
	completeFlag(root, "color", colorAuto, colorAlways, colorNever)
	root.AddCommand(
		t.getVerb(), t.setVerb(), t.deleteVerb(), t.scanVerb(), t.watchVerb(), t.historyVerb(),
		t.infoVerb(), t.statsVerb(), t.inspectVerb(), t.checkVerb(), t.compactVerb(),
		t.backupVerb(), t.restoreVerb(), t.exportVerb(), t.importVerb(), t.repairVerb(),
		t.benchVerb(), t.demoVerb(), t.demoWriterVerb(), t.manVerb(), t.versionVerb(), exitCodesTopic(),
	)
	root.SetHelpCommand(helpVerb(root))
	root.InitDefaultCompletionCmd()
	for _, verb := range root.Commands() {
		if verb.Name() == "completion" {
			verb.Args, verb.RunE = cobra.ArbitraryArgs, func(cmd *cobra.Command, args []string) error {
				return fmt.Errorf("name a shell: bash, zsh, fish or powershell; found %q", args)
			}
		}
	}
	return root
}

// helpVerb is cobra's, but that a topic which is not there is wrong usage.
func helpVerb(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [verb or topic]",
		Short: "Help about any command",
		RunE: func(_ *cobra.Command, args []string) error {
			verb, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return fmt.Errorf("no help on %q", args)
			}
			return verb.Help()
		},
	}
}

// runE makes fn the body of a verb, and marks what it returns as an error of
// running, which is what tells it from an error of usage.
func runE(fn func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := fn(cmd, args); err != nil {
			return &runError{err}
		}
		return nil
	}
}

// print gives fn a buffered stdout.
func (t *tool) print(fn func(w *bufio.Writer) error) error {
	w := bufio.NewWriterSize(t.out, 64<<10)
	err := fn(w)
	if flushErr := w.Flush(); err == nil {
		err = flushErr
	}
	return err
}

// printJSON prints v as one indented object.
func (t *tool) printJSON(v any) error {
	return t.print(func(w *bufio.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	})
}

// notef tells the operator something on stderr.
func (t *tool) notef(format string, args ...any) {
	fmt.Fprintf(t.err, "kvtool: %s\n", oneLine(fmt.Sprintf(format, args...)))
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
