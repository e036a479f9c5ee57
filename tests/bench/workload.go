//go:build linux && !386 && !arm

package main

import (
	"slices"
)

// start is what a workload finds.
type start int

const (
	empty   start = iota // an empty directory; the workload opens the store itself
	loaded               // an open, warm store of all keys, which it must not change
	changed              // the same, and it may change it
	closed               // the files of such a store, not opened, which it must not change
	spoiled              // the same, and it may change them
)

// row is a line of the table.
type row struct {
	label, metric string
	unit          unit
}

// workload is one thing to measure.
type workload struct {
	name  string
	about string
	start start
	rows  []row
	run   func(b *bench) error
	// lacks says why a store has no such figure; empty: it has.
	lacks func(a adapter) string
	// broad: it is run at every size and value, and not only with values of 100 bytes.
	broad bool
}

func any1(adapter) string { return "" }

func persistent(a adapter) string {
	if !a.persistent {
		return "keeps nothing"
	}
	return ""
}

func onlyMmapkv(a adapter) string {
	if a.name != mmapkvAdapter.name {
		return "has no such call"
	}
	return ""
}

func byProcesses(a adapter) string {
	if a.name != mmapkvAdapter.name {
		return "not measured with several processes"
	}
	return ""
}

func nsRow(label string) []row { return []row{{label, "ns_op", nanoseconds}} }

func durableRows(who string) []row {
	return []row{{"durable puts a second, " + who, "per_s", perSecond}}
}

func sharedRows(who string) []row {
	return []row{{"shared puts a second, " + who + " processes", "per_s", perSecond}, {"the slowest, of its share", "slowest", times}, {"the worst put", "put_max", nanoseconds}}
}

