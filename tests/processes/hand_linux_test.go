package processes

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

// hand is one goroutine of a child that works on the store and tells of it.
type hand struct {
	p      *plan
	client int
	s      *kv.Store // nobody else's, or shared with the other hands of the process
	rng    *rand.Rand
	diary  diary
	n      int    // operations so far
	number uint64 // of the newest value

	last     [keyCount][]byte // values that it saw last
	newest   [keyCount]uint64 // revisions that it saw
	revision uint64           // of the store
}

// job is something that a hand can do, and how often it does.
type job struct {
	weight int
	do     func(h *hand) error
}

// reading and writing are the jobs of a follower and of a writer; alone are those of
// a writer that has its keys to itself.
var (
	reading = []job{{20, (*hand).get}, {4, (*hand).has}, {4, (*hand).getMany}, {8, (*hand).lookup}, {3, (*hand).scan}}
	writing = append([]job{
		{14, (*hand).put}, {6, (*hand).remove}, {8, (*hand).swap}, {8, (*hand).compute}, {14, (*hand).update},
		{1, (*hand).compact}, {2, (*hand).sync},
	}, reading...)
	alone    = []job{{10, (*hand).put}, {4, (*hand).remove}, {10, (*hand).updateMany}}
	clearing = append([]job{{1, (*hand).clear}}, writing...)
)

var jobsByName = map[string][]job{"read": reading, "write": writing, "clear": clearing, "alone": alone}

// live does jobs until quit, or as many as the plan says.
func (h *hand) live(quit <-chan struct{}) error {
	for h.p.Operations == 0 || h.n < h.p.Operations {
		select {
		case <-quit:
			return nil
		default:
		}
		if h.p.Climbs && h.rng.IntN(20) == 0 {
			if err := h.climb(); err != nil {
				return err
			}
		}
		if err := h.pick().do(h); err != nil {
			return err
		}
		if h.p.Pause > 0 && h.rng.IntN(2) == 0 {
			time.Sleep(time.Duration(h.rng.Int64N(int64(4 * h.p.Pause))))
		}
	}
	<-quit
	return nil
}

// pick draws a job.
func (h *hand) pick() job {
	jobs := jobsByName[h.p.Jobs]
	if h.p.Options.ReadOnly {
		jobs = reading
	}
	total := 0
	for _, j := range jobs {
		total += j.weight
	}
	n := h.rng.IntN(total)
	for _, j := range jobs {
		if n -= j.weight; n < 0 {
			return j
		}
	}
	panic("unreachable")
}

// climb makes a writer of a follower, or the other way round.
func (h *hand) climb() error {
	if err := h.s.Close(); err != nil {
		return err
	}
	h.p.Options.ReadOnly, h.p.Options.Shared = !h.p.Options.ReadOnly, !h.p.Options.Shared
	var err error
	h.s, err = openPatiently(h.p)
	return err
}

// openPatiently opens the store, if need be at the second attempt, or the tenth: who
// has the lock may have been stopped.
func openPatiently(p *plan) (*kv.Store, error) {
	for {
		s, err := kv.Open(p.Path, p.Options.all())
		if !errors.Is(err, kv.ErrLocked) {
			return s, err
		}
	}
}

// do runs an operation and tells of it, before and after. A write that is refused
// because another process has the lock is no failure.
func (h *hand) do(kind string, about []touch, run func(o *operation) error) error {
	h.n++
	o := operation{Client: h.client, N: h.n, Kind: kind, Begin: now(), Touches: about}
	h.diary.tell(&o)
	o.Begin = now()
	err := run(&o)
	o.End = now()
	if h.p.Options.Shared && len(about) > 0 && errors.Is(err, kv.ErrLocked) {
		o.Refused, err = err.Error(), nil
	}
	if err != nil {
		return fmt.Errorf("client %d, operation %d: %w", h.client, h.n, err)
	}
	h.diary.tell(&o)
	return nil
}

func (h *hand) key(k int) []byte { return keyName(h.p.Prefix, k) }

// fresh is a number that no other value has.
func (h *hand) fresh() uint64 {
	h.number++
	return uint64(h.client)<<32 | h.number
}

// value is the value of key k with a number; of those that vary one of many is so large
// that the file must grow.
func (h *hand) value(k int, number uint64) []byte {
	size := h.p.Size
	if size == 0 {
		size = h.rng.IntN(400)
		if h.rng.IntN(40) == 0 {
			size = h.rng.IntN(200 << 10)
		}
	}
	return valueOf(h.key(k), number, size)
}

