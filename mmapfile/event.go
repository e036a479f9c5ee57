//go:build linux || darwin || freebsd

package mmapfile

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"
	"unsafe"
)

// Event is a 4-byte word of a mapping by which goroutines, of any processes that map
// the file for writing, wait for what others do. Its lowest bit says that somebody waits; the others count
// the calls of Wake that met it. It is valid as long as its Mapping.
//
// No wake-up is lost: who waits calls Announce, looks once more whether there is still
// something to wait for, and calls Wait with what Announce returned; who does what they
// wait for does it, and calls Wake. All four are sequentially consistent. So either
// the look comes after what was done, or Announce before the look of Wake, which then
// changes the word that Wait compares with what it was given before it sleeps.
//
// Wake costs one load while nobody waits, and who has died waiting costs one system call more,
// once. On macOS and FreeBSD nobody is woken: Wait sleeps a while, as a poll does.
type Event struct{ word *atomic.Uint32 }

// eventWaits is the bit of an event that somebody waits.
const eventWaits = 1

// WakeAll is for Wake: all who wait.
const WakeAll = math.MaxInt32

// Event returns the event at off, a multiple of 4 in the mapped bytes; else it panics.
func (m *Mapping) Event(off int64) Event {
	if off&3 != 0 || uint64(off) >= uint64(m.length.Load()&^3) {
		panic(fmt.Sprintf("mmapfile: no event in the mapping at offset %d", off))
	}
	return Event{(*atomic.Uint32)(unsafe.Add(m.base, off))}
}

// Announce notes that somebody is about to wait, and returns what to give to Wait.
func (e Event) Announce() uint32 { return e.word.Or(eventWaits) | eventWaits }

// Waited tells whether somebody has announced to wait since the last Wake.
func (e Event) Waited() bool { return e.word.Load()&eventWaits != 0 }

// Wait returns once Wake was called, or a timeout above 0 is over, or for no reason.
// A goroutine that waits takes a thread of the system.
func (e Event) Wait(seen uint32, timeout time.Duration) { wait(e.word, seen, timeout) }

// Wake wakes up to n of those who wait. The others are to announce themselves again, or
// to wake up by their timeouts.
func (e Event) Wake(n int) {
	for {
		old := e.word.Load()
		if old&eventWaits == 0 {
			return
		}
		if e.word.CompareAndSwap(old, (old+2)&^eventWaits) {
			wake(e.word, n)
			return
		}
	}
}
