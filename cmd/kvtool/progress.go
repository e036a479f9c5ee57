package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progressAfter is how long something takes before it gets a bar.
const progressAfter = 500 * time.Millisecond

// progress shows on a terminal how far a long operation is. Elsewhere it does
// nothing.
type progress struct {
	t  *tool
	on bool

	mu    sync.Mutex
	op    string                   // guarded by mu
	start time.Time                // guarded by mu: of op
	bar   *progressbar.ProgressBar // guarded by mu: nil until op has taken a while
}

// progress returns a progress without a bar. It shows one only if stderr is a
// terminal.
func (t *tool) progress() *progress {
	return &progress{t: t, on: !t.quiet && isTerminal(t.err)}
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
	if op != p.op {
		p.clear()
		p.op, p.start = op, time.Now()
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
			progressbar.OptionThrottle(100*time.Millisecond),
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
	p.op, p.bar = "", nil
}
