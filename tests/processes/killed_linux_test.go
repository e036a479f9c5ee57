package processes

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

// killedAtOnce is how many children write at the same time, each its own keys.
const killedAtOnce = 4

// survivor is what a test knows of the keys of one child after another.
type survivor struct {
	prefix string
	now    state
}

// settle takes in what a killed child told, and returns what is wrong with what the store has: it
// must have what was acknowledged, and of the last operation all or nothing.
func (v *survivor) settle(diary string, has state) (pending bool, err error) {
	told, err := readDiary(diary)
	if err != nil {
		return false, err
	}
	without := v.now
	for i := range told {
		o := &told[i]
		switch {
		case o.Refused != "":
			return false, fmt.Errorf("a write was refused: %s", o.Refused)
		case o.End == 0:
			pending = true
			without = maps.Clone(v.now)
		}
		v.now.apply(o)
	}
	if pending && differs(has, without) == "" {
		v.now = without
	}
	if d := differs(has, v.now); d != "" {
		return pending, fmt.Errorf("after %d operations, the last of which pending is %t, %s%s", len(told), pending, v.prefix, d)
	}
	return pending, nil
}

// killing is a store that children write, of whom all are killed.
type killing struct {
	lab            *lab
	rng            *rand.Rand
	peer, follower *kv.Store
	survivors      [killedAtOnce]survivor
	number         uint64 // of the peer's newest value
	pending        int    // kills within an operation
}

// Goal: a writer can be killed at any instruction, while it has the lock or waits for it: what
// it acknowledged is there, a transaction that it was in is there whole or not at all, and the
// others go on.
// Method: four children at a time write as fast as they can, each its own keys, and tell of it; they
// are killed one after the other at random moments. A peer writes as well, and then it and a
// follower must see each child's keys as they were told. So must who opens a copy of the file. In every
// other batch all records are of one length, so that what a dead writer left would fit
// behind the next record.
func TestKilled(t *testing.T) {
	l := newLab(t)
	k := &killing{
		lab: l, rng: rand.New(rand.NewPCG(*seedFlag, 2)),
		peer: open(t, l.path, &kv.Options{Shared: true, Durability: kv.SyncManual}), follower: open(t, l.path, &kv.Options{ReadOnly: true}),
	}
	for i := range k.survivors {
		k.survivors[i] = survivor{prefix: fmt.Sprint("child ", i, " "), now: state{}}
	}
	batches := rounds(25)
	for batch := range batches {
		k.batch(t, batch%2*(8<<10))
		if t.Failed() {
			t.Fatalf("in batch %d of seed %d", batch, *seedFlag)
		}
	}
	must(t, errors.Join(k.follower.Close(), k.peer.Close()))
	k.compare(t, "opened by itself", open(t, l.path, nil))
	t.Logf("%d kills, %d of them within an operation", batches*killedAtOnce, k.pending)
	if k.pending < batches {
		t.Errorf("of %d kills only %d were within an operation", batches*killedAtOnce, k.pending)
	}
}

// batch starts some children, whose values have a size, kills them, and looks at what is left.
func (k *killing) batch(t *testing.T, size int) {
	t.Helper()
	l := k.lab
	for i := range k.survivors {
		l.add(plan{
			Options: options{
				Shared: true, Durability: kv.Durability(k.rng.IntN(3)), CompactAt: []float64{-1, 0.2}[k.rng.IntN(2)], CheckpointBytes: 64 << 10,
			},
			Seed: *seedFlag, Prefix: k.survivors[i].prefix, Jobs: "alone", Hands: 1, Size: size,
		}).hear(t, "open")
	}
	for _, i := range k.rng.Perm(killedAtOnce) {
		time.Sleep(time.Duration(k.rng.IntN(10000)) * time.Microsecond)
		k.put(t, size)
		l.living[i].kill()
		k.put(t, size)
	}
	for i := range k.survivors {
		has, err := contents(k.peer, k.survivors[i].prefix)
		must(t, err)
		inIt, err := k.survivors[i].settle(diaryPath(l.diaries, l.living[i].plan.Number*maxHands), has)
		must(t, err)
		if inIt {
			k.pending++
		}
	}
	l.living = nil
	image := storePath(t)
	copyFile(t, l.path, image)
	k.compare(t, "the follower", k.follower)
	k.compare(t, "a copy", open(t, image, nil))
	must(t, sound(k.peer))
}

// put has the peer put something, which the follower must see.
func (k *killing) put(t *testing.T, size int) {
	t.Helper()
	k.number++
	key := []byte("the peer's") // as long as the children's keys
	value := valueOf(key, k.number, size)
	must(t, k.peer.Put(key, value))
	wantGet(t, k.follower, string(key), string(value))
}

// compare fails the test unless s has what is known, and is sound.
func (k *killing) compare(t *testing.T, name string, s *kv.Store) {
	t.Helper()
	for i := range k.survivors {
		has, err := contents(s, k.survivors[i].prefix)
		must(t, err)
		if d := differs(has, k.survivors[i].now); d != "" {
			t.Errorf("%s: %s%s", name, k.survivors[i].prefix, d)
		}
	}
	must(t, sound(s))
}
