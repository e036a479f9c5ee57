//go:build linux && !386 && !arm

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// nap is what a waker leaves between two calls, for the waiter to fall asleep.
const nap = 200 * time.Microsecond

// runWatch measures from just before a Put to the event in the hands of a watcher,
// another process, and by turns from one to the other by a futex and by a pipe.
func runWatch(b *bench) error {
	s, err := b.openAs(b.Dir, owner)
	if err != nil {
		return err
	}
	call, err := newBell(b.Scratch)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	put := b.timePut(s)
	if err := put(); err != nil {
		return err
	}
	c, err := b.companion(b.Dir, follower)
	if err != nil {
		return err
	}
	defer c.end()
	if _, err := c.do("watch"); err != nil {
		return err
	}
	b.started()
	idle, err := c.do("idle")
	if err != nil {
		return err
	}
	if _, err := c.do("listen"); err != nil {
		return err
	}
	puts := 1
	ways := []func() error{func() error { puts++; return put() }, call.wake, call.write}
	for range turns {
		for _, way := range ways {
			for end := time.Now().Add(b.Time / turns); ; {
				if err := way(); err != nil {
					return err
				}
				if time.Sleep(nap); !time.Now().Before(end) {
					break
				}
			}
		}
	}
	heard, err := c.do("heard")
	if err != nil {
		return err
	}
	if n := int(heard["events"]); n != puts {
		return fmt.Errorf("%d events of %d puts", n, puts)
	}
	for name, v := range heard {
		b.out[name] = v
	}
	b.out["idle"] = idle["cpu"]
	b.out["of_futex"], b.out["of_pipe"] = heard["p50"]/heard["futex_p50"], heard["p50"]/heard["pipe_p50"]
	return errors.Join(c.end(), s.Close())
}

// timePut returns a Put of the next key, with the time just before in the value.
func (b *bench) timePut(s Store) func() error {
	key, value := make([]byte, keySize), newValue(b.Value)
	i := uint64(0)
	return func() error {
		putKey(key, i)
		i++
		binary.LittleEndian.PutUint64(value, uint64(monotonic()))
		return s.Put(key, value)
	}
}

// monotonic is the time by a clock that all processes have in common.
func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

// bell is what two processes wake one another by without a store: a word in a mapped
// file, and a named pipe.
type bell struct {
	*page
	addr uintptr // of the word
	pipe int
}

type page struct {
	rung atomic.Uint32
	at   atomic.Int64 // monotonic time
}

func newBell(dir string) (*bell, error) {
	f, err := os.OpenFile(filepath.Join(dir, "word"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(4096); err != nil {
		return nil, err
	}
	p, err := unix.MmapPtr(int(f.Fd()), 0, nil, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	return &bell{(*page)(p), uintptr(p), fd}, err
}

// The kernel's numbers, which x/sys does not have.
const (
	futexWait = 0
	futexWake = 1
)

func (b *bell) wake() error {
	b.at.Store(monotonic())
	b.rung.Add(1)
	if _, _, errno := unix.Syscall6(unix.SYS_FUTEX, b.addr, futexWake, 1, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// wait returns what rung is once it is not seen any more.
func (b *bell) wait(seen uint32) uint32 {
	for b.rung.Load() == seen {
		unix.Syscall6(unix.SYS_FUTEX, b.addr, futexWait, uintptr(seen), 0, 0, 0)
	}
	return b.rung.Load()
}

func (b *bell) write() error {
	_, err := unix.Write(b.pipe, binary.LittleEndian.AppendUint64(nil, uint64(monotonic())))
	return err
}

// read returns the time that the next write wrote.
func (b *bell) read() (int64, error) {
	var at [8]byte
	_, err := unix.Read(b.pipe, at[:])
	return int64(binary.LittleEndian.Uint64(at[:])), err
}

// ear is when a companion heard what woke it.
type ear struct {
	mu                 sync.Mutex
	watch, futex, pipe histogram // guarded by mu
}

// add notes that it hears now what was said at.
func (e *ear) add(h *histogram, at int64) {
	now := monotonic()
	e.mu.Lock()
	h.add(time.Duration(now - at))
	e.mu.Unlock()
}

// watch watches until the orders end, and waits for the first event.
func (w *worker) watch() error {
	first := make(chan struct{})
	begun := sync.OnceFunc(func() { close(first) })
	w.wg.Go(func() {
		defer begun()
		for e := range w.s.(watcher).Watch(w.ctx, nil) {
			if e.Err != nil || e.Missed != 0 {
				w.err = errors.Join(e.Err, fmt.Errorf("an event with %d missed", e.Missed))
				return
			}
			w.ear.add(&w.ear.watch, int64(binary.LittleEndian.Uint64(e.Value)))
			begun()
		}
	})
	<-first
	return nil
}

// idle tells for how long the process is at work in b.Rest.
func (w *worker) idle() error {
	before := atWork(unix.RUSAGE_SELF)
	time.Sleep(w.Rest)
	w.out["cpu"] = float64(atWork(unix.RUSAGE_SELF) - before)
	return nil
}

// listen waits for the bell until the process ends.
func (w *worker) listen() error {
	call, err := newBell(w.Scratch)
	if err != nil {
		return err
	}
	go func() {
		for seen := uint32(0); ; {
			seen = call.wait(seen)
			w.ear.add(&w.ear.futex, call.at.Load())
		}
	}()
	go func() {
		for {
			if at, err := call.read(); err == nil {
				w.ear.add(&w.ear.pipe, at)
			}
		}
	}()
	return nil
}

// heard tells what was heard until it has been silent for a while.
func (w *worker) heard() error {
	e := &w.ear
	for before := uint64(0); ; time.Sleep(100 * nap) {
		e.mu.Lock()
		n := e.watch.n + e.futex.n + e.pipe.n
		if n == before {
			break
		}
		e.mu.Unlock()
		before = n
	}
	defer e.mu.Unlock()
	w.out["events"] = float64(e.watch.n)
	e.watch.into(w.out, "")
	e.futex.into(w.out, "futex_")
	e.pipe.into(w.out, "pipe_")
	return nil
}
