//go:build linux && !386 && !arm

package main

import (
	"math/bits"
	"time"
)

// histogram counts durations in classes that are 1/32 wide. Adding costs a shift and
// an increment in 16 KiB of counters.
type histogram struct {
	counts [2048]uint64
	n      uint64
	max    time.Duration // exact
}

// class returns the class of ns: below 64 each number has its own, above it the five
// bits behind the leading one choose.
func class(ns uint64) int {
	if ns < 64 {
		return int(ns)
	}
	shift := bits.Len64(ns) - 6
	return shift*32 + int(ns>>shift)
}

// middle is the inverse of class: a number in the middle of it.
func middle(class int) float64 {
	if class < 64 {
		return float64(class)
	}
	shift := class/32 - 1
	return float64(uint64(class-shift*32)<<shift) + float64(uint64(1)<<shift)/2
}

func (h *histogram) add(d time.Duration) {
	h.counts[class(uint64(max(d, 0)))]++
	h.n++
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// quantile returns the duration in ns that a share q of all does not exceed.
func (h *histogram) quantile(q float64) float64 {
	rank := uint64(q * float64(h.n))
	for i, c := range h.counts {
		if rank < c {
			return min(middle(i), float64(h.max))
		}
		rank -= c
	}
	return float64(h.max)
}

// into adds the quantiles to metrics, less what a look at the clock costs.
func (h *histogram) into(metrics map[string]float64, prefix string) {
	if h.n == 0 {
		return
	}
	clock := clockCost()
	for name, q := range map[string]float64{"p50": 0.5, "p99": 0.99, "p999": 0.999} {
		metrics[prefix+name] = max(h.quantile(q)-clock, 0)
	}
	metrics[prefix+"max"] = max(float64(h.max)-clock, 0)
}

// clockCost returns what a call of time.Now takes, in ns: the least of some runs.
func clockCost() float64 {
	least := time.Hour
	for range 20 {
		start := time.Now()
		for range 1000 {
			_ = time.Now()
		}
		least = min(least, time.Since(start)/1000)
	}
	return float64(least)
}
