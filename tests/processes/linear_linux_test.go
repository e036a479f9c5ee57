package processes

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

// round is one store, worked on for a while.
type round struct {
	seed    uint64
	rng     *rand.Rand
	lab     *lab
	fault   string
	kills   int
	stops   int
	history []operation
}

const (
	writers   = 8
	followers = 8
)

// kinds are what differs from round to round.
var kinds = []struct {
	jobs    string
	pause   time.Duration
	options options
}{
	{"write", 100 * time.Microsecond, options{Durability: kv.SyncManual}},
	{"write", time.Millisecond, options{SyncEvery: 5 * time.Millisecond, CompactAt: 0.2, CheckpointBytes: 64 << 10}},
	{"clear", 100 * time.Microsecond, options{Durability: kv.SyncManual, CompactAt: -1, CheckpointBytes: 16 << 10}},
	{"write", time.Millisecond, options{Durability: kv.SyncAlways, CheckpointBytes: -1}},
	{"clear", 500 * time.Microsecond, options{SyncEvery: time.Millisecond, VerifyReads: true}},
}

// plan is what the processes of a round have in common.
func (r *round) plan(options options) plan {
	return plan{
		Options: options, Seed: r.seed, Prefix: "key", Operations: 1000 * *scaleFlag,
		Pause: kinds[int(r.seed)%len(kinds)].pause, Fault: r.fault,
	}
}

// writer is the plan of the n-th writer.
func (r *round) writer(n int) plan {
	kind := kinds[int(r.seed)%len(kinds)]
	p := r.plan(kind.options)
	p.Options.Shared, p.Jobs, p.Hands = true, kind.jobs, 1+n%3
	switch n % 4 {
	case 1:
		p.Handles = true
	case 2:
		p.Options.LockTimeout = 20 * time.Millisecond // some writes are refused
	case 3:
		p.Hands, p.Climbs = 1, true
	}
	return p
}

// follower is the plan of the n-th follower.
func (r *round) follower(n int) plan {
	p := r.plan(options{ReadOnly: true, VerifyReads: n%4 == 1})
	p.Hands, p.Handles = 1+n%2, n%4 == 3
	return p
}

// run works on a store for a while, and notes what was done.
func (r *round) run(t *testing.T, d time.Duration) {
	t.Helper()
	r.rng, r.lab = rand.New(rand.NewPCG(r.seed, 1)), newLab(t)
	must(t, open(t, r.lab.path, nil).Close())
	for n := range writers {
		r.lab.add(r.writer(n))
	}
	for n := range followers {
		r.lab.add(r.follower(n))
	}
	for _, c := range r.lab.living {
		c.hear(t, "open")
	}
	for begin := time.Now(); time.Since(begin) < d; {
		r.disturb()
	}
	seen := r.lab.finish()
	r.history = r.lab.operations()
	r.last(t, seen)
}

// disturb kills a process, and starts another of its kind, or stops one for a while.
func (r *round) disturb() {
	l := r.lab
	l.t.Helper()
	time.Sleep(time.Duration(r.rng.IntN(150)) * time.Millisecond)
	i := r.rng.IntN(len(l.living))
	c := l.living[i]
	if r.rng.IntN(3) > 0 {
		l.pause(c, time.Duration(r.rng.IntN(40))*time.Millisecond)
		r.stops++
		return
	}
	c.kill()
	r.kills++
	l.living = slices.Delete(l.living, i, i+1)
	l.add(c.plan).hear(l.t, "open")
}

