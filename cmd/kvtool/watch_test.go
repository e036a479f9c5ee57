package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

// watcher is kvtool watch, running.
type watcher struct {
	cmd    *exec.Cmd
	out    *bufio.Scanner
	stderr bytes.Buffer
}

func startWatch(t *testing.T, args ...string) *watcher {
	t.Helper()
	w := &watcher{cmd: exec.Command("kvtool", append([]string{"watch"}, args...)...)}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.out, w.cmd.Stderr = bufio.NewScanner(out), &w.stderr
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.cmd.Process.Kill(); w.cmd.Wait() })
	return w
}

// hear checks the next lines.
func (w *watcher) hear(t *testing.T, lines ...string) {
	t.Helper()
	for _, want := range lines {
		if !w.out.Scan() || w.out.Text() != want {
			t.Fatalf("the watch says %q, want %q; stderr %q", w.out.Text(), want, w.stderr.String())
		}
	}
}

// Goal: a watch prints each change of another process when it happens, goes on across
// compactions, and ends in order when it is interrupted.
// Method: a store in this process, a watch in another; a change is made once the one
// before has been heard.
func TestWatch(t *testing.T) {
	t.Setenv("GORACE", "atexit_sleep_ms=10") // else the race detector makes each process wait for a second when it ends
	path := filepath.Join(t.TempDir(), "s.mmkv")
	s, err := kv.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(s.Put([]byte("a"), []byte("1")))
	all := startWatch(t, path)
	all.hear(t, "1\tput\ta\t1")
	prefix := startWatch(t, "--json", path, "b", "--count", "2")
	do(s.Put([]byte("b"), []byte("2")))
	all.hear(t, "2\tput\tb\t2")
	prefix.hear(t, `{"revision":2,"key":"b","value":"2"}`)
	do(s.Update(func(tx *kv.Tx) error {
		if err := tx.Delete([]byte("a")); err != nil {
			return err
		}
		return tx.Put([]byte("c"), nil)
	}))
	all.hear(t, "3\tdelete\ta", "4\tput\tc\t\"\"")
	if _, err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	do(s.Delete([]byte("b")))
	all.hear(t, "5\tdelete\tb")
	prefix.hear(t, `{"revision":5,"key":"b","deleted":true}`)
	if err := prefix.cmd.Wait(); err != nil {
		t.Errorf("after --count lines: %v, stderr %q", err, prefix.stderr.String())
	}

	// One that begins now: nothing of what is there. Until it has begun it may miss
	// changes, so there are some until it says something.
	news := startWatch(t, "--no-existing", path)
	heard := make(chan string, 1)
	go func() { news.out.Scan(); heard <- news.out.Text() }()
	for told := false; !told; {
		do(s.Put([]byte("news"), []byte("x")))
		select {
		case line := <-heard:
			told = true
			if !strings.HasSuffix(line, "\tput\tnews\tx") {
				t.Errorf("it says %q, want news", line)
			}
		case <-time.After(5 * time.Millisecond):
		}
	}

	do(all.cmd.Process.Signal(os.Interrupt))
	for all.out.Scan() {
	}
	all.cmd.Wait()
	if code := all.cmd.ProcessState.ExitCode(); code != exitError || all.stderr.String() != "kvtool: interrupted\n" {
		t.Errorf("interrupted: exit code %d, stderr %q", code, all.stderr.String())
	}
}
