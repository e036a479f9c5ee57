package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

// The demo's writer is a process of its own, so that it can be killed. On stdin it
// gets the files to store, a quoted path a line. For each it prints a line when it
// is done: one of these words and the quoted path. A put is acknowledged with it.
const (
	ackPut  = "put"  // the entry has been written
	ackSame = "same" // the entry was there already, with the same bytes
	ackSkip = "skip" // the file could not be read
)

func (t *tool) demoWriterVerb() *cobra.Command {
	return &cobra.Command{
		Use:    "demo-writer STORE DIR",
		Short:  "The writing process of demo",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			w := writing{create: true, options: kv.Options{CompactAt: -1}}
			return t.write(args[0], w, func(s *kv.Store) error {
				return storeFiles(s, args[1], newInput(cmd.Context(), t.in), t.out)
			})
		}),
	}
}

// storeFiles stores the files named on in, and acknowledges each on out.
func storeFiles(s *kv.Store, dir string, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		path, err := strconv.Unquote(lines.Text())
		if err != nil {
			return fmt.Errorf("not a quoted path: %s", lines.Text())
		}
		ack, err := storeFile(s, path, filepath.Join(dir, filepath.FromSlash(path)))
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s %q\n", ack, path); err != nil {
			return err
		}
	}
	return lines.Err()
}

// storeFile puts the contents of the file name under key, unless they are there.
func storeFile(s *kv.Store, key, name string) (ack string, err error) {
	same := false
	err = s.View([]byte(key), func(value []byte) error {
		same, err = holds(name, value)
		return err
	})
	if same {
		return ackSame, nil
	}
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		if pathErr := (*os.PathError)(nil); errors.As(err, &pathErr) && pathErr.Path == name {
			return ackSkip, nil
		}
		return "", err
	}
	value, err := os.ReadFile(name)
	if err != nil || len(value) > kv.MaxValueSize {
		return ackSkip, nil
	}
	return ackPut, s.Put([]byte(key), value)
}

// conversation is one run of the writer with a tree.
type conversation struct {
	tree      *tree
	store     string
	window    int                      // files that may be under way at once
	killAfter int                      // acknowledgements after which the writer is killed; 0: never
	heard     func(file int, a string) // is called with each acknowledgement
}

// run starts the writer, tells it of the files, and hears it out. If it is to be
// killed, anything but its death by SIGKILL is an error; it cannot end by itself
// before, for its stdin stays open.
func (c *conversation) run(ctx context.Context, stderr io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "demo-writer", "--", c.store, c.tree.dir)
	cmd.Args[0] = os.Args[0]
	cmd.Stderr = stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	credit := make(chan struct{}, c.window)
	go c.tell(ctx, in, credit)
	hearErr := c.hear(out, credit, cmd.Process)
	if hearErr != nil {
		cancel() // and with it the writer
	}
	err = cmd.Wait()
	switch {
	case hearErr != nil:
		return hearErr
	case c.killAfter > 0 && !killed(cmd.ProcessState):
		return fmt.Errorf("the writer was to be killed, but ended by itself: %v", cmd.ProcessState)
	case c.killAfter > 0:
		return nil
	case err != nil:
		return fmt.Errorf("the writer failed: %w", err)
	}
	return nil
}

func killed(state *os.ProcessState) bool {
	status, ok := state.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// tell names the files to the writer, each when there is room in the window.
func (c *conversation) tell(ctx context.Context, in io.WriteCloser, credit chan<- struct{}) {
	defer in.Close()
	for i := range c.tree.files {
		select {
		case credit <- struct{}{}:
		case <-ctx.Done():
			return
		}
		if _, err := fmt.Fprintf(in, "%q\n", c.tree.files[i].path); err != nil {
			return // it is dead, and its Wait says how
		}
	}
	if c.killAfter > 0 {
		<-ctx.Done()
	}
}

// hear reads the acknowledgements until the writer is gone, and kills it when it
// is time. What comes after that was acknowledged as well.
func (c *conversation) hear(out io.Reader, credit <-chan struct{}, writer *os.Process) error {
	r := bufio.NewReader(out)
	for n := 0; ; n++ {
		line, err := r.ReadString('\n')
		if err == io.EOF {
			// A line that has no end says nothing. Whether this end is right, Wait tells.
			return nil
		}
		if err != nil {
			return err
		}
		ack, quoted, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		path, err := strconv.Unquote(quoted)
		if err != nil || n >= len(c.tree.files) || path != c.tree.files[n].path {
			return fmt.Errorf("the writer answered %q to file %d", line, n)
		}
		c.heard(n, ack)
		if c.killAfter == 0 || n < c.killAfter {
			<-credit // and so the writer is at work when it is killed, and gets no more then
		}
		if n+1 == c.killAfter {
			if err := writer.Kill(); err != nil {
				return err
			}
		}
	}
}