// last opens the store by itself, when all have ended, and notes that as the last
// operation.
func (r *round) last(t *testing.T, seen state) {
	t.Helper()
	image := storePath(t)
	copyFile(t, r.lab.path, image)
	for _, path := range []string{r.lab.path, image} {
		s := open(t, path, nil)
		all, err := contents(s, "key")
		must(t, errors.Join(err, sound(s)))
		if d := differs(all, seen); d != "" {
			t.Errorf("opened by itself, not as the last processes saw it: %s", d)
		}
		o := operation{Kind: "last", Begin: now(), End: now()}
		for k := range keyCount {
			o.Touches = append(o.Touches, touch{Key: k, See: is, Seen: all[k]})
		}
		r.history = append(r.history, o)
		must(t, s.Close())
	}
	if beside, err := filepath.Glob(r.lab.path + "?*"); err != nil || len(slices.DeleteFunc(beside, isCheckpoint)) > 0 {
		t.Errorf("beside the store lies what the dead left: %v %v", beside, err)
	}
}

// isCheckpoint tells whether a file is one that may lie beside a store.
func isCheckpoint(path string) bool { return filepath.Ext(path) == ".mmapkv-index" }

// verdict returns why the history cannot be, with a picture of it, if one is named.
func (r *round) verdict(picture string) error {
	if err := checkNumbers(r.history); err != nil {
		return err
	}
	return check(r.history, picture)
}

// count is how many operations of each kind were done, were refused and are pending.
func (r *round) count() map[string]int {
	n := map[string]int{}
	for i := range r.history {
		switch o := &r.history[i]; {
		case o.Refused != "":
			n["refused"]++
		case o.End == 0:
			n["pending"]++
		default:
			n[o.Kind]++
		}
	}
	return n
}

// refusals returns what is wrong with the errors of the writes that were refused: each
// names one of the processes, or none, if the turn was between two of them.
func (r *round) refusals() error {
	for i := range r.history {
		text := r.history[i].Refused
		if text == "" {
			continue
		}
		named := strings.HasSuffix(text, "by another process")
		for pid := range r.lab.pids {
			named = named || names(text, pid)
		}
		if !named {
			return fmt.Errorf("a refusal names none of the processes: %s", text)
		}
	}
	return nil
}

// Goal: to all processes that write one store, and all that follow it, it is as if
// every operation happened at one moment between its call and its return, whatever grows,
// compacts, clears, is killed or stopped meanwhile.
// Method: 8 processes write and 8 follow, some with several goroutines, some with
// several handles, some by turns. Each writes down what it does, with the machine's time, before
// and after. Some are killed, and others come in their place; some are stopped for a while. When all
// rest they must agree, and so must who opens the store by itself, and a copy of it; and the
// history of each pair of keys must be linearizable, as porcupine tells.
func TestLinearizable(t *testing.T) {
	for i := range rounds(5) {
		r := round{seed: *seedFlag + uint64(i)}
		t.Run(fmt.Sprint("seed=", r.seed), func(t *testing.T) {
			r.run(t, 1200*time.Millisecond*time.Duration(*scaleFlag))
			must(t, r.refusals())
			must(t, r.verdict(filepath.Join(r.lab.diaries, "picture.html")))
			n := r.count()
			t.Logf("%d kills, %d stops; %v", r.kills, r.stops, n)
			for _, kind := range []string{"get", "scan", "put", "swap", "update"} {
				if n[kind] == 0 {
					t.Errorf("nobody did a %s", kind)
				}
			}
		})
	}
}

// Goal: the round finds what it is there to find.
// Method: each process has a fault; the history must be refused.
func TestLinearizableCatches(t *testing.T) {
	for _, fault := range []string{faultStale, faultLost, faultHalf} {
		t.Run(fault, func(t *testing.T) {
			r := round{seed: *seedFlag, fault: fault}
			r.run(t, 300*time.Millisecond)
			if err := r.verdict(""); err == nil {
				t.Errorf("%d operations of processes with a fault were found to be linearizable", len(r.history))
			}
		})
	}
}

// copyFile copies the bytes of a file to a new one: of a store that is quiet, what a
// death of all its processes would leave.
func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, b, 0o600))
}

// differs tells in what got is not want, or returns "".
func differs(got, want state) string {
	for k := range keyCount {
		if got[k] != want[k] {
			return fmt.Sprintf("key %d has %x, want %x", k, got[k], want[k])
		}
	}
	return ""
}
