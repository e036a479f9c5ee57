package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
)

func (t *tool) demoVerb() *cobra.Command {
	d := &demo{t: t}
	var limit int
	cmd := &cobra.Command{
		Use:   "demo [DIR]",
		Short: "Store a directory, kill the writer, resume, compare, compact",
		Long: `Demo shows on the files below a directory what a store promises. Without DIR it
takes the source of Go that is on the machine, some ten thousand files.

  1. A process of its own stores each file: the path is the key, the contents are
     the value. In the middle of it that process is killed with SIGKILL.
  2. Every file that it had acknowledged must be there, byte for byte.
  3. The process is started again and stores the rest; what is there it compares
     and leaves as it is.
  4. Every value is compared with its file.
  5. Every third file is overwritten, and every hundredth deleted: dead bytes,
     which a map of the file shows, before and after a compaction.
  6. Every value is compared again, and every invariant checked.

Whatever differs is an error that names the key. Symbolic links are not followed;
files that cannot be read, or that change meanwhile, are left out and counted. The
store is temporary, unless --keep or --store says otherwise.`,
		Example: `  kvtool demo
  kvtool demo --store /tmp/etc.mmkv /usr/share/doc`,
		Args: cobra.MaximumNArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) (err error) {
			if limit < 0 {
				return usagef("--limit %d: a negative number", limit)
			}
			d.c = t.canvas(false)
			if len(args) == 0 {
				src, err := goSource(cmd.Context())
				if err != nil {
					return err
				}
				args = []string{src}
			}
			if d.tree, err = listTree(cmd.Context(), args[0], limit); err != nil {
				return err
			}
			return d.inStore(func() error { return d.run(cmd.Context()) })
		}),
	}
	cmd.Flags().StringVar(&d.store, "store", "", "make the store at this `path`, and keep it")
	cmd.Flags().BoolVar(&d.keep, "keep", false, "keep the temporary store")
	cmd.Flags().IntVar(&limit, "limit", 0, "take at most so many files (0: all)")
	cmd.Flags().BoolVar(&d.json, "json", false, "print a JSON object")
	return cmd
}

// demo is one run of the demo.
type demo struct {
	t     *tool
	c     canvas
	store string
	keep  bool
	json  bool

	tree  *tree
	state []fileState // of the files of tree
	steps []demoStep
}

// fileState is what the store should hold for a file.
type fileState int

const (
	stateUnknown     fileState = iota // nothing was acknowledged
	stateStored                       // the contents of the file
	stateSkipped                      // the writer could not read it: the store may hold anything
	stateOverwritten                  // overwriteMark and the contents
	stateDeleted
)

const overwriteMark = "overwritten by kvtool demo\n"

type demoStep struct {
	Name    string  `json:"step"`
	What    string  `json:"what"`
	Seconds float64 `json:"seconds"`
}

// errDiffers: the store does not hold what it should. The demo keeps it then.
var errDiffers = errors.New("the store and the file differ")

// inStore runs fn with a path for the store, and cleans up after it.
func (d *demo) inStore(fn func() error) error {
	if d.store != "" {
		if _, err := os.Lstat(d.store); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(fmt.Errorf("%s is there already; the demo makes a new store", d.store), err)
		}
		return fn()
	}
	dir, err := os.MkdirTemp("", "kvtool-demo-")
	if err != nil {
		return err
	}
	d.store = filepath.Join(dir, "demo.mmkv")
	err = fn()
	if d.keep || errors.Is(err, errDiffers) {
		d.t.notef("the store is kept: %s", d.store)
		return err
	}
	return errors.Join(err, os.RemoveAll(dir))
}

func (d *demo) run(ctx context.Context) error {
	d.state = make([]fileState, len(d.tree.files))
	d.line("store", d.store)
	d.line("files", fmt.Sprintf("%s files, %s below %s", count(len(d.tree.files)), shortBytes(d.tree.bytes), d.tree.dir))
	for _, step := range []struct {
		name string
		run  func(context.Context) (string, error)
	}{
		{"write", d.writeAndKill},
		{"reopen", d.reopen},
		{"resume", d.resume},
		{"compare", d.compare},
		{"change", d.change},
		{"inspect", d.inspect},
		{"compact", d.compact},
		{"inspect", d.inspect},
		{"compare", d.compare},
		{"check", d.check},
	} {
		start := time.Now()
		what, err := step.run(ctx)
		if err != nil {
			return err
		}
		d.done(step.name, what, time.Since(start))
	}
	if d.json {
		return d.t.printJSON(struct {
			Store printable  `json:"store"`
			Dir   printable  `json:"dir"`
			Files int        `json:"files"`
			Bytes int64      `json:"bytes"`
			Steps []demoStep `json:"steps"`
		}{printable(d.store), printable(d.tree.dir), len(d.tree.files), d.tree.bytes, d.steps})
	}
	d.line("done", "nothing differs")
	return nil
}

// line prints a line of what the demo says, unless it is to print JSON.
func (d *demo) line(name, what string) {
	if !d.json {
		fmt.Fprintf(d.t.out, "%-8s %s\n", name, oneLine(what))
	}
}

// done notes the end of a step, and says so if there is something to say.
func (d *demo) done(name, what string, took time.Duration) {
	if what == "" {
		return
	}
	d.steps = append(d.steps, demoStep{name, what, took.Seconds()})
	d.line(name, fmt.Sprintf("%s (%s)", what, brief(took)))
}

func count(n int) string { return humanize.Comma(int64(n)) }
