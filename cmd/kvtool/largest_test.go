package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/mmapkv/mmapkv/kv"
)

// Goal: the largest records, in descending order, the earlier first among equals,
// with keys of their own. Method: against a stable sort of all of them.
func TestLargest(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 2))
		l := largest{most: 10}
		var all []kv.Record
		var lent [8]byte
		for i := range rng.IntN(40) {
			r := kv.Record{Off: int64(i), Len: rng.Int64N(12), Key: fmt.Appendf(lent[:0], "%d", i)}
			l.add(&r)
			all = append(all, r)
		}
		clear(lent[:])
		slices.SortStableFunc(all, func(a, b kv.Record) int { return int(b.Len - a.Len) })
		all = all[:min(len(all), l.most)]
		if len(l.rows) != len(all) {
			t.Fatalf("seed %d: %d records, want %d", seed, len(l.rows), len(all))
		}
		for i, row := range l.rows {
			if row.off != all[i].Off || row.recordBytes != all[i].Len || string(row.key) != fmt.Sprint(row.off) {
				t.Fatalf("seed %d: place %d has %+v, want %+v", seed, i, row, all[i])
			}
		}
	}
}
