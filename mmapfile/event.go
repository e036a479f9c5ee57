//go:build linux || darwin || freebsd

package mmapfile

import (
	"math"
	"sync/atomic"
	"time"
	"unsafe"
)

// Event is a 4-byte word of a mapping by which goroutines, of any processes that map the file
// for writing, wait for what others do. Its lowest bit says that somebody waits; the others
// count the calls of Wake that met it. It is valid as long as its Mapping.
//
// Why no wake-up is lost:
//  1. Who waits calls Announce, looks once more whether there is still something to wait for,
//     and calls Wait with what Announce returned. Who does what they wait for does it, and
//     calls Wake. These are sequentially consistent, between processes too: either the one sees
//     what was done, or Wake sees the bit.
//  2. Wake changes the word, which unsets the bit, and then wakes. The kernel lets nobody sleep
//     on a word that is not what it was given, and compares it under the lock that a wake
//     takes: who came before the change is woken, who comes later does not sleep.
//  3. If another Wake has unset the bit since Announce, then that one has changed the word, and
//     wakes, as in 2. Nobody changes it back: the count would have to go round, which takes
//     2^31 wake-ups between two instructions.
//  4. Who dies between what it did and its Wake delays those who wait to the end of their
//     timeouts, and no longer. Who dies waiting leaves the bit: the next Wake wakes nobody,
//     once.
//
// Wake costs one load while nobody waits. On macOS and FreeBSD nobody is woken: Wait sleeps a
// while, as a poll does.
type Event struct{ word *atomic.Uint32 }

// eventWaits is the bit of an event that somebody waits.
const eventWaits = 1

// pollEvery is how long a wait lasts at most where nobody can wake it.
const pollEvery = 5 * time.Millisecond

// WakeAll is for Wake: all who wait.
const WakeAll = math.MaxInt32

// Event returns the event at off, a multiple of 4 in the mapped bytes; else it panics.
func (m *Mapping) Event(off int64) Event {
	if off&3 != 0 || uint64(off) >= uint64(m.length.Load()&^3) {
		panic(wordError(off))
	}
	return Event{(*atomic.Uint32)(unsafe.Add(m.base, off))}
}

// Announce notes that somebody is about to wait, and returns what to give to Wait.
func (e Event) Announce() (seen uint32) {
	if seen = e.word.Load(); seen&eventWaits != 0 {
		return seen // without a store: the page may be clean
	}
	return e.word.Or(eventWaits) | eventWaits
}

// Waited tells whether somebody has announced to wait since the last Wake.
func (e Event) Waited() bool { return e.word.Load()&eventWaits != 0 }

// Wait returns once Wake was called, or a timeout above 0 is over, or for no reason.
// A goroutine that waits takes a thread of the system.
func (e Event) Wait(seen uint32, timeout time.Duration) { wait(e.word, seen, timeout) }

// Wake wakes up to n of those who wait, and returns how many slept. The others are to announce
// themselves again, or to wake up by their timeouts.
func (e Event) Wake(n int) (slept int) {
	for {
		old := e.word.Load()
		if old&eventWaits == 0 {
			return 0
		}
		if e.word.CompareAndSwap(old, (old+2)&^eventWaits) {
			return wake(e.word, n)
		}
	}
}