// see is what a read of key k saw.
func (h *hand) see(k int, value []byte, ok bool) (touch, error) {
	t := touch{Key: k, See: is}
	h.last[k] = nil
	if !ok {
		return t, nil
	}
	var err error
	t.Seen, err = numberOf(h.key(k), value)
	h.last[k] = append([]byte{}, value...)
	return t, err
}

// seeing is see of what Get returned.
func (h *hand) seeing(k int, value []byte, err error) (touch, error) {
	if err != nil && err != kv.ErrNotFound {
		return touch{}, err
	}
	return h.see(k, value, err == nil)
}

func (h *hand) get() error {
	k := h.rng.IntN(keyCount)
	return h.do("get", nil, func(o *operation) error {
		if h.p.Fault == faultStale && h.last[k] != nil && h.rng.IntN(4) == 0 {
			number, err := numberOf(h.key(k), h.last[k])
			o.Touches = []touch{{Key: k, See: is, Seen: number}}
			return err
		}
		v, err := h.s.Get(h.key(k))
		t, err := h.seeing(k, v, err)
		o.Touches = []touch{t}
		return err
	})
}

func (h *hand) has() error {
	k := h.rng.IntN(keyCount)
	return h.do("has", nil, func(o *operation) error {
		ok, err := h.s.Has(h.key(k))
		t := touch{Key: k, See: is}
		if ok {
			t.See = isNot
		}
		o.Touches = []touch{t}
		return err
	})
}

func (h *hand) getMany() error {
	some := h.rng.Perm(keyCount)[:2+h.rng.IntN(4)]
	return h.do("getmany", nil, func(o *operation) error {
		keys := make([][]byte, len(some))
		for i, k := range some {
			keys[i] = h.key(k)
		}
		o.Apart = true
		return h.s.GetMany(keys, func(i int, v []byte, ok bool) error {
			t, err := h.see(some[i], v, ok)
			o.Touches = append(o.Touches, t)
			return err
		})
	})
}

// lookup also sees to it that neither the revision of a key nor that of the store
// goes back.
func (h *hand) lookup() error {
	k := h.rng.IntN(keyCount)
	return h.do("lookup", nil, func(o *operation) error {
		r, err := h.s.Lookup(h.key(k))
		t, err := h.seeing(k, r.Value, err)
		t.Revision = r.Revision
		o.Touches = []touch{t}
		if err == nil && t.Seen != 0 {
			if r.Revision < h.newest[k] {
				return fmt.Errorf("key %d went from revision %d to %d", k, h.newest[k], r.Revision)
			}
			h.newest[k] = r.Revision
		}
		revision := h.s.Stats().Revision
		if err == nil && revision < h.revision {
			return fmt.Errorf("the store went from revision %d to %d", h.revision, revision)
		}
		h.revision = revision
		return err
	})
}

// scan reads all by iteration, which is of one moment.
func (h *hand) scan() error {
	return h.do("scan", nil, func(o *operation) error {
		all, err := h.contents()
		for k := range keyCount {
			o.Touches = append(o.Touches, touch{Key: k, See: is, Seen: all[k]})
		}
		return err
	})
}

// contents returns what the store has.
func (h *hand) contents() (state, error) { return contents(h.s, h.p.Prefix) }

func contents(s *kv.Store, prefix string) (state, error) {
	keys := map[string]int{}
	for k := range keyCount {
		keys[string(keyName(prefix, k))] = k
	}
	all := state{}
	it := s.Iter([]byte(prefix))
	for key, v := range it.All() {
		number, err := numberOf(key, v)
		if err != nil {
			return nil, err
		}
		k, ok := keys[string(key)]
		if _, twice := all[k]; twice || !ok {
			return nil, fmt.Errorf("iteration yields key %q, which it should not, or twice", key)
		}
		all[k] = number
	}
	return all, it.Err()
}

func (h *hand) put() error {
	k, number := h.rng.IntN(keyCount), h.fresh()
	return h.do("put", []touch{{Key: k, Write: true, Put: number}}, func(*operation) error {
		if h.p.Fault == faultLost && h.rng.IntN(4) == 0 {
			return nil
		}
		if h.rng.IntN(30) == 0 {
			return h.s.PutDurable(h.key(k), h.value(k, number))
		}
		return h.s.Put(h.key(k), h.value(k, number))
	})
}

func (h *hand) remove() error {
	k := h.rng.IntN(keyCount)
	return h.do("delete", []touch{{Key: k, Write: true}}, func(*operation) error { return h.s.Delete(h.key(k)) })
}

