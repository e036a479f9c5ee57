package kv

import (
	"runtime"
	"time"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// event is the word in a file's header by which whoever publishes wakes those, in any
// process, who wait for that. Bit 0, waited, says that somebody waits; the bits
// above count how often it was unset.
//
// Why no wake-up is lost:
//  1. Who waits sets the bit, or finds it set; then looks at what is published; and sleeps
//     only if nothing is new. Who publishes stores all that others look at, and then loads the
//     word. These are sequentially consistent, between processes too: either the one
//     sees what is new, or the other sees the bit.
//  2. Who sees the bit changes the word, which unsets the bit, and then wakes all. The kernel lets
//     nobody sleep on a word that is not what it was when he looked, and compares it under the
//     lock that a wake takes: who came before the change is woken, who comes later does
//     not sleep.
//  3. If another has unset the bit since the waiter saw it, then that one has changed the
//     word, and wakes, as in 2. Nobody changes it back: the count would have to go round, which
//     takes 2^31 wake-ups between two instructions.
//  4. A publisher that dies before it wakes, or does not know the word, delays the waiter to
//     the end of watchPatience, and no longer. A waiter that dies leaves the bit: the next
//     who publishes wakes nobody, once.
//
// Without a waiter, to publish costs one load more.
type event struct{ file file }

const waited = 1

// watchPatience is how long a watch that is to be woken sleeps before it looks for itself.
const watchPatience = 2 * time.Second

// wake wakes whoever waits for g to change, if anybody does. What has changed has been stored.
func (g *generation) wake() {
	if m := g.log.current.Load(); m.Word32(crc.EventOff).Load()&waited != 0 {
		ring(m)
	}
}

// ring unsets the bit and wakes all, unless another has done it.
func ring(m *mmapfile.Mapping) {
	word := m.Word32(crc.EventOff)
	for seen := word.Load(); seen&waited != 0; seen = word.Load() {
		if word.CompareAndSwap(seen, seen+1) {
			m.Wake(crc.EventOff)
			return
		}
	}
}

// arm says that somebody waits. It returns the word, for sleep.
func (e event) arm() (seen uint32, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(e.file.mapped(), &err)
	word := e.file.Mapping().Word32(crc.EventOff)
	if seen = word.Load(); seen&waited == 0 { // else not even a store: the page may be clean
		seen = word.Or(waited) | waited
	}
	return seen, nil
}

// sleep returns when the word is not what arm returned, or after watchPatience. changed is true
// where it cannot be read.
func (e event) sleep(seen uint32) (changed bool) {
	changed = true
	var fault error // whoever looks next meets it too
	guard := mmapfile.EnterGuard()
	defer guard.Exit(e.file.mapped(), &fault)
	m := e.file.Mapping()
	m.Wait(crc.EventOff, seen, watchPatience)
	changed = m.Word32(crc.EventOff).Load() != seen
	runtime.KeepAlive(e.file)
	return changed
}

// kick wakes whoever waits, be anything new or not.
func (e event) kick() {
	var fault error // then they do not sleep
	guard := mmapfile.EnterGuard()
	defer guard.Exit(e.file.mapped(), &fault)
	m := e.file.Mapping()
	for word := m.Word32(crc.EventOff); ; {
		if seen := word.Load(); word.CompareAndSwap(seen, (seen|waited)+1) {
			break
		}
	}
	m.Wake(crc.EventOff)
	runtime.KeepAlive(e.file)
}
