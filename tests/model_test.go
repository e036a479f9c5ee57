package tests

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

// modelOptions are the settings that a model test goes round.
func modelOptions(n int64) kv.Options {
	all := []kv.Options{
		{},
		{Durability: kv.SyncManual, CompactAt: -1},
		{Durability: kv.SyncAlways, CompactAt: 0.2},
		{SyncEvery: time.Millisecond, SyncBytes: 1 << 10, VerifyReads: true},
		{Durability: kv.SyncManual, SyncEvery: time.Hour},
	}
	return all[int(n)%len(all)]
}

// play applies ops to a new store and fails with a list that replays.
func play(t *testing.T, place place, opts kv.Options, ops []op) {
	t.Helper()
	r, err := newRunner(place, storePath(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	at, err := r.run(ops)
	if err == nil {
		err = r.close()
	} else {
		r.close()
	}
	if err != nil {
		t.Fatalf("operation %d: %v\nplace: %d, options: %+v\nreplay: %s", at, err, place, opts, list(ops[:min(at+1, len(ops))]))
	}
}

// Goal: whatever is done to a store, it is the map that it says it is.
// Method: operations drawn from a seed go to a store, to a read-only handle that
// follows it, and to a Go map; the three are compared after each.
func TestModel(t *testing.T) {
	n := 60
	if testing.Short() {
		n = 5
	}
	for _, seed := range seeds(n) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			play(t, onDisk, modelOptions(seed), generate(newSource(seed), 200))
		})
	}
}

// Goal and method: as TestModel, the fuzzer being the one who draws.
func FuzzModel(f *testing.F) {
	for seed := range 8 {
		f.Add(valueOf(60+20*seed, seed))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		src := byteSource(b[1:])
		play(t, onDisk, modelOptions(int64(b[0])), generate(&src, 60))
	})
}

// Goal and method: as TestModel, of stores in memory: for themselves; followed; and shared by two.
func TestModelInMemory(t *testing.T) {
	for _, seed := range seeds(20) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			opts, ops := modelOptions(seed), generate(newSource(seed), 200)
			play(t, inMemory, opts, ops)
			if runtime.GOOS != "linux" {
				return // there is no opening again to write
			}
			play(t, handed, opts, ops)
			opts.Shared = true
			play(t, handed, opts, ops)
		})
	}
}

// Goal: what a model test once found stays found.
// Method: the lists that it printed.
func TestModelLists(t *testing.T) {
	for _, tc := range []struct {
		name string
		ops  []op
	}{
		{"past entry over a live one survives compaction as absent", []op{
			{Kind: opPut, Key: 7, Size: 100, Salt: 1}, {Kind: opPutPast, Key: 7, Size: 8, Salt: 2}, {Kind: opCompact, Key: 7}, {Kind: opReopen, Key: 7},
		}},
		{"clear, kill, write on", []op{
			{Kind: opPut, Key: 7, Size: 100, Salt: 1}, {Kind: opClear, Key: 7}, {Kind: opKill, Key: 7},
			{Kind: opPut, Key: 8, Size: 9, Salt: 3}, {Kind: opKill, Key: 8}, {Kind: opReopen, Key: 7},
		}},
		{"delete and put in one transaction", []op{
			{Kind: opPut, Key: 0, Size: 0, Salt: 1},
			{Kind: opTx, Sub: []op{{Kind: opDelete, Key: 0}, {Kind: opPut, Key: 0, Size: 1, Salt: 2}, {Kind: opDelete, Key: 0}}},
			{Kind: opKill, Key: 0},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) { play(t, onDisk, kv.Options{}, tc.ops) })
	}
}