// swap compares a key with what was seen of it last, and sets or removes it.
func (h *hand) swap() error {
	k, number := h.rng.IntN(keyCount), h.fresh()
	old, was := h.last[k], uint64(0)
	if old != nil {
		was, _ = numberOf(h.key(k), old)
	}
	fresh := h.value(k, number)
	if h.rng.IntN(5) == 0 {
		fresh, number = nil, 0
	}
	return h.do("swap", []touch{{Key: k, See: is, Seen: was, Write: true, Put: number}}, func(o *operation) error {
		swapped, err := h.s.CompareAndSwap(h.key(k), old, fresh)
		if err == nil && !swapped {
			o.Touches = []touch{{Key: k, See: isNot, Seen: was}}
		}
		return err
	})
}

func (h *hand) compute() error {
	k, number, op := h.rng.IntN(keyCount), h.fresh(), kv.Op(h.rng.IntN(3))
	if op != kv.Write {
		number = 0
	}
	return h.do("compute", []touch{{Key: k, Write: op != kv.Keep, Put: number}}, func(o *operation) error {
		var seen touch
		var wrong error
		err := h.s.Compute(h.key(k), func(old []byte, ok bool) ([]byte, kv.Op) {
			seen, wrong = h.see(k, old, ok)
			return h.value(k, number), op
		})
		seen.Write, seen.Put = op != kv.Keep, number
		o.Touches = []touch{seen}
		return errors.Join(err, wrong)
	})
}

var errAbandoned = errors.New("abandoned")

// update reads and writes both keys of a pair in a transaction, some of which are
// abandoned.
func (h *hand) update() error {
	k := 2 * h.rng.IntN(pairCount)
	about := []touch{{Key: k, Write: true, Put: h.fresh()}, {Key: k + 1, Write: true, Put: h.fresh()}}
	if h.rng.IntN(4) == 0 {
		about[h.rng.IntN(2)].Put = 0
	}
	abandon := h.rng.IntN(6) == 0
	kind := "update"
	if abandon {
		kind = "abandoned update"
		about[0].Write, about[1].Write = false, false
	}
	return h.do(kind, about, func(o *operation) error {
		o.Touches = make([]touch, 2)
		err := h.s.Update(func(tx *kv.Tx) error {
			for i, t := range about {
				v, err := tx.Get(h.key(t.Key))
				seen, err := h.seeing(t.Key, v, err)
				if err != nil {
					return err
				}
				seen.Write, seen.Put = t.Write, t.Put
				o.Touches[i] = seen
			}
			if abandon {
				// What is abandoned was to be written as well.
				return errors.Join(tx.Put(h.key(k), valueOf(h.key(k), h.fresh(), 0)), errAbandoned)
			}
			return h.write(tx, about)
		})
		if abandon && errors.Is(err, errAbandoned) {
			err = nil
		}
		return err
	})
}

// updateMany writes several keys in a transaction, some of many bytes, without a look
// at what was there.
func (h *hand) updateMany() error {
	var about []touch
	for _, k := range h.rng.Perm(keyCount)[:2+h.rng.IntN(keyCount-2)] {
		t := touch{Key: k, Write: true}
		if h.rng.IntN(4) > 0 {
			t.Put = h.fresh()
		}
		about = append(about, t)
	}
	return h.do("update", about, func(*operation) error {
		return h.s.Update(func(tx *kv.Tx) error { return h.write(tx, about) })
	})
}

// write does in a transaction what it is about to.
func (h *hand) write(tx *kv.Tx, about []touch) error {
	for i, t := range about {
		err := error(nil)
		switch {
		case t.Put == 0:
			err = tx.Delete(h.key(t.Key))
		case h.p.Fault == faultHalf && i > 0:
			// Nobody sees this one.
		default:
			err = tx.Put(h.key(t.Key), h.value(t.Key, t.Put))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (h *hand) clear() error {
	about := make([]touch, keyCount)
	for k := range about {
		about[k] = touch{Key: k, Write: true}
	}
	return h.do("clear", about, func(*operation) error { return h.s.Clear() })
}

// compact and sync change nothing, so that there is nothing to tell.
func (h *hand) compact() error {
	return h.unlessLocked(func() error { _, err := h.s.Compact(context.Background()); return err })
}

func (h *hand) sync() error { return h.unlessLocked(h.s.Sync) }

func (h *hand) unlessLocked(do func() error) error {
	if err := do(); err != nil && !errors.Is(err, kv.ErrLocked) {
		return err
	}
	return nil
}
