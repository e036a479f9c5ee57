//go:build linux && !386 && !arm

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// plan says what to measure.
type plan struct {
	shapes     []shape
	stores     []string
	only       *regexp.Regexp
	runs       int
	time       time.Duration
	limit      time.Duration // of a measurement
	loadLimit  time.Duration // of what comes before it
	rest       time.Duration
	killWrites int
	killIdle   time.Duration
	dir        string
	self       string // this program
	log        *log
	progress   io.Writer
	results    *results
	small      bool             // run every workload, however few keys there are
	bases      map[place]string // stores of all keys, by store and shape; "" where it failed
}

// job is one process of the plan.
type job struct {
	store string
	w     workload
	run   int
}

// full tells whether all workloads are run at a shape, or the broad ones.
func (s shape) full() bool { return s.value == 100 && s.keys >= 100_000 }

// jobs lists the processes of a shape: run by run, and in a run the stores by turns.
func (p *plan) jobs(s shape) []job {
	var out []job
	for run := 1; run <= p.runs; run++ {
		for _, w := range workloads {
			if !w.broad && !s.full() && !p.small || !p.only.MatchString(w.name) {
				continue
			}
			for _, name := range p.stores {
				a, ok := adapterOf(name)
				if ok && w.lacks(a) == "" || name == limitName && limits[w.name] != nil {
					out = append(out, job{name, w, run})
				}
			}
		}
		for _, name := range []string{"memcpy", "verify"} {
			if slices.Contains(p.stores, limitName) && p.only.MatchString(name) {
				out = append(out, job{limitName, workload{name: name}, run})
			}
		}
	}
	return slices.DeleteFunc(out, func(j job) bool { return p.results.has(j.place(s), j.run) })
}

func (j job) place(s shape) place { return place{j.store, j.w.name, s.keys, s.value} }

// measure does all jobs.
func (p *plan) measure(ctx context.Context) error {
	total := 0
	for _, s := range p.shapes {
		total += len(p.jobs(s))
	}
	begin, n := time.Now(), 0
	for _, s := range p.shapes {
		p.bases = map[place]string{}
		for _, j := range p.jobs(s) {
			n++
			if p.results.has(j.place(s), j.run) {
				continue // the first run did not finish
			}
			start := time.Now()
			r := p.do(ctx, s, j)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			p.results.add(r)
			if p.log != nil {
				if err := p.log.add(r); err != nil {
					return err
				}
			}
			figure := r.Status
			if ns, ok := r.Metrics["ns_op"]; ok {
				figure = nanoseconds.format(ns)
			}
			fmt.Fprintf(p.progress, "%5s  %4d/%d  run %d  %9d x %-6s  %-12s %-10s  %-10s (%.1fs)\n", time.Since(begin).Round(time.Second), n, total,
				j.run, s.keys, bytesOf.format(float64(s.value)), j.w.name, j.store, figure, time.Since(start).Seconds())
		}
		for _, dir := range p.bases {
			os.RemoveAll(dir)
		}
	}
	return nil
}

// do runs one job, and what it needs before.
func (p *plan) do(ctx context.Context, s shape, j job) Result {
	r := Result{Store: j.store, Workload: j.w.name, Keys: s.keys, Value: s.value, Run: j.run}
	dir, err := os.MkdirTemp(p.dir, "work-")
	if err != nil {
		r.Status = "failed: " + err.Error()
		return r
	}
	defer os.RemoveAll(dir)
	t := task{Store: j.store, Workload: j.w.name, Keys: s.keys, Value: s.value, Run: j.run, Time: p.time, Limit: p.limit, Rest: p.rest,
		KillWrites: p.killWrites, KillIdle: p.killIdle, Dir: filepath.Join(dir, "store"), Scratch: filepath.Join(dir, "scratch")}
	if r.Status = status(errors.Join(os.Mkdir(t.Dir, 0o700), os.Mkdir(t.Scratch, 0o700))); r.Status != done {
		return r
	}
	a, ok := adapterOf(j.store)
	needsBase := ok && a.persistent && j.w.start != empty
	if needsBase {
		base, why := p.base(ctx, s, a)
		switch {
		case why != "":
			r.Status = why
			return r
		case j.w.start == loaded || j.w.start == closed:
			t.Dir = base
		default:
			if r.Status = status(copyDir(t.Dir, base)); r.Status != done {
				return r
			}
		}
	}
	r.Metrics, err = p.process(ctx, t)
	r.Status = status(err)
	if err != nil && needsBase {
		p.forget(s, a) // it may have been left in the middle of something
	}
	return r
}

