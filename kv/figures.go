package kv

import "math"

// Figure is one number of a store, for a system that collects such.
type Figure struct {
	Name  string // lower case and _; ends with _bytes if that is its unit, and with _total if Counter
	Help  string // one sentence
	Value int64
	// Counter: it only ever grows, and is no gauge. OfHandle counters begin anew with each Open, the
	// others with the store.
	Counter bool
	// OfHandle: it tells of this handle, so that of another one of the same store it differs.
	OfHandle bool
}

// Figures returns the figures in an order that does not change, under names that do not: they are
// what kv/kvexpvar, kv/kvotel, kv/kvhttp and kvtool stats show. Of a Store that is closed, or cannot
// be read, there is corruptions_total alone.
func (st *Stats) Figures() []Figure {
	corruptions := Figure{Name: "corruptions_total", Value: count(st.Corruptions), Counter: true, OfHandle: true, Help: "How often damage was met; what is met twice counts twice."}
	if st.Generation == 0 {
		return []Figure{corruptions}
	}
	missing := int64(0)
	for _, r := range st.Missing {
		missing += r.Len
	}
	poisoned := int64(0)
	if st.Poisoned != nil {
		poisoned = 1
	}
	return []Figure{
		{Name: "keys", Value: st.Keys, Help: "Keys of the store, expired ones that no compaction has left behind included."},
		{Name: "records", Value: st.Records, Help: "Records in the log, dead ones included."},
		{Name: "mutations_total", Value: count(st.Revision), Counter: true, Help: "Puts and deletes of the store since it was created: its revision."},
		{Name: "durable_mutations_total", Value: count(st.DurableRevision), Counter: true, Help: "Those of them that are past their durability point."},
		{Name: "generation", Value: count(st.Generation), Help: "Number of the file of the store: each compaction makes the next."},
		{Name: "live_bytes", Value: st.LiveBytes, Help: "Bytes of the log that hold current entries."},
		{Name: "dead_bytes", Value: st.DeadBytes, Help: "Bytes of the log that a compaction would leave behind."},
		{Name: "slack_bytes", Value: max(0, st.FileBytes-st.Tail), Help: "Bytes of the file behind the log."},
		{Name: "file_bytes", Value: st.FileBytes, Help: "Length of the file."},
		{Name: "unsynced_bytes", Value: max(0, st.Tail-st.DurableTail), Help: "Bytes of the log that are not past their durability point."},
		{Name: "checkpoint_bytes", Value: st.Checkpoint, Help: "Bytes of the log that an Open after a kill need not read, for they are covered by the checkpoint."},
		{Name: "index_bytes", Value: st.IndexBytes, Help: "Bytes of memory that the index takes in each process."},
		{Name: "missing_bytes", Value: missing, OfHandle: true, Help: "Bytes of the log that Options.Salvage passed over."},
		{Name: "poisoned", Value: poisoned, OfHandle: true, Help: "1 if a sync has failed, so that the store takes no more writes until it is opened again."},
		{Name: "syncs_total", Value: count(st.Syncs), Counter: true, OfHandle: true, Help: "Syncs of the log."},
		{Name: "grows_total", Value: count(st.Grows), Counter: true, OfHandle: true, Help: "How often the file has grown."},
		{Name: "compactions_total", Value: count(st.Compactions), Counter: true, OfHandle: true, Help: "Compactions by this handle."},
		corruptions,
	}
}

// count is n as collectors take it.
func count(n uint64) int64 { return int64(min(n, math.MaxInt64)) }
