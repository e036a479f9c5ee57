package processes

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a child.
type process struct {
	plan plan
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  chan string // the lines that it says, until it has ended
	err  bytes.Buffer
}

// patience is how long a child may take for what no working machine needs it to.
const patience = time.Minute

// start starts a child in a role.
func start(t *testing.T, role string, p plan) *process {
	t.Helper()
	text, err := json.Marshal(p)
	must(t, err)
	c := &process{plan: p, cmd: exec.Command(os.Args[0], string(text)), out: make(chan string, 100)}
	// The race detector shall not make it sleep a second before it ends.
	c.cmd.Env = append(os.Environ(), roleEnv+"="+role, "GORACE=atexit_sleep_ms=0")
	c.cmd.Stderr = &c.err
	c.in, err = c.cmd.StdinPipe()
	must(t, err)
	out, err := c.cmd.StdoutPipe()
	must(t, err)
	must(t, c.cmd.Start())
	go func() {
		defer close(c.out)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.out <- lines.Text()
		}
	}()
	t.Cleanup(c.kill)
	return c
}

func (c *process) pid() int { return c.cmd.Process.Pid }

// kill kills the child, wherever it is, and returns when it is gone.
func (c *process) kill() {
	c.cmd.Process.Kill()
	for range c.out {
	}
	c.cmd.Wait()
}

func (c *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	must(t, c.cmd.Process.Signal(s))
}

// stop stops the child, and returns when it stands still.
func (c *process) stop(t *testing.T) {
	t.Helper()
	c.signal(t, syscall.SIGSTOP)
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.pid()))
		must(t, err)
		// The state stands behind the name, which is in brackets.
		if strings.HasPrefix(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " T") {
			return
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// say sends a word to the child.
func (c *process) say(t *testing.T, word string) {
	t.Helper()
	if _, err := io.WriteString(c.in, word+"\n"); err != nil {
		c.kill()
		t.Fatalf("child %d, %s: %v: %.4000s", c.plan.Number, word, err, c.err.String())
	}
}

// hear returns what the child says next, which begins with word.
func (c *process) hear(t *testing.T, word string) string {
	t.Helper()
	select {
	case line, ok := <-c.out:
		if !ok {
			c.cmd.Wait()
			t.Fatalf("child %d has ended, and had to say %q: %.4000s", c.plan.Number, word, c.err.String())
		}
		rest, ok := strings.CutPrefix(line, word)
		if !ok {
			t.Fatalf("child %d says %q, want %q", c.plan.Number, line, word)
		}
		return rest
	case <-time.After(patience):
		c.signal(t, syscall.SIGQUIT)
		for range c.out {
		}
		c.cmd.Wait()
		t.Fatalf("child %d did not say %q in %v: %.8000s", c.plan.Number, word, patience, c.err.String())
	}
	panic("unreachable")
}

// end waits until the child has ended by itself, and well.
func (c *process) end(t *testing.T) {
	t.Helper()
	c.in.Close()
	for line := range c.out {
		t.Errorf("child %d says %q", c.plan.Number, line)
	}
	if err := c.cmd.Wait(); err != nil || c.err.Len() > 0 {
		t.Fatalf("child %d: %v: %.4000s", c.plan.Number, err, c.err.String())
	}
}

// lab is some processes that work on one store.
type lab struct {
	t       *testing.T
	path    string
	diaries string // a folder, which is kept if the test fails
	living  []*process
	started int
	pids    map[int]bool // of all that were started
	signals sync.WaitGroup
}

func newLab(t *testing.T) *lab {
	t.Helper()
	diaries, err := os.MkdirTemp("", "mmapkv-diaries")
	must(t, err)
	l := &lab{t: t, path: storePath(t), diaries: diaries, pids: map[int]bool{os.Getpid(): true}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the diaries are kept in %s", diaries)
		} else {
			os.RemoveAll(diaries)
		}
	})
	return l
}

// add starts a child. It need not have opened the store.
func (l *lab) add(p plan) *process {
	l.t.Helper()
	l.started++
	p.Path, p.Diaries, p.Number = l.path, l.diaries, l.started
	c := start(l.t, "worker", p)
	l.pids[c.pid()] = true
	l.living = append(l.living, c)
	return c
}

// pause stops a child for a while.
func (l *lab) pause(c *process, d time.Duration) {
	l.t.Helper()
	c.signal(l.t, syscall.SIGSTOP)
	l.signals.Go(func() {
		time.Sleep(d)
		c.cmd.Process.Signal(syscall.SIGCONT) // it may have been killed meanwhile
	})
}

// finish makes all living children rest, and returns what they see then, all of them
// the same.
func (l *lab) finish() state {
	l.t.Helper()
	l.signals.Wait()
	for _, c := range l.living {
		c.say(l.t, wordRest)
	}
	for _, c := range l.living {
		c.hear(l.t, "resting")
	}
	for _, c := range l.living {
		c.say(l.t, wordTell)
	}
	var seen state
	first := ""
	for _, c := range l.living {
		for range c.plan.Hands {
			text := c.hear(l.t, "state ")
			if first == "" {
				first = text
				must(l.t, json.Unmarshal([]byte(text), &seen))
			}
			if text != first {
				l.t.Errorf("child %d sees %s, another %s", c.plan.Number, text, first)
			}
		}
		c.end(l.t)
	}
	l.living = nil
	return seen
}

// operations returns what all clients told of.
func (l *lab) operations() (all []operation) {
	l.t.Helper()
	files, err := filepath.Glob(filepath.Join(l.diaries, "client*"))
	must(l.t, err)
	for _, name := range files {
		some, err := readDiary(name)
		must(l.t, err)
		all = append(all, some...)
	}
	return all
}

// names tells whether text has the number pid in it.
func names(text string, pid int) bool {
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r < '0' || r > '9' }) {
		if word == strconv.Itoa(pid) {
			return true
		}
	}
	return false
}
