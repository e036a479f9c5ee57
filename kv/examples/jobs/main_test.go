//go:build unix

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/kv"
)

// TestMain is the program itself where a test has started it as such.
func TestMain(m *testing.M) {
	if os.Getenv("RUN_JOBS") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func jobs(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "RUN_JOBS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// storePath names a store, where several processes may have one.
func storePath(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "jobs.mmkv")
	s, err := kv.Open(path, &kv.Options{Shared: true})
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("this system has no kv.Options.Shared")
	}
	must(t, err)
	must(t, s.Close())
	return path
}

func add(t *testing.T, path, command string) {
	t.Helper()
	out, err := jobs("-f", path, "add", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain: ", what)
		}
	}
}

func isEmpty(t *testing.T, path string) bool {
	t.Helper()
	s, err := kv.Open(path, &kv.Options{ReadOnly: true})
	must(t, err)
	defer s.Close()
	m, err := kv.NewMap(s, "jobs", codec.Uint64{}, codec.JSON[job]{})
	must(t, err)
	n, err := m.Len()
	must(t, err)
	return n == 0
}

// end interrupts a worker, which is to end well.
func end(t *testing.T, worker *exec.Cmd) {
	t.Helper()
	must(t, worker.Process.Signal(syscall.SIGTERM))
	if err := worker.Wait(); err != nil {
		t.Errorf("a worker that was interrupted: %v", err)
	}
}

func lines(path string) int {
	b, _ := os.ReadFile(path)
	return bytes.Count(b, []byte("\n"))
}

// Goal: each job is done, and by one worker only. Method: two processes of two workers, and jobs
// that come before them and while they wait.
func TestWorkers(t *testing.T) {
	path, done := storePath(t), filepath.Join(t.TempDir(), "done")
	const n = 5
	for i := range n {
		add(t, path, fmt.Sprintf("echo %d >> %s", i, done))
	}
	var workers []*exec.Cmd
	for range 2 {
		w := jobs("-f", path, "-n", "2", "work")
		w.Stderr = os.Stderr
		must(t, w.Start())
		workers = append(workers, w)
	}
	waitFor(t, "the first jobs", func() bool { return lines(done) == n })
	for i := range n {
		add(t, path, fmt.Sprintf("echo %d >> %s", n+i, done))
	}
	waitFor(t, "an empty queue", func() bool { return isEmpty(t, path) })
	for _, w := range workers {
		end(t, w)
	}
	b, err := os.ReadFile(done)
	must(t, err)
	seen := map[string]int{}
	for _, line := range strings.Fields(string(b)) {
		seen[line]++
	}
	if len(seen) != 2*n || lines(done) != 2*n {
		t.Errorf("done: %v", seen)
	}
}

// Goal: a job whose worker dies is done by another, and one that fails is given up after its
// tries. Method: SIGKILL to a worker and its command in the middle of it.
func TestWorkerDies(t *testing.T) {
	path, dir := storePath(t), t.TempDir()
	begun, ready, failed, pid := filepath.Join(dir, "begun"), filepath.Join(dir, "ready"), filepath.Join(dir, "failed"), filepath.Join(dir, "pid")
	add(t, path, fmt.Sprintf("echo x >> %s; test -f %s || { echo $$ > %s; exec sleep 600; }", begun, ready, pid))
	worker := jobs("-f", path, "-lease", "1s", "work")
	must(t, worker.Start())
	waitFor(t, "the job to begin", func() bool { return lines(begun) == 1 })
	time.Sleep(1500 * time.Millisecond) // longer than a lease: it is renewed
	if out, err := jobs("-f", path, "list").Output(); err != nil || !bytes.Contains(out, []byte("with ")) {
		t.Errorf("the lease was not renewed: %s, %v", out, err)
	}
	must(t, worker.Process.Kill())
	worker.Wait()
	command, err := os.ReadFile(pid)
	must(t, err)
	leader, err := strconv.Atoi(strings.TrimSpace(string(command)))
	must(t, err)
	must(t, syscall.Kill(-leader, syscall.SIGKILL))

	must(t, os.WriteFile(ready, nil, 0o600))
	add(t, path, fmt.Sprintf("echo x >> %s; false", failed))
	worker = jobs("-f", path, "-lease", "1s", "-tries", "2", "work")
	must(t, worker.Start())
	waitFor(t, "an empty queue", func() bool { return isEmpty(t, path) })
	end(t, worker)
	if lines(begun) != 2 || lines(failed) != 2 {
		t.Errorf("the job of the dead worker was begun %d times, the one that fails %d times; want 2 and 2", lines(begun), lines(failed))
	}
}

// Goal: an interrupted worker loses no job, and leaves no command behind. Method: jobs that have
// one try, each a shell with a child; the signal goes to the whole group, as from a terminal.
func TestInterrupted(t *testing.T) {
	path, begun := storePath(t), filepath.Join(t.TempDir(), "begun")
	const n = 4
	for range n {
		add(t, path, fmt.Sprintf("sleep 600 & echo $! >> %s; wait", begun))
	}
	worker := jobs("-f", path, "-n", fmt.Sprint(n), "-tries", "1", "work")
	must(t, worker.Start())
	waitFor(t, "all jobs to begin", func() bool { return lines(begun) == n })
	must(t, syscall.Kill(-worker.Process.Pid, syscall.SIGINT))
	if err := worker.Wait(); err != nil {
		t.Errorf("the worker that was interrupted: %v", err)
	}
	out, err := jobs("-f", path, "list").Output()
	must(t, err)
	if left := bytes.Count(out, []byte("\n")); left != n {
		t.Errorf("%d jobs of %d are left: %s", left, n, out)
	}
	b, err := os.ReadFile(begun)
	must(t, err)
	for _, pid := range strings.Fields(string(b)) {
		child, err := strconv.Atoi(pid)
		must(t, err)
		waitFor(t, "the end of what a command began", func() bool { return hasEnded(child) })
	}
}

// hasEnded tells whether the process pid is gone, or waits for its parent to hear that it is.
func hasEnded(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(b, []byte(") Z "))
}

// Goal: wrong usage and errors are told apart, and told. Method: a table.
func TestErrors(t *testing.T) {
	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{nil, 2, "Usage"},
		{[]string{"-h"}, 0, "Usage"},
		{[]string{"add"}, 2, "Usage"},
		{[]string{"-lease", "1ms", "work"}, 2, "Usage"},
		{[]string{"-f", "/nowhere/at all", "list"}, 1, "no such file"},
	} {
		out, err := jobs(tc.args...).CombinedOutput()
		var exit *exec.ExitError
		code := 0
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		}
		if code != tc.code || !bytes.Contains(out, []byte(tc.says)) {
			t.Errorf("%q: exit code %d, %s", tc.args, code, out)
		}
	}
}
