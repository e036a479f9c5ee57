//go:build amd64 || arm64

package device

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
)

const sectorSize = 512 // bytes that a power cut leaves old or new, never mixed

// extent is a run of bytes of a disk.
type extent struct{ Off, Len int64 }

func (e extent) has(off int64) bool { return off >= e.Off && off-e.Off < e.Len }
func (e extent) meets(off, n int64) bool {
	return off < e.Off+e.Len && e.Off < off+n
}

// write is one write request, or a discard: that writes zeros.
type write struct {
	off, n int64
	data   []byte // nil: zeros
}

// device is a disk with a write cache. What it was told to write shows to reads
// at once, and is on the medium once a flush has returned that came after it; a
// power cut leaves any part of the rest.
type device struct {
	mu      sync.Mutex
	now     *image  // guarded by mu: what reads return
	medium  *image  // guarded by mu: as of the last flush
	pending []write // guarded by mu: since then, in the order of their completion

	writes, flushes, discards int // guarded by mu: requests so far

	// whole are places whose sectors a cut does not part: the super block, which
	// ext4 and btrfs keep in several sectors, with a sum and without a copy that
	// the kernel would turn to. They assume that it is not torn.
	whole []extent // immutable

	fault fault // guarded by mu

	hook      func() // guarded by mu: called once, after some requests; or nil
	left      int    // guarded by mu: requests until then
	wantFlush bool   // guarded by mu: and not before one that flushes something
	calls     sync.WaitGroup
}

// fault is what a device does wrong.
type fault struct {
	Forgets  int      // 1: a flush does nothing; n: it leaves out one write of n
	Honest   int      // so many flushes forget nothing before
	BadReads []extent // reading there fails
	BadWrite int      // so many writes fail; -1: all
	BadFlush int      // so many flushes fail; -1: all
}

// newDevice returns a device with the content of m.
func newDevice(m *image, whole []extent) *device {
	return &device{now: m.clone(), medium: m.clone(), whole: whole}
}

// setFault makes the device do wrong from now on.
func (d *device) setFault(f fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = f
}

// after calls hook once, before a write, flush or discard that comes after n more
// of them, and, where asked, is a flush that has something to do. The request waits
// for hook; the device serves others meanwhile. A hook that was waiting is forgotten.
func (d *device) after(n int, wantFlush bool, hook func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left, d.wantFlush, d.hook = n, wantFlush, hook
}

// enter begins a request that changes something. It returns with mu held.
func (d *device) enter(isFlush bool) {
	d.mu.Lock()
	if d.left > 0 {
		d.left--
	}
	if hook := d.hook; hook != nil && d.left == 0 && (!d.wantFlush || isFlush && len(d.pending) > 0) {
		d.hook = nil
		d.calls.Add(1)
		d.mu.Unlock()
		hook()
		d.calls.Done()
		d.mu.Lock()
	}
}

// quiet makes sure that no hook runs, nor will.
func (d *device) quiet() {
	d.after(0, false, nil)
	d.calls.Wait()
}

func (d *device) read(p []byte, off int64) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.now.inside(off, int64(len(p))) {
		return syscall.EINVAL
	}
	for _, bad := range d.fault.BadReads {
		if bad.meets(off, int64(len(p))) {
			return syscall.EIO
		}
	}
	d.now.read(p, off)
	return 0
}

// fails counts down a number of failures.
func fails(left *int) bool {
	if *left > 0 {
		*left--
		return true
	}
	return *left < 0
}

func (d *device) write(p []byte, off int64) syscall.Errno {
	return d.store(write{off, int64(len(p)), append([]byte(nil), p...)})
}

func (d *device) discard(off, n int64) syscall.Errno { return d.store(write{off: off, n: n}) }

func (d *device) store(w write) syscall.Errno {
	d.enter(false)
	defer d.mu.Unlock()
	if !d.now.inside(w.off, w.n) {
		return syscall.EINVAL
	}
	if w.data != nil {
		d.writes++
	} else {
		d.discards++
	}
	if fails(&d.fault.BadWrite) {
		return syscall.EIO
	}
	w.apply(d.now, 0, w.n)
	d.pending = append(d.pending, w)
	return 0
}