func status(err error) string {
	if err == nil {
		return done
	}
	if e := (unfinished{}); errors.As(err, &e) {
		return e.Error()
	}
	return "failed: " + strings.Join(strings.Fields(err.Error()), " ")
}

// base returns a directory with a's store of all keys, closed, or why there is none.
func (p *plan) base(ctx context.Context, s shape, a adapter) (dir, why string) {
	key := place{Store: a.name, Keys: s.keys, Value: s.value}
	if dir, ok := p.bases[key]; ok {
		if dir == "" {
			return "", "could not be loaded"
		}
		return dir, ""
	}
	dir, err := os.MkdirTemp(p.dir, "base-")
	if err == nil {
		start := time.Now()
		_, err = p.process(ctx, task{Store: a.name, Workload: loadName, Keys: s.keys, Value: s.value, Dir: dir})
		if err == nil {
			err = reread(dir)
		}
		fmt.Fprintf(p.progress, "       loaded %d x %s into %s (%.1fs)\n", s.keys, bytesOf.format(float64(s.value)), a.name, time.Since(start).Seconds())
	}
	if err != nil {
		os.RemoveAll(dir)
		p.bases[key] = ""
		return "", status(err)
	}
	p.bases[key] = dir
	return dir, ""
}

func (p *plan) forget(s shape, a adapter) {
	key := place{Store: a.name, Keys: s.keys, Value: s.value}
	os.RemoveAll(p.bases[key])
	delete(p.bases, key)
}

// unfinished: a process was ended since it took too long.
type unfinished struct {
	what  string
	after time.Duration
}

func (u unfinished) Error() string { return fmt.Sprintf("did not %s in %s", u.what, u.after) }

// process has t done by a process of its own.
func (p *plan) process(ctx context.Context, t task) (map[string]float64, error) {
	arg, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, p.self, childFlag, string(arg))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.WaitDelay = 10 * time.Second
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	expire := func(what string, after time.Duration) *time.Timer {
		return time.AfterFunc(after, func() { cancel(unfinished{what, after}) })
	}
	timer := expire("load", p.loadLimit)
	var metrics map[string]float64
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		timer.Stop()
		if lines.Text() == "started" {
			timer = expire("finish", p.limit)
			continue
		}
		if err := json.Unmarshal(lines.Bytes(), &metrics); err != nil {
			cancel(err)
		}
		timer = expire("close", p.loadLimit)
	}
	err = cmd.Wait()
	timer.Stop()
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	if err != nil {
		text := strings.TrimSpace(stderr.String())
		return nil, fmt.Errorf("%w: %s", err, text[:min(len(text), 400)])
	}
	return metrics, nil
}

// copyDir copies the files of a directory, which has no other directories, and
// rereads them.
func copyDir(to, from string) error {
	names, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range names {
		if e.IsDir() {
			return fmt.Errorf("%s is a directory", e.Name())
		}
		if err := copyFile(filepath.Join(to, e.Name()), filepath.Join(from, e.Name())); err != nil {
			return err
		}
	}
	return reread(to)
}

// reread syncs the files of a directory, so that no measurement waits for that, and has
// them in the page cache as reading brings them in, however they were written: mapped, what
// long write calls left there can be slower (PERFORMANCE.md, section 3).
func reread(dir string) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range names {
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		err = errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
		if err == nil {
			_, err = io.Copy(io.Discard, f)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}
