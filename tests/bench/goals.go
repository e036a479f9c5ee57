//go:build linux && !386 && !arm

package main

import (
	"fmt"
	"math"
	"slices"
)

// goal is a figure that mmapkv is to reach, of the results of one run of this
// program.
type goal struct {
	name string
	// most and least bound the figure; 0: not on this side.
	most, least float64
	unit        unit
	figure      func(rs *results) (float64, bool)
}

// sized makes a place with values of 100 bytes.
func sized(store, workload string, keys int64) place { return place{store, workload, keys, 100} }

// ratio is the figure of metric a at one place over that of metric b at another.
func ratio(a place, am string, b place, bm string) func(rs *results) (float64, bool) {
	return func(rs *results) (float64, bool) {
		x, ok := rs.median(a, am)
		y, ok2 := rs.median(b, bm)
		return x / y, ok && ok2 && y != 0
	}
}

// over is mmapkv's time of a workload over another store's.
func over(store, workload string, keys int64) func(rs *results) (float64, bool) {
	return ratio(sized("mmapkv", workload, keys), "ns_op", sized(store, workload, keys), "ns_op")
}

func metric(workload string, keys int64, name string) func(rs *results) (float64, bool) {
	return func(rs *results) (float64, bool) { return rs.median(sized("mmapkv", workload, keys), name) }
}

// quotient is one metric of mmapkv's over another of the same processes.
func quotient(workload string, keys int64, a, b string) func(rs *results) (float64, bool) {
	p := sized("mmapkv", workload, keys)
	return ratio(p, a, p, b)
}

// best is how much less time mmapkv takes than the best persistent peer.
func best(workload string, keys int64) func(rs *results) (float64, bool) {
	return func(rs *results) (float64, bool) {
		own, ok := rs.median(sized("mmapkv", workload, keys), "ns_op")
		least := math.Inf(1)
		for _, a := range adapters {
			if a.persistent && a.name != mmapkvAdapter.name {
				if v, ok := rs.median(sized(a.name, workload, keys), "ns_op"); ok {
					least = min(least, v)
				}
			}
		}
		return least / own, ok && !math.IsInf(least, 1)
	}
}

func inverse(f func(rs *results) (float64, bool)) func(rs *results) (float64, bool) {
	return func(rs *results) (float64, bool) {
		v, ok := f(rs)
		return 1 / v, ok
	}
}

const (
	goal10k  = 10_000
	goal100k = 100_000
	goal1M   = 1_000_000
	goal10M  = 10_000_000
	goal64K  = 64 << 10
)

