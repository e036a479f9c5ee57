//go:build amd64 || arm64

package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// picture is what a power cut left, and what is known of the work at that moment.
type picture struct {
	*cut
	ledger *ledger
}

// take cuts the power. What is durable is read before it, and what was attempted
// after it: between the two it can be either.
func take(d *device, l *ledger, rng *rand.Rand) *picture {
	l.catchUp()
	before := l.clone()
	c := d.power(rng, oneOf(rng, modes...))
	l.catchUp()
	after := l.clone()
	after.Created = before.Created
	for w := range after.Accounts {
		after.Accounts[w].Kept = before.Accounts[w].Kept
	}
	return &picture{c, after}
}

// keep saves the picture to where it outlives the test, for -image.
func (p *picture) keep() (path string, err error) {
	dir, err := os.MkdirTemp("", "mmapkv-kept")
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "image")
	b, err := json.Marshal(p.ledger)
	return path, errors.Join(err, p.Image.save(path), os.WriteFile(path+".json", b, 0o600))
}

// finding is what a check found wrong.
type finding struct {
	*picture // nil: no cut was taken
	error
}

// trial cuts the power of stores at work on one kind of file system.
type trial struct {
	t       *testing.T
	shelf   *shelf
	kind    *fileSystem
	seed    uint64
	rng     *rand.Rand
	empty   *image
	forgets int // see fault: the device at work lies

	runs, cuts, again, unmountable int
	writes, kept                   int // known at the cuts; durable ones among them
	lost                           int // writes of devices that cuts left out
	modes                          map[string]int
}

func newTrial(t *testing.T, kind *fileSystem, seed uint64) *trial {
	return &trial{
		t: t, shelf: newShelf(t), kind: kind, seed: seed, rng: rand.New(rand.NewPCG(seed, uint64(kind.size))),
		empty: kind.format(t), modes: map[string]int{},
	}
}

// cutAtLeast cuts the power n times, or a few more, and checks what is left, until
// something is found.
func (r *trial) cutAtLeast(n int) *finding {
	var from *picture // where the next run begins; nil: with no store
	for r.cuts < n {
		pictures, err := r.work(from)
		r.runs++
		if err != nil {
			return &finding{nil, fmt.Errorf("run %d: %w", r.runs, err)}
		}
		from = nil
		first := len(pictures)
		for i := 0; i < len(pictures); i++ {
			p := pictures[i]
			second, err := r.check(p, i < first)
			r.cuts++
			r.modes[p.Mode]++
			r.lost += len(p.Lost)
			for _, a := range p.ledger.Accounts {
				r.writes, r.kept = r.writes+len(a.Ops), r.kept+a.Kept
			}
			var refused mountError
			switch {
			case errors.As(err, &refused) && r.forgets > 0:
				r.unmountable++ // a device that lies may cost the file system its life
				continue
			case err != nil:
				return &finding{p, fmt.Errorf("run %d: %w", r.runs, err)}
			case second != nil:
				r.again++
				pictures = append(pictures, second)
			}
			if r.rng.IntN(3) == 0 {
				from = p
			}
		}
	}
	return nil
}

// requestLimit is the longest that a store at work goes without a request to its
// device.
const requestLimit = time.Minute

// work has a store worked on, and cuts the power at some of the device's requests.
// Now and then the child is killed meanwhile and another goes on, so that recovery
// meets what only the page cache has.
func (r *trial) work(from *picture) (pictures []*picture, err error) {
	disk, l := r.empty, newLedger()
	if from != nil {
		disk, l = from.Image, from.ledger.clone()
	}
	d := newDevice(disk, r.kind.whole)
	d.setFault(fault{Forgets: r.forgets, Honest: r.rng.IntN(80)})
	m := r.shelf.plug(r.t, d)
	defer func() { err = errors.Join(err, m.unplug()) }()
	// The first cut may come while the store is being created, or recovered.
	c := r.arm(d, l)
	if err := m.mount(r.kind, oneOf(r.rng, "", "discard")); err != nil {
		return nil, err
	}
	for lives := 1 + r.rng.IntN(3); lives > 0; lives-- {
		s, err := start(l, "work", storePath(m.dir), fmt.Sprint(l.next()), fmt.Sprint(r.rng.Uint64()))
		if err != nil {
			return pictures, err
		}
		select {
		case <-c.done:
		case <-s.ended:
			err = errors.New("the child ended by itself")
		case <-time.After(requestLimit):
			err = fmt.Errorf("no request came in %v", requestLimit)
		}
		if err == nil && r.rng.IntN(2) == 0 {
			s.stop.Close()
			err = s.finish()
		} else {
			err = errors.Join(err, s.kill())
			l.died()
		}
		d.quiet()
		pictures = append(pictures, c.pictures...)
		if err != nil {
			return pictures, err
		}
		c = r.arm(d, l)
	}
	d.quiet()
	if r.rng.IntN(3) == 0 {
		pictures = append(pictures, take(d, l, r.rng)) // all that was closed is durable
	}
	return pictures, nil
}