// content is what reads return.
func (d *device) content() *image {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now.clone()
}

// apply writes the bytes [from, to) of w.
func (w *write) apply(m *image, from, to int64) {
	if w.data == nil {
		m.zero(w.off+from, to-from)
	} else {
		m.write(w.data[from:to], w.off+from)
	}
}

func (d *device) flush() syscall.Errno {
	d.enter(true)
	defer d.mu.Unlock()
	d.flushes++
	if fails(&d.fault.BadFlush) {
		return syscall.EIO
	}
	var forgotten []write
	for i, w := range d.pending {
		if n := d.fault.Forgets; n > 0 && i%n == 0 && d.flushes > d.fault.Honest {
			forgotten = append(forgotten, w)
		} else {
			w.apply(d.medium, 0, w.n)
		}
	}
	d.pending = forgotten
	return 0
}

// modes are the ways in which a cut draws what stays of the pending writes.
var modes = []string{"none", "all", "prefix", "but one", "only one", "late", "writes", "sectors", "sectors", "mixed", "mixed"}

// cut is what a power cut left.
type cut struct {
	Image   *image `json:"-"`
	Mode    string
	Pending int      // writes since the last flush
	Lost    []string // which of them, or which part
}

// power cuts the power: it returns the medium with some part of the writes since
// the last flush, whole ones or sectors of them, later ones without earlier ones.
// The device goes on.
func (d *device) power(rng *rand.Rand, mode string) *cut {
	d.mu.Lock()
	m, pending := d.medium.clone(), d.pending[:len(d.pending):len(d.pending)]
	d.mu.Unlock()
	c := &cut{Image: m, Mode: mode, Pending: len(pending)}
	at := rng.IntN(len(pending) + 1)
	for i := range pending {
		w := &pending[i]
		share := 1.0 // of the sectors that stay
		switch mode {
		case "none":
			share = 0
		case "prefix":
			share = float64(min(max(at-i, 0), 1))
			if i == at {
				share = 0.5
			}
		case "but one":
			share = float64(min(max(at-i, i-at), 1))
		case "only one":
			share = 1 - float64(min(max(at-i, i-at), 1))
		case "late":
			if i < at {
				share = 0.3
			}
		case "writes":
			share = float64(rng.IntN(2))
		case "sectors":
			share = 0.5
		case "mixed":
			share = []float64{0, 0, 1, 1, 0.1, 0.5, 0.9}[rng.IntN(7)]
		}
		if lost := d.keep(m, w, share, rng); lost > 0 {
			c.Lost = append(c.Lost, fmt.Sprintf("#%d at %d: %d of %d sectors", i, w.off, lost, (w.n+sectorSize-1)/sectorSize))
		}
	}
	return c
}

// keep writes a share of the sectors of w, and tells how many it left out.
func (d *device) keep(m *image, w *write, share float64, rng *rand.Rand) (lost int64) {
	if share >= 1 {
		w.apply(m, 0, w.n)
		return 0
	}
	fate := make([]bool, len(d.whole))
	for i := range fate {
		fate[i] = rng.Float64() < share
	}
	for from := int64(0); from < w.n; {
		to := min(w.n, from+sectorSize-(w.off+from)%sectorSize)
		stays := rng.Float64() < share
		for i, e := range d.whole {
			if e.has(w.off + from) {
				stays = fate[i]
			}
		}
		if stays {
			w.apply(m, from, to)
		} else {
			lost++
		}
		from = to
	}
	return lost
}

func (c *cut) String() string {
	lost := c.Lost
	if len(lost) > 40 {
		lost = append(lost[:40:40], fmt.Sprintf("and %d more", len(lost)-40))
	}
	return fmt.Sprintf("a cut of mode %q, %d writes since the last flush, lost:\n  %s", c.Mode, c.Pending, strings.Join(lost, "\n  "))
}