// goalsAt lists the goals; big is what stands for a million keys, so that a quick
// run shows something too.
func goalsAt(big int64) []goal {
	large := place{"mmapkv", "", keysFor(goal1M, goal64K), goal64K}
	at := func(store, workload string) place {
		p := large
		p.Store, p.Workload = store, workload
		return p
	}
	m := count(big)
	var g []goal
	most := func(name string, bound float64, f func(rs *results) (float64, bool)) {
		g = append(g, goal{name: name, most: bound, unit: times, figure: f})
	}
	least := func(name string, bound float64, f func(rs *results) (float64, bool)) {
		g = append(g, goal{name: name, least: bound, unit: times, figure: f})
	}
	most("get over map's, 10 k keys", 1.1, over("map", "get", goal10k))
	most("get over map's, "+m+" keys", 0.7, over("map", "get", big))
	most("get over map's, 10 M keys", 0.5, over("map", "get", goal10M))
	most("get over two cache misses by turns, "+m+" keys", 1.15, metric("get", big, "of_limit"))
	most("get over two cache misses by turns, 10 M keys", 1.15, metric("get", goal10M, "of_limit"))
	least("gets of 2 goroutines over 1, "+m+" keys", 1.9, metric("get-2", big, "gain"))
	for _, n := range []string{"16", "64"} {
		most("get "+n+" at once, each, over get, "+m+" keys", 0.45, quotient("getmany-"+n, big, "ns_op", "single"))
		most("get "+n+" at once, each, over get, 10 M keys", 0.45, quotient("getmany-"+n, goal10M, "ns_op", "single"))
		most("get "+n+" at once, each, over two cache misses, "+m+" keys", 1, ratio(sized("mmapkv", "getmany-"+n, big), "ns_op", sized(limitName, "get", big), "ns_op"))
	}
	least("gets over the best persistent peer's, "+m+" keys", 4, best("get", big))
	least("gets over the best persistent peer's, 10 M keys", 8, best("get", goal10M))
	most("fill over map's, "+m+" keys", 0.6, over("map", "fill", big))
	most("fill over map's, 10 M keys", 0.6, over("map", "fill", goal10M))
	most("overwrite over map's, "+m+" keys", 0.6, over("map", "overwrite", big))
	least("puts of a fill over the fastest persistent peer's, "+m+" keys", 10, best("fill", big))
	least("overwrites over the fastest persistent peer's, "+m+" keys", 10, best("overwrite", big))
	most("put p99.9 over the median, filling, "+m+" keys", 30, quotient("fill", big, "p999", "p50"))
	for _, keys := range []int64{big, goal10M} {
		k := count(keys)
		most("the worst put of a growing store over the map's, "+k+" keys", 1, ratio(sized("mmapkv", "stall", keys), "put_max", sized("map", "stall", keys), "put_max"))
		most("the worst get beside it over the map's, "+k+" keys", 1, ratio(sized("mmapkv", "stall", keys), "get_max", sized("map", "stall", keys), "get_max"))
	}
	most("durable put over a synced page, medians by turns", 1, metric("durable-1", big, "of_dsync"))
	g = append(g, goal{name: "device bytes a durable put", most: 8192, unit: bytesOf, figure: metric("durable-1", big, "device_op")},
		goal{name: "the same by the count of the process", most: 8192, unit: bytesOf, figure: metric("durable-1", big, "own_op")})
	for _, c := range []struct {
		writers string
		times   float64
	}{{"64", 14}, {"256", 35}} {
		least("durable puts of "+c.writers+" goroutines over 1", c.times, ratio(sized("mmapkv", "durable-"+c.writers, big), "per_s", sized("mmapkv", "durable-1", big), "per_s"))
	}
	for _, writers := range []string{"1", "8", "64", "256"} {
		bound := 1.2
		if writers == "1" {
			bound = 1
		}
		least("durable puts of "+writers+" over the best peer's", bound, best("durable-"+writers, big))
	}
	most("durable transaction of 1000 over the best peer's", 0.5, inverse(best("tx-1000", big)))
	for _, keys := range []int64{big, goal10M} {
		most("open after close over an empty store's, "+count(keys)+" keys", 5, ratio(sized("mmapkv", "open-close", keys), "ns_op", sized("mmapkv", "open-empty", keys), "ns_op"))
	}
	most("open after SIGKILL over a rebuild, "+m+" keys", 0.25, ratio(sized("mmapkv", "open-kill", big), "ns_op", sized("mmapkv", "rebuild", big), "ns_op"))
	most("open after SIGKILL over a rebuild, 10 M keys", 0.05, ratio(sized("mmapkv", "open-kill", goal10M), "ns_op", sized("mmapkv", "rebuild", goal10M), "ns_op"))
	most("open after SIGKILL, 10 M over "+m+" keys", 1.5, ratio(sized("mmapkv", "open-kill", goal10M), "ns_op", sized("mmapkv", "open-kill", big), "ns_op"))
	for _, keys := range []int64{big, goal10M} {
		most("fill with checkpoints over one without, "+count(keys)+" keys", 1.05, metric("checkpoint", keys, "checkpoint"))
	}
	most("rebuild over scan and verify, 10 M keys", 2.5, metric("rebuild", goal10M, "of_verify"))
	least("iterate over the best peer's speed, "+m+" keys", 1, best("iterate", big))
	for _, keys := range []int64{big, goal10M} {
		g = append(g, goal{name: "index a key, " + count(keys) + " keys", most: 14, unit: bytesOf, figure: metric("memory", keys, "index_key")},
			goal{name: "what the garbage collector scans more than of an empty store, " + count(keys) + " keys", most: 1 << 20, unit: bytesOf, figure: metric("memory", keys, "gc_scan")})
	}
	most("disk over live bytes after ten rounds of overwriting", 1.75, metric("disk", big, "disk_live"))
	most("at the peak", 3, metric("disk", big, "peak_live"))
	most("after Compact", 1.02, metric("disk", big, "compact_live"))
	most("after Compact, without the checkpoint", 1.02, metric("disk", big, "compact_log"))
	most("device bytes over the bytes put, ten rounds", 1.6, metric("disk", big, "device"))
	most("bytes made dirty by the process over the bytes put, ten rounds", 1.6, metric("disk", big, "own_writes"))
	least("memcpy's time over a put's, 64 KiB", 0.8, ratio(at(limitName, "memcpy"), "put", at("mmapkv", "fill"), "ns_op"))
	least("memcpy's time over a get's, 64 KiB", 0.8, ratio(at(limitName, "memcpy"), "get", at("mmapkv", "get"), "ns_op"))
	least("memcpy's time over a get's into a buffer, 64 KiB", 0.8, ratio(at(limitName, "memcpy"), "get", at("mmapkv", "get-append"), "ns_op"))
	most("get of a follower over the owner's, "+m+" keys", 1.1, metric("follow", big, "of_owner"))
	most("the same while the owner puts 10 000 a second, "+m+" keys", 1.1, metric("follow-busy", big, "of_owner"))
	for _, keys := range slices.Compact([]int64{goal100k, big}) {
		most("a follower that catches up over a rebuild, "+count(keys)+" records", 1.1, metric("catch-up", keys, "of_rebuild"))
	}
	most("shared put over an exclusive put with a lock around it, by turns, "+m+" keys", 1.5, metric("shared-1", big, "of_locked"))
	most("from a put to its event in another process over a wake-up by futex, medians by turns", 3, metric("watch", big, "of_futex"))
	g = append(g, goal{name: "processor time of a watcher at rest, 2 s", most: 1e6, unit: nanoseconds, figure: metric("watch", big, "idle")})
	return g
}

// judge returns the figure as it is written and whether the goal is reached: "reached",
// "missed" or "not measured".
func (g goal) judge(rs *results) (figure, verdict string) {
	v, ok := g.figure(rs)
	switch {
	case !ok:
		return "", "not measured"
	case g.most != 0 && v > g.most, g.least != 0 && v < g.least:
		verdict = "missed"
	default:
		verdict = "reached"
	}
	return g.unit.format(v), verdict
}

func (g goal) bound() string {
	if g.most != 0 {
		return fmt.Sprintf("at most %s", g.unit.format(g.most))
	}
	return fmt.Sprintf("at least %s", g.unit.format(g.least))
}