// cutter cuts the power at some requests, one after another.
type cutter struct {
	pictures []*picture // to be read when done is closed, or the device is quiet
	done     chan struct{}
}

func (r *trial) arm(d *device, l *ledger) *cutter {
	rng := rand.New(rand.NewPCG(r.rng.Uint64(), 0)) // of the hook, which runs beside
	c := &cutter{done: make(chan struct{})}
	left := 1 + rng.IntN(3)
	var next func()
	hook := func() {
		c.pictures = append(c.pictures, take(d, l, rng))
		if left--; left > 0 {
			next()
		} else {
			close(c.done)
		}
	}
	next = func() { d.after(rng.IntN(oneOf(rng, 10, 60, 400)), rng.IntN(3) > 0, hook) }
	next()
	return c
}

// check mounts what a cut has left and has a child look at the store there. Where
// it may, it cuts the power once more meanwhile, now and then.
func (r *trial) check(p *picture, mayCut bool) (again *picture, err error) {
	l := p.ledger.clone()
	d := newDevice(p.Image, r.kind.whole)
	m := r.shelf.plug(r.t, d)
	defer func() { err = errors.Join(err, m.unplug()) }()
	if mayCut && r.rng.IntN(2) == 0 {
		rng := rand.New(rand.NewPCG(r.rng.Uint64(), 1))
		d.after(rng.IntN(60), rng.IntN(3) > 0, func() { again = take(d, l, rng) })
	}
	if err := m.mount(r.kind, ""); err != nil {
		return nil, err
	}
	s, err := start(l, "look", storePath(m.dir), fmt.Sprint(l.next()))
	if err != nil {
		return nil, err
	}
	err = s.finish()
	d.quiet()
	return again, err
}

func (r *trial) String() string {
	return fmt.Sprintf("seed %d: %d power cuts, %d of them during recovery, in %d runs; %d requests left out; %d writes, %d of them durable; by mode: %v",
		r.seed, r.cuts, r.again, r.runs, r.lost, r.writes, r.kept, r.modes)
}

// report fails the test with what was found.
func (r *trial) report(f *finding) {
	r.t.Helper()
	if f.picture == nil {
		r.t.Fatalf("seed %d, %d cuts: %v", r.seed, r.cuts, f.error)
	}
	path, err := f.keep()
	r.t.Fatalf("seed %d, cut %d: %v\n%v\nknown at the cut:\n%s\nThe image is kept (%v): go test ./tests/device -run PowerCutDevice/%s -image %s",
		r.seed, r.cuts, f.error, f.cut, f.ledger.tell(), err, r.kind.name, path)
}

// Goal: what was acknowledged as durable is there after a power cut, on real file
// systems, and all that DESIGN.md promises of it.
// Method: a device whose power can be cut lies under a file system, on which a
// child works on a store with several goroutines and tells what it attempts and what
// was acknowledged. At some of the device's requests the power is cut: any part of
// the writes since the last flush is left out. What remains is mounted, so that the
// file system recovers, and then the store; another child looks at it, writes on
// and looks again. Now and then the power is cut during that, too, or the next
// work goes on from there.
//
// The seed decides on the work and on the cuts, but not on what the kernel writes
// when: a failure is not sure to come again with its seed. The image that it keeps
// is, with -image.
func TestPowerCutDevice(t *testing.T) {
	for i := range fileSystems {
		kind := &fileSystems[i]
		t.Run(kind.name, func(t *testing.T) {
			r := newTrial(t, kind, *seedFlag)
			if *imageFlag != "" {
				r.replay(*imageFlag)
				return
			}
			if f := r.cutAtLeast(*cutsFlag); f != nil {
				r.report(f)
			}
			t.Log(r)
			if r.kept == 0 {
				t.Error("nothing was durable at any cut: nothing was tested")
			}
		})
	}
}

// replay checks an image that a failure kept.
func (r *trial) replay(path string) {
	disk, err := loadImage(path)
	if err != nil {
		r.t.Fatal(err)
	}
	b, err := os.ReadFile(path + ".json")
	l := newLedger()
	if err = errors.Join(err, json.Unmarshal(b, l)); err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.check(&picture{&cut{Image: disk}, l}, false); err != nil {
		r.t.Fatalf("%v\nknown at the cut:\n%s", err, l.tell())
	}
}
