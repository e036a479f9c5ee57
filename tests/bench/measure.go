//go:build linux && !386 && !arm

package main

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// task is the work of one process.
type task struct {
	Store, Workload string
	Keys            int64
	Value           int
	Run             int
	Dir             string        // of the store
	Scratch         string        // an empty directory beside it
	Time            time.Duration // of one measurement
	Limit           time.Duration // after which the process is ended
	Rest            time.Duration // without a change, after which the disk is at rest
	KillWrites      int           // between the opening and the kill
	KillIdle        time.Duration // between the last of them and the kill
	Access          access        // of a companion
	Number          int           // of a companion, from 1 on
}

// bench is one process's work under way.
type bench struct {
	task
	a   adapter
	cfg config
	s   Store // nil until it is open
	out map[string]float64
	// version of the first value that it writes, above those of the load.
	version    uint64
	companions int // how many were started
	// started is told when the preparations are over, once.
	started func()
}

func (b *bench) open(dir string, durable bool, writers int) (Store, error) {
	c := b.cfg
	c.durable, c.writers = durable, writers
	return b.a.open(dir, c)
}

func (b *bench) openAs(dir string, as access) (Store, error) {
	c := b.cfg
	c.access = as
	return b.a.open(dir, c)
}

// rate calls op for about d, at most `most` times, and looks at the clock about
// every millisecond.
func rate(d time.Duration, most int64, op func() error) (ops int64, took time.Duration, err error) {
	chunk := int64(1)
	start := time.Now()
	for took < d && ops < most {
		n, before := min(chunk, most-ops), took
		for range n {
			if err := op(); err != nil {
				return ops, took, err
			}
		}
		ops += n
		took = time.Since(start)
		if took-before < time.Millisecond/2 {
			chunk *= 2
		}
	}
	return ops, took, nil
}

// writes calls op for b.Time and notes the time of one call, with all that the store
// does meanwhile, and then for half as long with a look at the clock after each, and
// notes how long they took.
func (b *bench) writes(op func() error) error {
	ops, took, err := rate(b.Time, 1<<62, op)
	if err != nil {
		return err
	}
	b.out["ns_op"] = float64(took) / float64(ops)
	return b.withClock(op)
}

// reads is writes for what leaves nothing to be done later: the time of one call is
// the median of twenty short measurements, which the machine's other work disturbs
// less.
func (b *bench) reads(op func() error) error {
	var all []float64
	for range 20 {
		ops, took, err := rate(b.Time/20, 1<<62, op)
		if err != nil {
			return err
		}
		all = append(all, float64(took)/float64(ops))
	}
	b.out["ns_op"] = median(all)
	return b.withClock(op)
}

func (b *bench) withClock(op func() error) error {
	var h histogram
	err := latencies(&h, b.Time/2, op)
	h.into(b.out, "")
	return err
}

func latencies(h *histogram, d time.Duration, op func() error) error {
	start := time.Now()
	for last := start; last.Sub(start) < d; {
		if err := op(); err != nil {
			return err
		}
		now := time.Now()
		h.add(now.Sub(last))
		last = now
	}
	return nil
}

const turns = 20 // of each of the things that take turns

// turn does something for a twentieth of the time of a measurement, and returns the
// time of one call.
type turn func() (float64, error)

func (b *bench) turn(op func() error) turn {
	return func() (float64, error) {
		n, took, err := rate(b.Time/turns, 1<<62, op)
		return float64(took) / float64(n), err
	}
}

// byTurns runs each op by turns, and returns the median time of one call of each. So
// drift of the machine hits them alike.
func (b *bench) byTurns(ops ...func() error) ([]float64, error) {
	var all []turn
	for _, op := range ops {
		all = append(all, b.turn(op))
	}
	return takeTurns(all...)
}

// takeTurns is byTurns for what is timed elsewhere.
func takeTurns(each ...turn) ([]float64, error) {
	all := make([][]float64, len(each))
	for range turns {
		for i, turn := range each {
			ns, err := turn()
			if err != nil {
				return nil, err
			}
			all[i] = append(all[i], ns)
		}
	}
	out := make([]float64, len(each))
	for i := range out {
		out[i] = median(all[i])
	}
	return out, nil
}

// getter returns an op that gets a key that next chooses.
func (b *bench) getter(next func() uint64) func() error {
	key := make([]byte, keySize)
	return func() error {
		putKey(key, next())
		v, err := b.s.Get(key)
		if err != nil {
			return err
		}
		return check(v, key, b.Value)
	}
}

// putter returns an op that puts a key that next chooses.
func (b *bench) putter(s Store, next func() uint64) func() error {
	key, value, version := make([]byte, keySize), newValue(b.Value), b.version
	return func() error {
		putKey(key, next())
		stamp(value, key, version)
		version++
		return s.Put(key, value)
	}
}

// fillWith puts all keys into s, by transactions if grouped.
func (b *bench) fillWith(s Store, grouped bool) error {
	if !grouped {
		i := uint64(0)
		put := b.putter(s, func() uint64 { i++; return i - 1 })
		for range b.Keys {
			if err := put(); err != nil {
				return err
			}
		}
		return nil
	}
	g := newBatch(b.Value, b.version)
	for i := range uint64(b.Keys) {
		if g.add(i) {
			if err := g.flush(s); err != nil {
				return err
			}
		}
	}
	return g.flush(s)
}

// warm reads everything once, so that no measurement waits for a disk, and lets the store
// come to rest.
func (b *bench) warm() error {
	count := int64(0)
	touched := byte(0)
	err := b.s.Each(func(key, value []byte) error {
		count++
		for i := 0; i < len(value); i += 4096 {
			touched ^= value[i]
		}
		return nil
	})
	use(touched)
	if err == nil && count != b.Keys {
		err = fmt.Errorf("%d entries, want %d", count, b.Keys)
	}
	if err != nil {
		return err
	}
	p := newPicker(99, uint64(b.Keys))
	_, _, err = rate(min(b.Time, time.Second), 200_000, b.getter(p.next))
	settle(time.Minute)
	return err
}

// settle waits until the store works no more in the background, but not for ever: some
// have things to do after they were opened.
func settle(most time.Duration) {
	const step = 200 * time.Millisecond
	for end := time.Now().Add(most); time.Now().Before(end); {
		_, before := cpuTime()
		time.Sleep(step)
		if _, after := cpuTime(); after-before < step/20 {
			return
		}
	}
}

// use takes the work's results, so that the compiler leaves none of it out.
//
//go:noinline
func use(byte) {}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

var errNotThere = errors.New("this store cannot do it")
