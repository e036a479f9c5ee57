package main

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// Goal: each record is counted once, in the part that its time lies in; the parts follow one
// another, no more of them than there is room for, and JSON can name their times.
// Method: random times, near each other, jumping, and hostile ones, against a list of all.
func TestGrowth(t *testing.T) {
	hostile := []int64{math.MinInt64, -1 << 40, -1, 0, 1, latest - 1, latest, latest + 1, 1 << 60, math.MaxInt64}
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 2))
		var g growth
		written := map[int64]growthPart{} // by second
		now, total := rng.Int64N(2e9), growthPart{}
		for range rng.IntN(300) {
			switch rng.IntN(20) {
			case 0:
				now = rng.Int64N(2e9) // the clock was set
			case 1:
				now -= rng.Int64N(1 << rng.IntN(20))
			default:
				now += rng.Int64N(1 << rng.IntN(8))
			}
			at := now
			if seed%4 == 0 && rng.IntN(50) == 0 {
				at = hostile[rng.IntN(len(hostile))]
			}
			n := 1 + rng.Int64N(1000)
			g.add(time.Unix(at, 0), n)
			second := min(max(at, 0), latest)
			written[second] = growthPart{written[second].records + 1, written[second].bytes + n}
			total = growthPart{total.records + 1, total.bytes + n}
		}
		rows := g.rows()
		if len(rows) > growthMost || (len(rows) == 0) != (len(written) == 0) {
			t.Fatalf("seed %d: %d parts of %d seconds in which something was written", seed, len(rows), len(written))
		}
		if g.shift > 0 && len(rows) <= growthMost/2 {
			t.Errorf("seed %d: %d parts of %d s: folded too early", seed, len(rows), 1<<g.shift)
		}
		var got growthPart
		for i, r := range rows {
			if i > 0 && !r.From.Equal(rows[i-1].To) {
				t.Fatalf("seed %d: part %d begins at %v, and the one before ends at %v", seed, i, r.From, rows[i-1].To)
			}
			var want growthPart
			for second, p := range written {
				if r.From.Unix() <= second && (second < r.To.Unix() || second == latest && i == len(rows)-1) {
					want = growthPart{want.records + p.records, want.bytes + p.bytes}
				}
			}
			if (growthPart{r.Records, r.Bytes}) != want {
				t.Fatalf("seed %d: from %v %d records of %d bytes, want %+v", seed, r.From, r.Records, r.Bytes, want)
			}
			got = growthPart{got.records + r.Records, got.bytes + r.Bytes}
		}
		if got != total {
			t.Fatalf("seed %d: %+v in all, want %+v", seed, got, total)
		}
		if _, err := json.Marshal(rows); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}
