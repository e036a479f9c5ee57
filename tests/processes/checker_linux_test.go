package processes

import (
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// pairState is what a pair has: the numbers of its values.
type pairState [2]uint64

// step does o, of a pair, to s, and tells whether what o saw is so. What is pending
// has seen nothing, and happens, if at all, on what it finds.
func (s pairState) step(o *operation) (pairState, bool) {
	next := s
	for _, t := range o.Touches {
		has := s[t.Key%2]
		if t.See == is && has != t.Seen || t.See == isNot && has == t.Seen {
			return s, o.End == 0
		}
		if t.Write {
			next[t.Key%2] = t.Put
		}
	}
	return next, true
}

// model is what a pair does when one operation happens after the other.
var model = porcupine.Model{
	Init: func() any { return pairState{} },
	Step: func(s, in, _ any) (bool, any) {
		next, ok := s.(pairState).step(in.(*operation))
		return ok, next
	},
	Hash:              func(s any) uint64 { return maphash.Comparable(hashSeed, s.(pairState)) },
	DescribeOperation: func(in, _ any) string { return describe(in.(*operation)) },
}

var hashSeed = maphash.MakeSeed()

func describe(o *operation) string {
	text := o.Kind
	for _, t := range o.Touches {
		text += fmt.Sprintf(" %d:", t.Key)
		switch t.See {
		case is:
			text += fmt.Sprintf(" is %x", t.Seen)
		case isNot:
			text += fmt.Sprintf(" is not %x", t.Seen)
		}
		if t.Write {
			text += fmt.Sprintf(" put %x", t.Put)
		}
	}
	return text
}

// partition sorts the operations by pairs, as the checker takes them. Pairs are
// checked by themselves: a history is linearizable if that of each object is. What was refused has
// not happened, and what was read by who was killed nobody knows.
func partition(all []operation) [pairCount][]porcupine.Operation {
	var parts [pairCount][]porcupine.Operation
	for i := range all {
		o := &all[i]
		if o.Refused != "" || o.End == 0 && !o.writes() {
			continue
		}
		var pieces []*operation
		at := map[int]*operation{}
		for _, t := range o.Touches {
			piece := at[t.Key/2]
			if piece == nil || o.Apart {
				copied := *o
				copied.Touches = nil
				piece = &copied
				at[t.Key/2], pieces = piece, append(pieces, piece)
			}
			piece.Touches = append(piece.Touches, t)
		}
		for _, piece := range pieces {
			end := o.End
			if end == 0 {
				end = math.MaxInt64
			}
			p := piece.Touches[0].Key / 2
			parts[p] = append(parts[p], porcupine.Operation{ClientId: o.Client, Input: piece, Call: o.Begin, Return: end})
		}
	}
	return parts
}

// checkTime is how long the checker may think about one pair. It needs some
// milliseconds; what it could not decide is a failure.
const checkTime = time.Minute

// check returns why the operations cannot have happened one after the other, each at
// some moment between its begin and its end; what is pending at any later moment, or
// never. A picture of such a history goes to the file named, if one is.
func check(all []operation, picture string) error {
	for p, part := range partition(all) {
		switch result := porcupine.CheckOperationsTimeout(model, part, checkTime); result {
		case porcupine.Ok:
		case porcupine.Illegal:
			err := fmt.Errorf("keys %d and %d: %d operations are not linearizable", 2*p, 2*p+1, len(part))
			if picture != "" {
				_, info := porcupine.CheckOperationsVerbose(model, part, checkTime)
				err = errors.Join(err, porcupine.VisualizePath(model, info, picture))
			}
			return err
		default:
			return fmt.Errorf("keys %d and %d: of %d operations it could not be decided in %v: %s", 2*p, 2*p+1, len(part), checkTime, result)
		}
	}
	return nil
}

// checkNumbers returns why the operations cannot be true whatever their order: somebody read a
// value that nobody wrote, or two revisions of one value.
func checkNumbers(all []operation) error {
	written := map[uint64]bool{0: true}
	for i := range all {
		for _, t := range all[i].Touches {
			if t.Write && all[i].Refused == "" {
				written[t.Put] = true
			}
		}
	}
	revisions := map[uint64]uint64{}
	for i := range all {
		o := &all[i]
		for _, t := range o.Touches {
			if o.End != 0 && t.See == is && !written[t.Seen] {
				return fmt.Errorf("client %d saw a value that nobody wrote, or whose write was refused: %s", o.Client, describe(o))
			}
			if t.Revision == 0 {
				continue
			}
			if was := revisions[t.Seen]; was != 0 && was != t.Revision {
				return fmt.Errorf("value %x of key %d has revision %d, and had %d", t.Seen, t.Key, t.Revision, was)
			}
			revisions[t.Seen] = t.Revision
		}
	}
	return nil
}

// Goal: the checker finds what it is there to find, and nothing else.
// Method: histories made by hand, with the verdict on each.
func TestChecker(t *testing.T) {
	at := func(begin, end int64, touches ...touch) operation {
		return operation{Kind: "test", Begin: begin, End: end, Touches: touches}
	}
	put := func(k int, v uint64) touch { return touch{Key: k, Write: true, Put: v} }
	see := func(k int, v uint64) touch { return touch{Key: k, See: is, Seen: v} }
	not := func(k int, v uint64) touch { return touch{Key: k, See: isNot, Seen: v} }
	swap := func(k int, old, new uint64) touch { return touch{Key: k, See: is, Seen: old, Write: true, Put: new} }
	refused := func(o operation) operation { o.Refused = "locked"; return o }
	apart := func(o operation) operation { o.Apart = true; return o }
	rev := func(t touch, r uint64) touch { t.Revision = r; return t }
	for _, tc := range []struct {
		name string
		ok   bool
		ops  []operation
	}{
		{"one after the other", true, []operation{at(1, 2, put(0, 7)), at(3, 4, see(0, 7)), at(5, 6, put(0, 0)), at(7, 8, see(0, 0))}},
		{"a stale read", false, []operation{at(1, 2, put(0, 7)), at(3, 4, put(0, 8)), at(5, 6, see(0, 7))}},
		{"an old read, beside the write", true, []operation{at(1, 2, put(0, 7)), at(3, 6, put(0, 8)), at(4, 5, see(0, 7))}},
		{"new, then old, beside the write", false, []operation{at(1, 2, put(0, 7)), at(3, 9, put(0, 8)), at(4, 5, see(0, 8)), at(6, 7, see(0, 7))}},
		{"a lost write", false, []operation{at(1, 2, put(0, 7)), at(3, 4, see(0, 0))}},
		{"a deleted value is back", false, []operation{at(1, 2, put(0, 7)), at(3, 4, put(0, 0)), at(5, 6, see(0, 7))}},
		{"killed, and seen", true, []operation{at(1, 0, put(0, 7)), at(3, 4, see(0, 0)), at(5, 6, see(0, 7))}},
		{"killed, and not seen", true, []operation{at(1, 0, put(0, 7)), at(3, 4, see(0, 0)), at(5, 6, put(0, 8)), at(7, 8, see(0, 8))}},
		{"killed, seen, and undone", false, []operation{at(1, 0, put(0, 7)), at(3, 4, see(0, 7)), at(5, 6, see(0, 0))}},
		{"killed, and seen before it began", false, []operation{at(5, 0, put(0, 7)), at(3, 4, see(0, 7))}},
		{"refused, and not seen", true, []operation{refused(at(1, 2, put(0, 7))), at(3, 4, see(0, 0))}},
		{"refused, and seen", false, []operation{refused(at(1, 2, put(0, 7))), at(3, 4, see(0, 7))}},
		{"written by nobody", false, []operation{at(3, 4, see(0, 7))}},
		{"a transaction", true, []operation{at(1, 2, put(0, 7), put(1, 8)), at(3, 4, see(0, 7), see(1, 8))}},
		{"half of a transaction", false, []operation{at(1, 4, put(0, 7), put(1, 8)), at(2, 3, see(0, 7), see(1, 0))}},
		{"half of one that was killed", false, []operation{at(1, 0, put(0, 7), put(1, 8)), at(2, 3, see(0, 7)), at(4, 5, see(1, 0))}},
		{"two reads are no snapshot", true, []operation{at(1, 9, put(0, 7), put(1, 8)), apart(at(2, 3, see(0, 0), see(1, 8)))}},
		{"one swap", true, []operation{at(1, 2, put(0, 7)), at(3, 6, swap(0, 7, 8)), at(3, 6, not(0, 7)), at(7, 8, see(0, 8))}},
		{"two swaps of one value", false, []operation{at(1, 2, put(0, 7)), at(3, 6, swap(0, 7, 8)), at(3, 6, swap(0, 7, 9))}},
		{"a swap that should have been", false, []operation{at(1, 2, put(0, 7)), at(3, 4, not(0, 7))}},
		{"a killed swap that did not fit", true, []operation{at(1, 2, put(0, 7)), at(3, 0, swap(0, 6, 8)), at(4, 5, see(0, 7))}},
		{"a killed swap that did not fit was made", false, []operation{at(1, 2, put(0, 7)), at(3, 0, swap(0, 6, 8)), at(4, 5, see(0, 8))}},
		{"a clear leaves something", false, []operation{at(1, 2, put(2, 7)), at(3, 4, put(0, 0), put(1, 0), put(2, 0), put(3, 0)), at(5, 6, see(2, 7))}},
		{"two revisions of a value", false, []operation{at(1, 2, put(0, 7)), at(3, 4, rev(see(0, 7), 1)), at(5, 6, rev(see(0, 7), 2))}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := check(tc.ops, "")
			if err == nil {
				err = checkNumbers(tc.ops)
			}
			if (err == nil) != tc.ok {
				t.Errorf("the verdict is %v", err)
			}
		})
	}
}
