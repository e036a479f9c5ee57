//go:build unix

// Jobs is a queue of shell commands in one file, which any number of processes fill and work off
// at once. A worker that dies in the middle of a job does not take the job with it.
//
// Two maps in one store do that: the jobs, and the leases of those that are being done. A worker
// claims a job by a lease with a TTL, in a transaction that checks that there is none, and renews
// it while it works. If it dies, the lease expires, and the job is there for the next. Done jobs
// are deleted together with their lease. Each job is thus done at least once, and more than once
// if its worker died, or was stopped for longer than a lease, after the work and before the end:
// a job must be one that may be repeated.
//
// Workers sleep until Map.Watch tells of a new job, by whatever process. That a lease expires is
// no event, so they also wake when the first of the leases that they met ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/kv"
)

const usage = `Usage: jobs [-f STORE] add COMMAND...
       jobs [-f STORE] list
       jobs [-f STORE] [-n N] [-lease D] [-tries N] work

Add puts one job into the queue, a command of the shell, and prints its number. List
prints the jobs that are not done. Work does jobs until it is interrupted. Any number
of these may run at once. (Linux only, as kv.Options.Shared.)

Exit codes: 0 done; 1 an error; 2 wrong usage.

`

func main() {
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	path := flag.String("f", "jobs.mmkv", "the `store` that is the queue")
	n := flag.Int("n", 1, "how many jobs work does at a time")
	lease := flag.Duration("lease", 30*time.Second, "how long after the death of its worker a job waits for another, and after a failure for its next try")
	tries := flag.Int("tries", 5, "how often a job is tried before it is given up")
	flag.Parse()
	var do func(ctx context.Context, q *queue) error
	switch verb := flag.Arg(0); {
	case verb == "add" && flag.NArg() > 1:
		command := strings.Join(flag.Args()[1:], " ")
		do = func(_ context.Context, q *queue) error { return q.add(command) }
	case verb == "list" && flag.NArg() == 1:
		do = func(_ context.Context, q *queue) error { return q.list() }
	case verb == "work" && flag.NArg() == 1 && *n > 0 && *lease >= time.Second && *tries > 0:
		do = func(ctx context.Context, q *queue) error { return q.workers(ctx, *n) }
	default:
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	q, err := openQueue(*path)
	if err == nil {
		q.lease, q.tries = *lease, *tries
		err = errors.Join(do(ctx, q), q.store.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "jobs:", err)
		os.Exit(1)
	}
}

type job struct {
	Command string
	Tries   int // that have begun
}

type lease struct {
	Worker string
	Until  time.Time
}

type queue struct {
	store  *kv.Store
	jobs   *kv.Map[uint64, job]   // number -> what is to be done
	leases *kv.Map[uint64, lease] // number -> who does it; each expires
	last   *kv.Map[string, uint64]

	lease time.Duration
	tries int
}

// lastNumber is the only key of queue.last.
const lastNumber = "number"

func openQueue(path string) (q *queue, err error) {
	store, err := kv.Open(path, &kv.Options{Shared: true})
	if err != nil {
		return nil, err
	}
	q = &queue{store: store}
	jobs, err1 := kv.NewMap(store, "jobs", codec.Uint64{}, codec.JSON[job]{})
	leases, err2 := kv.NewMap(store, "leases", codec.Uint64{}, codec.JSON[lease]{})
	last, err3 := kv.NewMap(store, "last", codec.String{}, codec.Uint64{})
	if err := errors.Join(err1, err2, err3); err != nil {
		store.Close()
		return nil, err
	}
	q.jobs, q.leases, q.last = jobs, leases, last
	return q, nil
}

// add puts a job into the queue. It is durable when its number has been printed: a power cut
// loses no job that somebody was told of.
func (q *queue) add(command string) error {
	number, err := kv.Add(q.last, lastNumber, 1) // of one that is lost in between, nobody knows
	if err != nil {
		return err
	}
	if err := q.jobs.Put(number, job{Command: command}); err != nil {
		return err
	}
	if err := q.store.Sync(); err != nil {
		return err
	}
	_, err = fmt.Println(number)
	return err
}

func (q *queue) list() error {
	it := q.jobs.Iter()
	for number, j := range it.All() {
		state := "waits"
		switch l, err := q.leases.Get(number); {
		case err == nil:
			state = "with " + l.Worker
		case err != kv.ErrNotFound:
			return err
		}
		fmt.Printf("%d\t%s\t%d tries\t%q\n", number, state, j.Tries, j.Command)
	}
	return it.Err()
}

// workers does jobs, n at a time, until ctx ends.
func (q *queue) workers(ctx context.Context, n int) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			host, _ := os.Hostname()
			if err := q.work(ctx, fmt.Sprintf("%s/%d/%d", host, os.Getpid(), i)); err != nil {
				stop(err)
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil // interrupted, as it was asked to be
}

// work does one job after another, until ctx ends.
func (q *queue) work(ctx context.Context, me string) error {
	ctx, stop := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop(nil)
	news := make(chan struct{}, 1)
	watching.Go(func() {
		for e := range q.jobs.Watch(ctx) {
			if e.Err != nil {
				stop(e.Err)
			}
			select {
			case news <- struct{}{}:
			default: // it will look anyway
			}
		}
	})
	for ctx.Err() == nil {
		number, j, next, err := q.claim(me)
		switch {
		case err != nil:
			return err
		case number != 0:
			if err := q.do(ctx, me, number, j); err != nil {
				return err
			}
		default:
			select {
			case <-ctx.Done():
			case <-news:
			case <-time.After(time.Until(next)):
			}
		}
	}
	if err := context.Cause(ctx); err != context.Canceled {
		return err
	}
	return nil
}

// claim takes the oldest job that nobody has, in turn with all other workers. If there is none,
// number is 0, and next is when to look again.
func (q *queue) claim(me string) (number uint64, j job, next time.Time, err error) {
	next = time.Now().Add(time.Hour)
	it := q.jobs.Iter()
	for n := range it.All() {
		err := q.store.Update(func(tx *kv.Tx) (err error) {
			if j, err = q.jobs.In(tx).Get(n); err != nil {
				return err // done since the loop began: ErrNotFound
			}
			if l, err := q.leases.In(tx).Get(n); err == nil {
				if l.Until.Before(next) {
					next = l.Until
				}
				return errTaken
			} else if err != kv.ErrNotFound {
				return err
			}
			j.Tries++
			return errors.Join(q.jobs.In(tx).Put(n, j), q.extend(tx, n, me))
		})
		switch {
		case err == nil:
			return n, j, next, nil
		case err != errTaken && !errors.Is(err, kv.ErrNotFound):
			return 0, j, next, err
		}
	}
	return 0, j, next, it.Err()
}

var errTaken = errors.New("another worker has the job")

func (q *queue) extend(tx *kv.Tx, number uint64, me string) error {
	return q.leases.In(tx).PutTTL(number, lease{me, time.Now().Add(q.lease)}, q.lease)
}

// do does a job that is claimed. What it returns is an error of the queue, not of the job.
func (q *queue) do(ctx context.Context, me string, number uint64, j job) error {
	ctx, stop := context.WithCancelCause(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(q.lease / 3):
			}
			if err := q.mine(me, number, func(tx *kv.Tx) error { return q.extend(tx, number, me) }); err != nil {
				stop(err) // ends the command too: another worker does the job now
			}
		}
	})
	cmd := exec.CommandContext(ctx, "sh", "-c", j.Command)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// A group of its own: Ctrl-C is for the worker alone, which then ends all that the command began.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	failure := cmd.Run()
	interrupted := ctx.Err() != nil
	stop(nil)
	renewing.Wait()

	err := q.mine(me, number, func(tx *kv.Tx) error {
		switch {
		case failure == nil || !interrupted && j.Tries >= q.tries:
			return errors.Join(q.jobs.In(tx).Delete(number), q.leases.In(tx).Delete(number))
		case interrupted:
			return q.leases.In(tx).Delete(number) // the next worker need not wait
		}
		return nil // it keeps the lease, and so waits for its next try
	})
	if failure != nil && !interrupted {
		fmt.Fprintf(os.Stderr, "jobs: job %d, try %d of %d: %v\n", number, j.Tries, q.tries, failure)
	}
	if err == errTaken {
		fmt.Fprintf(os.Stderr, "jobs: job %d took too long, and is another worker's now\n", number)
		return nil
	}
	return err
}

// mine runs a transaction, if this worker has the job still.
func (q *queue) mine(me string, number uint64, fn func(tx *kv.Tx) error) error {
	return q.store.Update(func(tx *kv.Tx) error {
		if l, err := q.leases.In(tx).Get(number); err == kv.ErrNotFound || err == nil && l.Worker != me {
			return errTaken
		} else if err != nil {
			return err
		}
		return fn(tx)
	})
}
