package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progressAfter is how long something takes before it gets a bar. Only tests change it.
var progressAfter = 500 * time.Millisecond

const progressEvery = 100 * time.Millisecond

// progress shows on a terminal how far a long operation is. Elsewhere it does
// nothing.
type progress struct {
	t  *tool
	on bool

	mu    sync.Mutex
	op    string                   // guarded by mu
	start time.Time                // guarded by mu: of op
	blind bool                     // guarded by mu: op is that of during
	bar   *progressbar.ProgressBar // guarded by mu: nil until op has taken a while
}

// progress returns a progress without a bar. It shows one only if stderr is a
// terminal that can go back in a line.
func (t *tool) progress() *progress {
	return &progress{t: t, on: !t.quiet && isTerminal(t.err) && !isDumb()}
}

// besides is progress for a verb that prints while it works: where that goes to
// a terminal, a bar would stand in the middle of it.
func (t *tool) besides(printing bool) *progress {
	p := t.progress()
	p.on = p.on && !(printing && isTerminal(t.out))
	return p
}

// at shows that op has done so many bytes of total (-1: nobody knows). A change of
// op begins a new bar. It may be called from any goroutine.
func (p *progress) at(op string, done, total int64) {
	if !p.on {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.show(op, done, total)
}

// during shows op while fn runs, of which nothing tells how far it is; or what fn
// calls at with, from then on.
func (p *progress) during(op string, fn func() error) error {
	if !p.on {
		return fn()
	}
	p.mu.Lock()
	p.clear()
	p.op, p.start, p.blind = op, time.Now(), true
	p.mu.Unlock()
	over, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for n := int64(1); ; n++ {
			select {
			case <-over:
				return
			case <-tick.C:
			}
			p.mu.Lock()
			if p.blind {
				p.show(op, n, -1)
			}
			p.mu.Unlock()
		}
	}()
	defer func() {
		close(over)
		<-gone
		p.end()
	}()
	return fn()
}

// show is at, for who holds mu.
func (p *progress) show(op string, done, total int64) {
	if op != p.op {
		start := time.Now()
		if p.blind {
			start = p.start // it is a part of what goes on since then
		}
		p.clear()
		p.op, p.start = op, start
	}
	if p.bar == nil {
		if time.Since(p.start) < progressAfter {
			return
		}
		p.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(p.t.err),
			progressbar.OptionSetDescription(fmt.Sprintf("%-9s", op)),
			progressbar.OptionSetWidth(40),
			progressbar.OptionSetTheme(progressbar.ThemeASCII),
			progressbar.OptionSetElapsedTime(false),
			progressbar.OptionSetPredictTime(false), // it would count from now
			progressbar.OptionThrottle(progressEvery),
			progressbar.OptionClearOnFinish())
	}
	if total >= 0 && total != p.bar.GetMax64() {
		p.bar.ChangeMax64(total) // a log grows while it is read
	}
	p.bar.Set64(done)
}

// end takes the bar away.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *progress) clear() {
	if p.bar != nil {
		p.bar.Clear()
	}
	p.op, p.bar, p.blind = "", nil, false
}
