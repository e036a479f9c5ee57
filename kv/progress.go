package kv

import "time"

// progress reports how far a long operation is, not too often.
type progress struct {
	fn    func(op string, done, total int64)
	op    string
	total int64
	asked int64 // done when the clock was looked at last
	told  time.Time
}

const (
	progressBytes = 1 << 20
	progressEvery = 100 * time.Millisecond
)

func (s *Store) newProgress(op string, total int64) *progress {
	return &progress{fn: s.opts.Hooks.Progress, op: op, total: total, told: time.Now()}
}

// at reports done bytes, if it is time to.
func (p *progress) at(done int64) {
	if p.fn == nil || done-p.asked < progressBytes && done < p.total {
		return
	}
	p.asked = done
	if now := time.Now(); done >= p.total || now.Sub(p.told) >= progressEvery {
		p.told = now
		p.fn(p.op, done, p.total)
	}
}
