//go:build linux && !386 && !arm

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"
)

// childFlag in front of a task makes this program the process that does it.
const childFlag = "-do"

// loadName is the work of making the store that others begin with.
const loadName = "load"

// child does the task: a line "started" to out when the preparations are over, and a
// Result as JSON when the measurement is.
func child(arg string, out io.Writer) error {
	var t task
	if err := json.Unmarshal([]byte(arg), &t); err != nil {
		return err
	}
	b := &bench{task: t, out: map[string]float64{}, version: 1 << 40, cfg: config{keys: t.Keys, value: t.Value, writers: 1}}
	b.started = func() {
		ageHeap()
		fmt.Fprintln(out, "started")
	}
	if t.Store == limitName {
		return b.finish(limits[t.Workload], out)
	}
	var ok bool
	if b.a, ok = adapterOf(t.Store); !ok {
		return fmt.Errorf("no store %q", t.Store)
	}
	switch t.Workload {
	case loadName:
		return b.load()
	case victimName:
		return victim(b, out)
	case companionName:
		return work(b, os.Stdin, out)
	}
	w, ok := workloadOf(t.Workload)
	if !ok {
		return fmt.Errorf("no workload %q", t.Workload)
	}
	if w.start == loaded || w.start == changed {
		var err error
		if b.s, err = b.open(b.Dir, false, 1); err != nil {
			return err
		}
		if !b.a.persistent {
			err = b.fillWith(b.s, false)
		} else {
			err = b.warm()
		}
		if err != nil {
			return err
		}
		b.started()
	}
	if err := b.finish(w.run, out); err != nil {
		return err
	}
	if w.start == loaded || w.start == changed {
		return b.s.Close()
	}
	return nil
}

// ageHeap collects, and allocates until the next collection, so that what a measurement allocates is
// memory that the process has had before, as in a program that has run for long. A store
// of all keys on the heap would else meet a fresh page each few dozen results, for as
// many bytes as it holds.
func ageHeap() {
	runtime.GC()
	const chunk = 1 << 20
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before := m.NumGC
	for m.NumGC == before {
		for range 8 {
			use(make([]byte, chunk)[chunk-1])
		}
		runtime.ReadMemStats(&m)
	}
	runtime.GC()
}

// finish measures and tells the result.
func (b *bench) finish(run func(b *bench) error, out io.Writer) error {
	start := time.Now()
	machine, own := cpuTime()
	if err := run(b); err != nil {
		return err
	}
	machine2, own2 := cpuTime()
	b.out["others_cpu"] = max(float64(machine2-machine-(own2-own))/float64(time.Since(start)), 0)
	return json.NewEncoder(out).Encode(b.out)
}

// load makes the store of all keys that other processes begin with. A store that
// moves its entries in the background is given the time to come to rest: reads are
// then measured at its best.
func (b *bench) load() error {
	s, err := b.open(b.Dir, false, 1)
	if err != nil {
		return err
	}
	b.version = 0
	if err := b.fillWith(s, true); err != nil {
		return err
	}
	if c, ok := s.(compacter); ok && b.a.rests {
		if err := c.Compact(); err != nil {
			return err
		}
	}
	return s.Close()
}
