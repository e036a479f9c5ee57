//go:build linux && !386 && !arm

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
)

// companion is another process that has a store open beside a workload's own. It does
// one thing after the other, as it is told by its standard input, and ends when that
// does: so it does not outlive who started it.
type companion struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// companionName is the work of a companion.
const companionName = "companion"

// ready is what a process that another one started says once it has opened the store.
const ready = "ready"

// companion starts a process that opens the store in dir, and waits until it has.
func (b *bench) companion(dir string, as access) (*companion, error) {
	t := b.task
	b.companions++
	t.Workload, t.Dir, t.Access, t.Number = companionName, dir, as, b.companions
	return startProcess(t)
}

// startProcess starts one that does the task, beside this one.
func startProcess(t task) (*companion, error) {
	arg, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	c := &companion{cmd: exec.Command("/proc/self/exe", childFlag, string(arg))}
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	if line, err := c.out.ReadString('\n'); err != nil || line != ready+"\n" {
		return nil, fmt.Errorf("the other process said %q: %w", line, errors.Join(err, c.end()))
	}
	return c, nil
}

// tell has the companion begin with what orders names.
func (c *companion) tell(order string) error {
	if _, err := fmt.Fprintln(c.in, order); err != nil {
		return fmt.Errorf("the other process takes no orders: %w", errors.Join(err, c.end()))
	}
	return nil
}

// answer waits until the companion has done what it was told, and returns what it
// found.
func (c *companion) answer() (found map[string]float64, err error) {
	line, err := c.out.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("no answer of the other process: %w", errors.Join(err, c.end()))
	}
	return found, json.Unmarshal(line, &found)
}

// do is tell and answer.
func (c *companion) do(order string) (found map[string]float64, err error) {
	if err := c.tell(order); err != nil {
		return nil, err
	}
	return c.answer()
}

// end waits for the companion to close the store, and to end. What follows the first
// call is without effect.
func (c *companion) end() error {
	if c.cmd.ProcessState != nil {
		return nil
	}
	c.in.Close()
	return c.cmd.Wait()
}

// get is a turn of the companion's Gets.
func (c *companion) get() (float64, error) {
	found, err := c.do("get")
	return found["ns_op"], err
}

// worker is the companion's own side.
type worker struct {
	*bench
	get func() error    // a Get of the next key
	put func() error    // a Put of a key of its own
	ctx context.Context // ends with the orders
	wg  sync.WaitGroup  // what goes on between the orders
	err error           // of that; to be read behind wg

	began time.Time    // of the puts that go on
	done  atomic.Int64 // of them
	ear   ear
}

// orders are what a companion may be told to do. What it finds goes to out.
var orders = map[string]func(w *worker) error{
	"warm":       func(w *worker) error { return w.warm() },
	"get":        (*worker).gets,
	"fill":       func(w *worker) error { return w.fillWith(w.s, false) },
	"put on":     (*worker).putOn,
	"puts":       (*worker).puts,
	"put freely": (*worker).putFreely,
	"compact":    (*worker).compact,
	"watch":      (*worker).watch,
	"idle":       (*worker).idle,
	"listen":     (*worker).listen,
	"heard":      (*worker).heard,
}

// work opens the store and does what it is told, until there are no more orders.
func work(b *bench, in io.Reader, out io.Writer) (err error) {
	if b.s, err = b.openAs(b.Dir, b.Access); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &worker{bench: b, ctx: ctx, get: b.getter(newPicker(8, uint64(b.Keys)).next)}
	fresh := uint64(b.Number) << 32
	w.put = b.putter(b.s, func() uint64 { fresh++; return fresh })
	fmt.Fprintln(out, ready)
	for lines := bufio.NewScanner(in); err == nil && lines.Scan(); {
		order, ok := orders[lines.Text()]
		if !ok {
			err = fmt.Errorf("no order %q", lines.Text())
			break
		}
		clear(b.out)
		if err = order(w); err == nil {
			err = json.NewEncoder(out).Encode(b.out)
		}
	}
	stop()
	w.wg.Wait()
	return errors.Join(err, w.err, b.s.Close())
}

// gets measures Gets for one turn.
func (w *worker) gets() error {
	ops, took, err := rate(w.Time/turns, 1<<62, w.get)
	w.out["ns_op"] = float64(took) / float64(ops)
	return err
}

// pace is how many puts a second "put on" makes.
const pace = 10_000

// putOn puts keys that are there, evenly, until the orders end.
func (w *worker) putOn() error {
	put := w.putter(w.s, newPicker(7, uint64(w.Keys)).next)
	w.began = time.Now()
	w.wg.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for w.err == nil {
			select {
			case <-w.ctx.Done():
				return
			case <-tick.C:
			}
			for due := int64(time.Since(w.began).Seconds() * pace); w.done.Load() < due && w.err == nil; w.done.Add(1) {
				w.err = put()
			}
		}
	})
	return nil
}

// puts tells how many puts a second have been made since "put on".
func (w *worker) puts() error {
	w.out["per_s"] = float64(w.done.Load()) / time.Since(w.began).Seconds()
	return nil
}

// putFreely puts keys of its own as fast as it can.
func (w *worker) putFreely() error {
	var h histogram
	start := time.Now()
	err := latencies(&h, w.Time, w.put)
	w.out["puts"], w.out["took"] = float64(h.n), float64(time.Since(start))
	h.into(w.out, "")
	return err
}

// compact compacts, and comes to rest.
func (w *worker) compact() error {
	err := w.s.(compacter).Compact()
	settle(time.Minute)
	return err
}
