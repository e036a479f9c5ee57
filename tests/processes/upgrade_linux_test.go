package processes

import (
	"fmt"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

// Goal: who follows a store can become one of its writers, and back, while others
// write, and nothing that it or they wrote is lost; when all writers have died, a follower
// can become the only one.
// Method: two children write, and one of them dies, while this process is a follower and a
// writer by turns, and puts a key each time. At last it is the only one.
func TestUpgrade(t *testing.T) {
	l := newLab(t)
	must(t, open(t, l.path, nil).Close())
	p := plan{Options: options{Shared: true, CompactAt: 0.2}, Seed: *seedFlag, Prefix: "key", Jobs: "write", Hands: 2}
	l.add(p).hear(t, "open")
	l.add(p).hear(t, "open")
	written := 0
	wantAll := func(s *kv.Store) {
		t.Helper()
		for i := range written {
			wantGet(t, s, fmt.Sprint("mine ", i), fmt.Sprint(i))
		}
	}
	turn := func(opts kv.Options) {
		t.Helper()
		s := open(t, l.path, &opts)
		wantAll(s)
		if !opts.ReadOnly {
			must(t, s.Put(fmt.Append(nil, "mine ", written), fmt.Append(nil, written)))
			written++
			wantAll(s)
		}
		must(t, s.Close())
	}
	turns := 100 * *scaleFlag
	for i := range turns {
		turn(kv.Options{ReadOnly: true})
		turn(kv.Options{Shared: true})
		switch i {
		case turns / 3:
			l.living[0].kill()
		case turns / 2: // while this one is stopped it may have the lock
			l.pause(l.living[1], 20*time.Millisecond)
		}
	}
	follower := open(t, l.path, &kv.Options{ReadOnly: true})
	wantAll(follower)
	l.living[1].kill()
	has, err := contents(follower, "key")
	must(t, err)
	must(t, follower.Close())
	for _, opts := range []kv.Options{{Shared: true}, {}, {Shared: true}, {}} {
		turn(opts)
		s := open(t, l.path, &opts)
		now, err := contents(s, "key")
		must(t, err)
		if d := differs(now, has); d != "" {
			t.Errorf("not what the follower saw: %s", d)
		}
		must(t, sound(s))
		must(t, s.Close())
	}
	if err := checkNumbers(l.operations()); err != nil {
		t.Error(err)
	}
}
