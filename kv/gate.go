package kv

import "sync/atomic"

// gate is what writers pass before they take the write lock. Who shuts it waits for
// nobody, and a writer that has waited for it once goes on, shut again or not.
type gate struct{ wait atomic.Pointer[chan struct{}] }

func (t *gate) pass() {
	if wait := t.wait.Load(); wait != nil {
		<-*wait
	}
}

func (t *gate) shut() {
	wait := make(chan struct{})
	t.wait.Store(&wait)
}

func (t *gate) open() { close(*t.wait.Swap(nil)) }
