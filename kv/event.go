package kv

import (
	"runtime"
	"time"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// watchPatience is how long a watch sleeps at most: who dies between what he did and waking
// others wakes nobody.
const watchPatience = 2 * time.Second

// wake wakes whoever waits for g to change, in any process. What has changed has been stored.
func (g *generation) wake() { g.log.current.Load().Event(crc.EventOff).Wake(mmapfile.WakeAll) }

// event is that of a file by which those wait who watch it. The zero event is none.
type event struct{ file file }

// with calls fn with the event of the mapping.
func (e event) with(fn func(mmapfile.Event)) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(e.file.mapped(), &err)
	m := e.file.Mapping()
	fn(m.Event(crc.EventOff))
	runtime.KeepAlive(m)
	return nil
}

// kick wakes whoever waits, be anything new or not. Where the page is gone, nobody does.
func (e event) kick() {
	_ = e.with(func(e mmapfile.Event) {
		e.Announce()
		e.Wake(mmapfile.WakeAll)
	})
}