// workloads are all of them, in the order of the tables.
var workloads = []workload{
	{name: "get", about: "Get of keys that are there, each as likely as any other", start: loaded, rows: nsRow("get"), run: runGet, lacks: any1, broad: true},
	{name: "get-append", about: "Get into the caller's own buffer", start: loaded, rows: nsRow("get into a buffer"), run: runGetAppend, lacks: onlyMmapkv, broad: true},
	{name: "view", about: "the value without a copy", start: loaded, rows: nsRow("view"), run: runView, lacks: onlyMmapkv},
	{name: "get-zipf", about: "Get where few keys are asked for very often (Zipf, s = 1.01)", start: loaded, rows: nsRow("get, Zipf"), run: runGetZipf, lacks: any1},
	{name: "get-miss", about: "Get of keys that are not there", start: loaded, rows: nsRow("get, miss"), run: runGetMiss, lacks: any1},
	{name: "get-2", about: "Get from two goroutines: the time of one Get of both together; beside it, by turns, of one", start: loaded, rows: []row{{"get, 2 goroutines", "ns_op", nanoseconds}, {"the gain of the second", "gain", times}}, run: runGetTwo, lacks: any1},
	{name: "getmany-16", about: "16 keys at once, the time of one key", start: loaded, rows: nsRow("get 16 at once, each"), run: runGetMany(16), lacks: onlyMmapkv},
	{name: "getmany-64", about: "64 keys at once, the time of one key", start: loaded, rows: nsRow("get 64 at once, each"), run: runGetMany(64), lacks: onlyMmapkv},
	{name: "fill", about: "put of all keys into an empty store, by transactions of 1000 where the store's documents say so", start: empty, rows: nsRow("fill"), run: runFill, lacks: any1, broad: true},
	{name: "fill-single", about: "the same, each put its own transaction", start: empty, rows: nsRow("fill, single puts"), run: runFillSingle,
		lacks: func(a adapter) string {
			if !a.grouped {
				return "as fill"
			}
			return ""
		}},
	{name: "overwrite", about: "put of keys that are there, at random, by transactions where fill does", start: changed, rows: nsRow("overwrite"), run: runOverwrite, lacks: any1, broad: true},
	{name: "mixed-95", about: "95 % Get, 5 % Put, single", start: changed, rows: nsRow("95 % get, 5 % put"), run: runMixed(5), lacks: any1},
	{name: "mixed-50", about: "50 % Get, 50 % Put, single", start: changed, rows: nsRow("50 % get, 50 % put"), run: runMixed(50), lacks: any1},
	{name: "delete", about: "delete of keys that are there, single, in random order", start: changed, rows: nsRow("delete"), run: runDelete, lacks: any1},
	{name: "iterate", about: "all entries, the time of one", start: loaded, rows: nsRow("iterate, each"), run: runIterate, lacks: any1, broad: true},
	{name: "stall", about: "single puts from empty to all keys and then all again, a reader beside them, each call with the clock; then a compaction, if the store has one",
		start: empty, rows: []row{
			{"put while growing, p99.9", "put_p999", nanoseconds}, {"the worst put", "put_max", nanoseconds},
			{"get beside it, p99.9", "get_p999", nanoseconds}, {"the worst get", "get_max", nanoseconds}, {"keys that it came to, of all", "reached", times}},
		run: runStall, lacks: any1},
	{name: "checkpoint", about: "fill of a store that takes checkpoints in the background and of one that takes none, by turns", start: empty, rows: []row{
		{"fill with checkpoints over without", "checkpoint", times}, {"the same of processor time", "checkpoint_cpu", times}}, run: runCheckpoint, lacks: onlyMmapkv},
	{name: "durable-1", about: "durable puts from one goroutine; by turns with pages written and synced to an allocated file", start: empty,
		rows: append(durableRows("1 goroutine"), row{"time over that of a synced page", "of_dsync", times}, row{"device bytes a put", "device_op", bytesOf}, row{"by the count of the process", "own_op", bytesOf}),
		run:  runDurable(1), lacks: persistent, broad: true},
	{name: "durable-8", about: "from 8 goroutines", start: empty, rows: durableRows("8"), run: runDurable(8), lacks: persistent},
	{name: "durable-64", about: "from 64 goroutines", start: empty, rows: durableRows("64"), run: runDurable(64), lacks: persistent},
	{name: "durable-256", about: "from 256 goroutines", start: empty, rows: durableRows("256"), run: runDurable(256), lacks: persistent},
	{name: "tx-1000", about: "durable transactions of 1000 fresh entries (64 KiB: of 64)", start: empty, rows: nsRow("durable transaction of 1000"), run: runTransactions, lacks: persistent},
	{name: "open-close", about: "Open after Close, files in the page cache", start: closed, rows: []row{{"open after close", "ns_op", nanoseconds}, {"and the first get", "first_get", nanoseconds}}, run: runOpenClosed, lacks: persistent, broad: true},
	{name: "open-kill", about: "Open after a SIGKILL that came a number of puts after an Open", start: spoiled, rows: []row{{"open after SIGKILL", "ns_op", nanoseconds}, {"puts that returned and are gone", "lost", plain}}, run: runOpenKilled, lacks: persistent},
	{name: "open-empty", about: "Open of a store without entries", start: empty, rows: nsRow("open an empty store"), run: runOpenEmpty, lacks: persistent},
	{name: "rebuild", about: "Open when all is gone that lies beside the store; by turns with scanning and verifying its records alone", start: spoiled,
		rows: []row{{"open without a checkpoint", "ns_op", nanoseconds}, {"over scan and verify", "of_verify", times}}, run: runRebuild, lacks: onlyMmapkv},
	{name: "disk", about: "ten rounds of overwriting everything; against the bytes of all keys and values", start: changed, rows: []row{
		{"disk after ten rounds, of the data", "disk", times}, {"at the peak", "disk_peak", times}, {"after compaction", "disk_compact", times},
		{"written to the device, of what was put", "device", times}, {"by the count of the process", "own_writes", times}}, run: runDisk, lacks: persistent},
	{name: "memory", about: "memory of the process with the store open and all read, less with an empty store; a garbage collection then", start: closed, rows: []row{
		{"memory a key, without file pages", "anon_key", bytesOf}, {"of it Go heap", "heap_key", bytesOf}, {"index a key", "index_key", bytesOf},
		{"a garbage collection", "gc_cycle", nanoseconds}}, run: runMemory, lacks: any1, broad: true},
	{name: "follow", about: "Get of a process that has the store open read-only, beside its owner, another process, which is idle; by turns Get of the owner, and the same Get of the follower with a read lock and an unlock of a file around each",
		start: closed, rows: []row{
			{"get of a follower", "ns_op", nanoseconds}, {"over the owner's", "of_owner", times}, {"with flock around each", "flock", nanoseconds},
			{"with fcntl's lock of an open file", "ofd", nanoseconds}, {"with fcntl's lock of a process", "posix", nanoseconds}}, run: runFollow, lacks: byProcesses},
	{name: "follow-busy", about: "the same, without locks, while the owner puts 10 000 keys a second, in its own turns too", start: spoiled, rows: []row{
		{"get of a follower beside a writer", "ns_op", nanoseconds}, {"over the owner's", "of_owner", times}, {"puts a second beside it", "puts", perSecond}}, run: runFollowBusy, lacks: byProcesses},
	{name: "catch-up", about: "the first Get of a follower that lies all keys behind; by turns Open of the same log, without a checkpoint", start: empty, rows: []row{
		{"a follower catches up, each record", "record", nanoseconds}, {"over a rebuild", "of_rebuild", times}}, run: runCatchUp, lacks: byProcesses},
	{name: "switch", about: "the first Get of a follower after a compaction, by another process, which has come to rest; by turns Open after Close and the first Get", start: spoiled, rows: []row{
		{"a follower after a compaction", "ns_op", nanoseconds}, {"over open and the first get", "of_open", times}}, run: runSwitch, lacks: byProcesses},
	{name: "shared-1", about: "put of all keys into an empty shared store that no other process has open; by turns into an exclusive one, with a lock and an unlock of a file around each put (fcntl, of an open file)", start: empty, rows: []row{
		{"shared put", "ns_op", nanoseconds}, {"over an exclusive put with a lock around it", "of_locked", times}}, run: runShared, lacks: byProcesses},
	{name: "shared-2", about: "puts of 2 processes into one shared store, each as fast as it can", start: empty, rows: sharedRows("2"), run: runSharers(2), lacks: byProcesses},
	{name: "shared-4", about: "of 4 processes", start: empty, rows: sharedRows("4"), run: runSharers(4), lacks: byProcesses},
	{name: "shared-8", about: "of 8 processes", start: empty, rows: sharedRows("8"), run: runSharers(8), lacks: byProcesses},
	{name: "watch", about: "puts, and naps of 200 µs between them, until a watcher, a process that follows the store, has the event; by turns until that process is woken by a futex, and by a pipe; first, its processor time in 2 seconds without events",
		start: empty, rows: []row{
			{"from a put to its event in another process", "p50", nanoseconds}, {"over the wake-up by a futex", "of_futex", times}, {"over that by a pipe", "of_pipe", times},
			{"p99 of the event", "p99", nanoseconds}, {"p99 by a futex", "futex_p99", nanoseconds}, {"p99 by a pipe", "pipe_p99", nanoseconds}, {"processor time of a watcher at rest", "idle", nanoseconds}}, run: runWatch, lacks: byProcesses},
}

func workloadOf(name string) (workload, bool) {
	i := slices.IndexFunc(workloads, func(w workload) bool { return w.name == name })
	if i < 0 {
		return workload{}, false
	}
	return workloads[i], true
}
