package kv

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

var (
	cutsFlag = flag.Int("cuts", 300, "power cuts to try in TestPowerCut; the run of a seed that was begun is ended")
	seedFlag = flag.Uint64("seed", 1, "the seed that TestPowerCut and TestFailures begin with; with -cuts 1 it is the only one")
)

// Goal: the contract of DESIGN.md, section 1, for power cuts at any moment, also
// during recovery, and for power cuts after the process was killed. Method: random
// work on a disk that knows what a cut may leave; at random moments of it, in the
// midst of what the store asks of the disk, a cut's image is opened elsewhere and
// compared with a model. In a quarter of the runs several handles share the store
// (see crew).
func TestPowerCut(t *testing.T) {
	p := &powerLab{dir: t.TempDir()}
	seed := *seedFlag
	for ; p.cuts < *cutsFlag; seed++ {
		if err := p.run(seed); err != nil {
			t.Fatal(keepImage(t, err))
		}
	}
	t.Logf("%d images, seeds %d to %d; %d stores were opened, %d of them by a checkpoint; %d handles beside others, %d of all died, %d of them in an append",
		p.cuts, *seedFlag, seed-1, p.opens, p.resumed, p.joined, p.died, p.appending)
	if p.resumed == 0 {
		t.Error("no store was opened by a checkpoint")
	}
}

// keepImage leaves the image of a failure where it can be looked at.
func keepImage(t *testing.T, err error) error {
	var bad *cutError
	if !errors.As(err, &bad) || bad.image == nil {
		return err
	}
	dir, mkErr := os.MkdirTemp("", "powercut-*")
	if mkErr == nil {
		mkErr = bad.image.write(dir)
	}
	if mkErr != nil {
		t.Log(mkErr)
	}
	return fmt.Errorf("%w\nimage kept in %s", err, dir)
}

// Goal: the laboratory finds what it is there to find. Method: disks that do not
// do as they are told, each of which breaks the contract for one reason.
func TestPowerCutCatches(t *testing.T) {
	for _, lie := range diskLies {
		t.Run(lie.name, func(t *testing.T) {
			p := &powerLab{dir: t.TempDir(), lie: lie.tell}
			for seed := uint64(1); seed <= lieSeeds; seed++ {
				if err := p.run(seed); err != nil {
					var bad *cutError
					if !errors.As(err, &bad) {
						t.Fatal(err)
					}
					t.Logf("caught by seed %d, image %d: %s, %v", seed, p.cuts, bad.where, bad.err)
					return
				}
			}
			t.Errorf("not caught by %d seeds, %d images", lieSeeds, p.cuts)
		})
	}
}

// lieSeeds bounds the seeds in which a lie must be caught.
const lieSeeds = 100

// Goal: a seed replays. Method: the cuts of one, twice.
func TestPowerCutReplays(t *testing.T) {
	var traces [2][]string
	for i := range traces {
		p := &powerLab{dir: t.TempDir()}
		for seed := uint64(100); seed < 104; seed++ {
			if err := p.run(seed); err != nil {
				t.Fatal(keepImage(t, err))
			}
			traces[i] = append(traces[i], p.trace...)
		}
	}
	if len(traces[0]) == 0 {
		t.Fatal("no cuts")
	}
	for i, cut := range traces[0] {
		if i >= len(traces[1]) || traces[1][i] != cut {
			t.Fatalf("cut %d of %d was\n%s\nand is now, of %d, %q", i, len(traces[0]), cut, len(traces[1]), traces[1][min(i, len(traces[1])):min(i+1, len(traces[1]))])
		}
	}
}

// diskLies are faults of the disk, or of how it is used.
var diskLies = []struct {
	name string
	tell func(d *powerDisk) *lyingDisk
}{
	{"Sync does nothing", func(d *powerDisk) *lyingDisk {
		return &lyingDisk{powerDisk: d, sync: func(*powerFile, int64, int64) error { return nil }}
	}},
	{"Sync of the first page only", func(d *powerDisk) *lyingDisk {
		return &lyingDisk{powerDisk: d, sync: func(f *powerFile, off, n int64) error { return f.Sync(off, min(n, pageSize-off%pageSize)) }}
	}},
	{"Sync without the first page", func(d *powerDisk) *lyingDisk {
		return &lyingDisk{powerDisk: d, sync: func(f *powerFile, off, n int64) error {
			skip := min(n, pageSize-off%pageSize)
			return f.Sync(off+skip, n-skip)
		}}
	}},
	{"Sync forgets the length", func(d *powerDisk) *lyingDisk {
		return &lyingDisk{powerDisk: d, sync: func(f *powerFile, off, n int64) error { return f.syncRange(off, n, false) }}
	}},
	{"Sync comes one call late", func(d *powerDisk) *lyingDisk {
		late := func() error { return nil }
		return &lyingDisk{powerDisk: d, sync: func(f *powerFile, off, n int64) error {
			err := late()
			late = func() error { return f.Sync(min(off, f.Size()), min(n, f.Size()-min(off, f.Size()))) }
			return err
		}}
	}},
	{"nothing is synced in recovery", func(d *powerDisk) *lyingDisk {
		recovering := false
		return &lyingDisk{powerDisk: d,
			open: func() { recovering = d.current[storeName] != nil },
			sync: func(f *powerFile, off, n int64) error {
				if recovering {
					return nil
				}
				return f.Sync(off, n)
			},
			syncFile: func(f *powerFile) error {
				if recovering {
					return nil
				}
				return f.SyncFile()
			},
			syncDir: func(dir string) error { recovering = false; return d.SyncDir(dir) }}
	}},
	{"SyncFile does nothing", func(d *powerDisk) *lyingDisk {
		return &lyingDisk{powerDisk: d, syncFile: func(*powerFile) error { return nil }}
	}},
	{"SyncFile does nothing after Truncate", func(d *powerDisk) *lyingDisk {
		cut := make(map[*powerFile]bool)
		return &lyingDisk{powerDisk: d,
			truncate: func(f *powerFile, size int64) error { cut[f] = true; return f.Truncate(size) },
			syncFile: func(f *powerFile) error {
				if cut[f] {
					return nil
				}
				return f.SyncFile()
			}}
	}},
	{"SyncFile of a compaction comes after its Rename", func(d *powerDisk) *lyingDisk {
		var late *powerFile
		return &lyingDisk{powerDisk: d,
			syncFile: func(f *powerFile) error {
				if f.node == d.current[storeName+nextSuffix] {
					late = f
					return nil
				}
				return f.SyncFile()
			},
			rename: func(old, new string) error { return errors.Join(d.Rename(old, new), late.SyncFile()) }}
	}},
	{"SyncFile of a creation comes after its Link", func(d *powerDisk) *lyingDisk {
		var late *powerFile
		return &lyingDisk{powerDisk: d,
			syncFile: func(f *powerFile) error {
				if d.current[storeName] == nil {
					late = f
					return nil
				}
				return f.SyncFile()
			},
			link: func(old, new string) error { return errors.Join(d.Link(old, new), late.SyncFile()) }}
	}},
	{"SyncDir does nothing", func(d *powerDisk) *lyingDisk {
		return &lyingDisk{powerDisk: d, syncDir: func(string) error { return nil }}
	}},
	{"SyncDir does nothing after Rename", func(d *powerDisk) *lyingDisk {
		renamed := false
		return &lyingDisk{powerDisk: d,
			rename: func(old, new string) error { renamed = true; return d.Rename(old, new) },
			syncDir: func(dir string) error {
				if renamed {
					return nil
				}
				return d.SyncDir(dir)
			}}
	}},
	{"SyncDir does nothing when a store is opened", func(d *powerDisk) *lyingDisk {
		named := false
		return &lyingDisk{powerDisk: d,
			rename: func(old, new string) error { named = true; return d.Rename(old, new) },
			link:   func(old, new string) error { named = true; return d.Link(old, new) },
			syncDir: func(dir string) error {
				if !named {
					return nil
				}
				named = false
				return d.SyncDir(dir)
			}}
	}},
}

// lyingDisk is a powerDisk that does something else where a function is set.
type lyingDisk struct {
	*powerDisk
	open     func() // before an Open
	sync     func(f *powerFile, off, n int64) error
	syncFile func(f *powerFile) error
	truncate func(f *powerFile, size int64) error
	syncDir  func(dir string) error
	rename   func(old, new string) error
	link     func(old, new string) error
}

func (d *lyingDisk) Open(path string, mode mmapfile.Mode) (file, error) {
	if d.open != nil {
		d.open()
	}
	f, err := d.powerDisk.Open(path, mode)
	return d.wrap(f, err)
}

func (d *lyingDisk) Create(path string, perm fs.FileMode, size int64) (file, error) {
	f, err := d.powerDisk.Create(path, perm, size)
	return d.wrap(f, err)
}

func (d *lyingDisk) wrap(f file, err error) (file, error) {
	if err != nil {
		return f, err
	}
	return &lyingFile{f.(*powerFile), d}, nil
}

func (d *lyingDisk) SyncDir(dir string) error {
	if d.syncDir != nil {
		return d.syncDir(dir)
	}
	return d.powerDisk.SyncDir(dir)
}

func (d *lyingDisk) OpenDir(path string) (directory, error) {
	return heldDir{func() error { return d.SyncDir(path) }}, nil
}

func (d *lyingDisk) Rename(old, new string) error {
	if d.rename != nil {
		return d.rename(old, new)
	}
	return d.powerDisk.Rename(old, new)
}

func (d *lyingDisk) Link(old, new string) error {
	if d.link != nil {
		return d.link(old, new)
	}
	return d.powerDisk.Link(old, new)
}

type lyingFile struct {
	*powerFile
	lies *lyingDisk
}

func (f *lyingFile) Sync(off, n int64) error {
	if f.lies.sync != nil {
		return f.lies.sync(f.powerFile, off, n)
	}
	return f.powerFile.Sync(off, n)
}

func (f *lyingFile) SyncFile() error {
	if f.lies.syncFile != nil {
		return f.lies.syncFile(f.powerFile)
	}
	return f.powerFile.SyncFile()
}

func (f *lyingFile) Truncate(size int64) error {
	if f.lies.truncate != nil {
		return f.lies.truncate(f.powerFile, size)
	}
	return f.powerFile.Truncate(size)
}

const (
	storeName = "store"
	keyCount  = 16
	retries   = 4 // lost mutations that are made again after a cut
)

// powerLab runs stores whose power is cut.
type powerLab struct {
	dir    string // for directories that live as long as their check
	lie    func(*powerDisk) *lyingDisk
	cuts   int       // images so far
	failed *cutError // the first; it ends the run
	trace  []string  // of the cuts of the run

	opens, resumed          int // stores that were opened, and those whose index a checkpoint gave
	joined, died, appending int // handles that were opened beside others; that died; and, of those, in an append
}

// opened counts a store that has just been opened.
func (p *powerLab) opened(s *Store) {
	p.opens++
	if s.gen.Load().unverified.Load() > 0 {
		p.resumed++
	}
}

// cutError is a broken contract.
type cutError struct {
	seed  uint64
	where string
	how   string // the cut was drawn
	ops   []string
	image image
	err   error
}

func (e *cutError) Unwrap() error { return e.err }

func (e *cutError) Error() string {
	return fmt.Sprintf("%v\ncut %s\nof the cut: %s\nafter\n\t%s\nreplay: go test ./kv -run 'TestPowerCut$' -cuts 1 -seed %d",
		e.err, e.where, e.how, strings.Join(e.ops, "\n\t"), e.seed)
}

// run does the work of one seed, and cuts.
func (p *powerLab) run(seed uint64) (err error) {
	p.failed, p.trace = nil, nil
	rng := rand.New(rand.NewPCG(seed, 0))
	r := &powerRun{lab: p, seed: seed, rng: rng, cutChance: 0.05, killChance: 0.02, states: []storeState{{}}}
	r.opts = Options{
		Durability: []Durability{SyncPeriodic, SyncAlways, SyncManual, SyncManual}[rng.IntN(4)],
		SyncEvery:  time.Hour, // the run ticks by itself
		SyncBytes:  []int64{-1, 4 << 10, 64 << 10}[rng.IntN(3)],
		CompactAt:  -1,
		// The run takes some by itself, and Close does.
		CheckpointBytes: []int64{-1, -1, 1}[rng.IntN(3)],
	}
	// One in three begins a new page after each sync, and has a disk that destroys
	// what is in flight.
	r.opts.SyncAligned = rng.IntN(3) == 0
	if seed%4 == 3 && runtime.GOOS == "linux" {
		r.share()
	}
	defer func() {
		if v := recover(); v != nil {
			err = &cutError{seed: seed, where: "unknown", how: "a panic", ops: r.ops, err: fmt.Errorf("panic: %v\n%s", v, debug.Stack())}
		}
	}()
	dir, err := os.MkdirTemp(p.dir, "run-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d, err := newPowerDisk(dir, nil)
	if err != nil {
		return err
	}
	r.start(d)
	defer r.end()
	r.note("open, %v, SyncBytes %d, SyncAligned %v, Shared %v", r.opts.Durability, r.opts.SyncBytes, r.opts.SyncAligned, r.opts.Shared)
	r.open()
	for n := 8 + rng.IntN(24); n > 0 && p.failed == nil; n-- {
		r.work()
	}
	r.close()
	if p.failed != nil {
		return p.failed
	}
	return nil
}

// storeState is what a store holds as of a revision, and how it came to that from
// the one before.
type storeState struct {
	revision uint64
	keys     map[string]string
	muts     []mutation
}

// mutation is a put of a value of size bytes, or a delete.
type mutation struct {
	key    string
	size   int
	remove bool
}

func (m mutation) String() string {
	if m.remove {
		return "delete " + m.key
	}
	return fmt.Sprintf("put %s %d bytes", m.key, m.size)
}

// compare tells how s differs from the state.
func (st *storeState) compare(s *Store) error {
	for i := range keyCount {
		key := keyName(i)
		want, ok := st.keys[key]
		got, err := s.Get([]byte(key))
		switch {
		case !ok && err != ErrNotFound:
			return fmt.Errorf("revision %d: %s came back: %d bytes, %v", st.revision, key, len(got), err)
		case ok && (err != nil || string(got) != want):
			return fmt.Errorf("revision %d: %s has %d bytes, want other %d; %v", st.revision, key, len(got), len(want), err)
		}
	}
	n := 0
	it := s.Iter(nil)
	for k, v := range it.All() {
		n++
		if want, ok := st.keys[string(k)]; !ok || string(v) != want {
			return fmt.Errorf("revision %d: the iteration yields %q with %d bytes, want %d, %v", st.revision, k, len(v), len(want), ok)
		}
	}
	if it.Err() != nil || n != len(st.keys) || s.Len() != n {
		return fmt.Errorf("revision %d: the iteration yields %d, Len is %d, want %d; %v", st.revision, n, s.Len(), len(st.keys), it.Err())
	}
	report, err := s.Verify(context.Background())
	wrong := slices.DeleteFunc(report.Violations, func(v Violation) bool {
		// The page that may be in flight has the copy, which only a writer mends.
		return v.Off == crc.CopyOff && s.opts.ReadOnly && s.opts.SyncAligned
	})
	if err != nil || len(wrong) > 0 {
		return fmt.Errorf("revision %d: verify: %v, %v", st.revision, wrong, err)
	}
	return nil
}

func keyName(i int) string { return fmt.Sprintf("key-%02d", i) }

// powerRun is one store on one powerDisk, and what is known of it.
type powerRun struct {
	lab  *powerLab
	seed uint64
	rng  *rand.Rand
	disk *powerDisk
	on   disk // disk, or a lie about it
	opts Options
	s    *Store
	crew *crew // who has it open, of a store that may be shared; or nil
	deep int   // cuts and kills that the run begins with

	states  []storeState // by revision; the last is what the store shows
	next    *storeState  // what it shows when the mutation under way is done
	lost    []storeState // by the cut that the run began with
	durable uint64       // the revision that was promised to last
	written uint64       // the revision that was promised to outlive the process
	created bool         // the store was

	compacting bool // writes go on when the disk is asked for something
	copying    bool // so too in the moments of such a write: a compaction is under way
	ops        []string

	cutChance, killChance float64 // at each moment
}

func (r *powerRun) start(d *powerDisk) {
	r.disk, r.on = d, d
	if r.lab.lie != nil {
		r.on = r.lab.lie(d)
	}
	d.call = r.moment
	d.spoils = r.opts.SyncAligned
}

// end lets go of the store as the death of its process would, and of the disk.
func (r *powerRun) end() {
	if r.crew != nil {
		r.crew.end()
	} else if r.s != nil {
		r.s.tick.timer.Stop()
		r.s.stop(ErrClosed)
		if g := r.s.gen.Load(); g != nil {
			g.mapped.Close()
		}
	}
	r.disk.close()
}

func (r *powerRun) note(format string, args ...any) {
	r.ops = append(r.ops, fmt.Sprintf(format, args...))
}

func (r *powerRun) last() *storeState { return &r.states[len(r.states)-1] }

func (r *powerRun) fail(where, how string, img image, err error) {
	if err != nil && r.lab.failed == nil {
		r.lab.failed = &cutError{r.seed, where, how, slices.Clone(r.ops), img, err}
	}
}

// did ends an operation: it must have succeeded.
func (r *powerRun) did(err error) bool {
	r.fail("", "no cut", nil, err)
	return r.lab.failed == nil
}

// allowed are the states that a cut may leave.
func (r *powerRun) allowed() []storeState {
	all := slices.Clone(r.states)
	if r.next != nil {
		all = append(all, *r.next)
	}
	if r.crew != nil && r.crew.left != nil {
		all = append(all, *r.crew.left)
	}
	return slices.DeleteFunc(all, func(st storeState) bool { return st.revision < r.durable })
}

// shown returns which of the states s shows.
func shown(s *Store, states []storeState) (*storeState, error) {
	revision := s.Stats().Revision
	var want []uint64
	var err error
	for i := range states {
		st := &states[i]
		if want = append(want, st.revision); st.revision != revision {
			continue
		}
		if err = st.compare(s); err == nil {
			return st, nil
		}
	}
	if err == nil {
		err = fmt.Errorf("revision %d is shown, want one of %d", revision, want)
	}
	return nil, err
}

// open opens the store.
func (r *powerRun) open() {
	if r.crew != nil {
		r.openFirst()
	} else {
		r.openAlone(r.on)
	}
}

// openAlone opens the store, which nobody has open. What it shows is at or beyond what was
// written, and is durable from then on.
func (r *powerRun) openAlone(on disk) {
	if !r.openOn(on) {
		return
	}
	st, err := shown(r.s, slices.DeleteFunc(r.allowed(), func(st storeState) bool { return st.revision < r.written }))
	if !r.did(err) {
		return
	}
	r.states, r.next = []storeState{*st}, nil
	r.durable, r.written, r.created = st.revision, st.revision, true
}

// openOn opens the store on a disk.
func (r *powerRun) openOn(on disk) bool {
	s, err := openOn(on, filepath.Join(r.disk.dir, storeName), &r.opts)
	if !r.did(err) {
		return false
	}
	r.s = s
	r.lab.opened(s)
	s.checkpointFrom = time.Now().Add(time.Hour) // so that none is taken beside the run
	return true
}

// close closes the store.
func (r *powerRun) close() {
	if r.crew != nil {
		r.closeAll()
	} else if r.lab.failed == nil && r.did(r.s.Close()) {
		r.s, r.durable = nil, r.last().revision
		r.moment("after Close")
	}
}

// halted keeps a store from doing something in the background.
var halted = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// mutate does an operation that makes the store show next. It is done in one
// goroutine, and then what it left to the background is: so a seed replays.
func (r *powerRun) mutate(next *storeState, durable bool, op func() error) {
	if r.lab.failed != nil {
		return
	}
	s := r.s
	r.next = next
	running := s.closing
	s.closing = halted
	err := op()
	s.closing = running
	if r.refused(err) || !r.did(err) {
		return
	}
	if next != nil {
		r.commit(next)
		if durable || r.opts.Durability == SyncAlways {
			r.durable = max(r.durable, next.revision)
		}
	}
	r.settled()
	g := s.gen.Load()
	if g.aheadAt.Load() == math.MaxInt64 {
		s.lookAhead(g)
	}
	if s.tick.kicked.CompareAndSwap(true, false) {
		r.did(s.syncForBytes(g))
	}
	r.settled()
}

// commit notes that the mutation under way has returned, or that all see it.
func (r *powerRun) commit(next *storeState) {
	if r.next == next { // which has not been noted before
		r.states, r.written, r.next = append(r.states, *next), next.revision, nil
	}
}

// settled takes the store at its word: what it says is durable must be.
func (r *powerRun) settled() {
	var stats Stats
	r.undisturbed(func() { stats = r.s.Stats() })
	r.durable = max(r.durable, stats.DurableRevision)
	if want := r.last().revision; stats.Revision != want || r.durable > want {
		r.did(fmt.Errorf("revision %d, durable %d, want %d", stats.Revision, r.durable, want))
	}
}

// write makes mutations of different keys: more than one, and a durable delete, in
// a transaction.
func (r *powerRun) write(durable bool, muts ...mutation) {
	if r.lab.failed != nil {
		return
	}
	r.undisturbed(func() {}) // what is halted does not go over to another generation
	st := storeState{revision: r.last().revision, keys: maps.Clone(r.last().keys), muts: muts}
	if st.keys == nil {
		st.keys = make(map[string]string)
	}
	values := make([][]byte, len(muts))
	for i, m := range muts {
		if _, ok := st.keys[m.key]; m.remove && !ok {
			continue
		}
		st.revision++
		if delete(st.keys, m.key); !m.remove {
			values[i] = r.value(m.size)
			st.keys[m.key] = string(values[i])
		}
	}
	next := &st
	if st.revision == r.last().revision {
		next = nil
	}
	r.note("%v durable=%v", muts, durable)
	r.mutate(next, durable, func() error {
		switch m := muts[0]; {
		case len(muts) > 1 || m.remove && durable:
			return r.s.Update(func(tx *Tx) error {
				if durable {
					tx.Durable()
				}
				var err error
				for i, m := range muts {
					if m.remove {
						err = errors.Join(err, tx.Delete([]byte(m.key)))
					} else {
						err = errors.Join(err, tx.Put([]byte(m.key), values[i]))
					}
				}
				return err
			})
		case m.remove:
			return r.s.Delete([]byte(m.key))
		case durable:
			return r.s.PutDurable([]byte(m.key), values[0])
		default:
			return r.s.Put([]byte(m.key), values[0])
		}
	})
}

// value returns bytes of which no sector is like another.
func (r *powerRun) value(size int) []byte {
	b := make([]byte, 0, size+8)
	for len(b) < size {
		b = binary.LittleEndian.AppendUint64(b, r.rng.Uint64())
	}
	return b[:size]
}

func (r *powerRun) key() string { return keyName(r.rng.IntN(keyCount)) }

// size draws the size of a value of key: a few bytes, some pages, or what makes the
// record end with a sector or a page, where torn and new records can meet.
func (r *powerRun) size(key string) int {
	switch n := r.rng.IntN(20); {
	case n < 6:
		return r.rng.IntN(200)
	case n < 8:
		return r.rng.IntN(12 << 10)
	case n < 9:
		return r.rng.IntN(300 << 10)
	case n < 17:
		return r.sizeToEndAt(key, sectorSize)
	default:
		return r.sizeToEndAt(key, pageSize)
	}
}

// sizeToEndAt returns the size of a value that makes the record of key, written
// next, end at a multiple of unit.
func (r *powerRun) sizeToEndAt(key string, unit int64) int {
	tail := r.s.Stats().Tail
	room := (tail+128+unit-1)/unit*unit - tail
	for size := int(room) - 24 - len(key); size > 0; size-- {
		e := codec.Entry{Key: []byte(key), Value: make([]byte, size), Revision: r.last().revision + 1, Written: time.Now().Unix()}
		if crc.RecordSize(e.Size()) <= room {
			return size
		}
	}
	return 0
}

func (r *powerRun) put() mutation {
	key := r.key()
	return mutation{key: key, size: r.size(key)}
}

// burst writes so much, most often without a cut, that the syncs in the background do not
// cover all of it.
func (r *powerRun) burst() {
	cut, kill := r.cutChance, r.killChance
	r.cutChance, r.killChance = cut/20, kill/20
	for n := 4 + r.rng.IntN(28); n > 0 && r.lab.failed == nil; n-- {
		r.write(false, mutation{key: r.key(), size: r.rng.IntN(3 << 10)})
	}
	r.cutChance, r.killChance = cut, kill
}

// transaction draws up to six mutations of different keys.
func (r *powerRun) transaction() []mutation {
	var muts []mutation
	for _, i := range r.rng.Perm(keyCount)[:2+r.rng.IntN(5)] {
		m := mutation{key: keyName(i), remove: r.rng.IntN(4) == 0}
		if !m.remove {
			m.size = r.rng.IntN(1500)
		}
		muts = append(muts, m)
	}
	return muts
}

// work does one operation drawn at random.
func (r *powerRun) work() {
	for range 3 { // what was not synced is longest here
		r.moment("between operations")
	}
	switch {
	case r.lab.failed != nil:
	case r.crew != nil:
		r.workTogether()
	default:
		r.operate()
	}
}

// operate has the store do something drawn at random.
func (r *powerRun) operate() {
	switch n := r.rng.IntN(100); {
	case n < 8:
		r.burst()
	case n < 58:
		r.write(false, r.put())
	case n < 66:
		r.write(false, mutation{key: r.key(), remove: true})
	case n < 78:
		r.write(r.rng.IntN(3) == 0, r.transaction()...)
	case n < 82:
		r.write(true, r.put())
	case n < 85:
		r.sync()
	case n < 89:
		r.note("tick")
		r.s.onTick()
		r.settled()
		if r.opts.CheckpointBytes > 0 && r.rng.IntN(2) == 0 {
			r.checkpoint()
		}
	case n < 93:
		r.compact()
	case n < 95:
		r.note("clear")
		r.clear()
	case r.crew != nil:
		r.note("look")
		r.undisturbed(func() { r.did(r.last().compare(r.s)) })
	default:
		r.note("close, open")
		if r.close(); r.lab.failed == nil {
			r.open()
		}
	}
}

func (r *powerRun) sync() {
	r.note("sync")
	before := r.last().revision
	if r.did(r.s.Sync()) {
		r.durable = max(r.durable, before)
	}
}

func (r *powerRun) compact() {
	r.note("compact")
	before := r.last().revision
	r.compacting, r.copying = true, true
	_, err := r.s.Compact(context.Background())
	if r.compacting, r.copying = false, false; !r.refused(err) && r.did(err) {
		r.durable = max(r.durable, before)
		r.settled()
	}
}

// checkpoint takes one as the background does.
func (r *powerRun) checkpoint() {
	r.note("checkpoint")
	f, err := r.s.writeCheckpoint(r.s.gen.Load(), mmapfile.BootID())
	if !r.refused(err) && r.did(err) {
		r.did(f.Close())
	}
}

func (r *powerRun) clear() {
	next := &storeState{revision: r.last().revision + 1}
	r.next = next
	if r.did(r.s.Clear()) {
		r.commit(next)
		r.durable = max(r.durable, next.revision)
		r.settled()
	}
}

// moment is one at which the power may fail, the process die, or somebody write to
// a store that is being compacted.
func (r *powerRun) moment(where string) {
	if r.crew != nil && r.crew.heard(where) {
		return
	}
	if r.lab.failed == nil && r.rng.Float64() < r.cutChance {
		r.cut(where)
	}
	if r.lab.failed == nil && r.rng.Float64() < r.killChance {
		r.kill(where)
	}
	if r.lab.failed == nil && r.compacting && r.rng.IntN(3) == 0 && r.free() {
		r.compacting = false // not in this write's moments
		r.write(false, r.transaction()...)
		r.compacting = true
	}
	if r.lab.failed == nil && r.crew != nil {
		r.othersMayAct(where)
	}
}

// free tells whether the store would let a write return right now. While somebody
// leads the syncs, only one that will not sync does.
func (r *powerRun) free() bool {
	if !r.s.mu.TryLock() {
		return false
	}
	r.s.mu.Unlock()
	r.s.sync.mu.Lock()
	defer r.s.sync.mu.Unlock()
	return !r.s.sync.busy || r.opts.Durability == SyncManual
}

// cut cuts the power, and checks what is left while the store goes on.
func (r *powerRun) cut(where string) {
	r.lab.cuts++
	img, how := r.disk.cut(r.rng)
	r.lab.trace = append(r.lab.trace, where+": "+how)
	if img[storeName] == nil && !r.created {
		return
	}
	boot := r.rng.IntN(3)
	how += "; boot word " + []string{"as it was", "of another boot", "0"}[boot]
	st, err := r.check(img.rebooted(boot), boot != 0)
	r.fail(where, how, img, err)
	if err == nil && r.deep == 0 && r.rng.IntN(3) == 0 {
		r.fail(where, how, img, r.recut(img, st))
	}
}

// rebooted returns the image with the boot word as it was, as another boot's or
// as 0. With either of the latter the holder, whatever its number is, is dead.
func (m image) rebooted(boot int) image {
	b := m[storeName]
	if len(b) < crc.HeaderSize {
		return m
	}
	m = maps.Clone(m)
	if boot == 0 {
		m.forgetCheckpoint()
		return m
	}
	b = slices.Clone(b)
	word := b[crc.BootOff : crc.BootOff+8]
	if boot == 2 {
		clear(word)
	} else if word[0]++; bytes.Equal(word, make([]byte, 8)) {
		word[0]++
	}
	m[storeName] = b
	return m
}

// forgetCheckpoint makes a checkpoint that was not synced one of another boot, as it is
// after each power cut.
func (m image) forgetCheckpoint() {
	const name = storeName + indexSuffix
	c, err := crc.DecodeCheckpoint(m[name])
	if err != nil || c.Boot == 0 {
		return
	}
	c.Boot++
	m[name] = append(crc.EncodeCheckpoint(&c), m[name][crc.SlotsOff(len(c.Segments), 0, c.SlotCount):]...)
}

// check opens the image as anybody would, and returns the state that it shows.
func (r *powerRun) check(img image, dead bool) (*storeState, error) {
	dir, err := os.MkdirTemp(r.lab.dir, "image-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := img.write(dir); err != nil {
		return nil, err
	}
	states := r.allowed()
	path := filepath.Join(dir, storeName)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("the store that was created is not there: %w", err)
	}
	var st *storeState
	ways := []string{"read-only", "for writing", "again"}
	if !dead { // a follower believes the tail word of a process that lives
		ways = ways[1:]
	}
	for i, way := range ways {
		opts := r.opts
		opts.ReadOnly = dead && i == 0
		opts.Shared = r.crew != nil && !opts.ReadOnly && r.rng.IntN(2) == 0
		s, err := openOn(imageDisk, path, &opts)
		if err != nil {
			return nil, fmt.Errorf("opened %s, Shared %v: %w", way, opts.Shared, err)
		}
		r.lab.opened(s)
		st, err = shown(s, states)
		if err == nil && opts.Shared {
			err = besides(path, &opts, st)
		}
		if err = errors.Join(err, s.Close()); err != nil {
			return nil, fmt.Errorf("opened %s, Shared %v: %w", way, opts.Shared, err)
		}
		states = []storeState{*st} // it stays at that
	}
	if _, err := os.Stat(path + nextSuffix); err == nil {
		return nil, fmt.Errorf("what a compaction left is still there")
	}
	return st, nil
}

// recut recovers an image that shows st with the power cut at each step, and
// writes on.
func (r *powerRun) recut(img image, st *storeState) error {
	dir, err := os.MkdirTemp(r.lab.dir, "recut-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d, err := newPowerDisk(dir, img.rebooted(1)) // no machine goes on without a start
	if err != nil {
		return err
	}
	// Whatever becomes of it, it shows what it showed.
	c := r.child("recovery of the image", d, 1)
	c.states, c.durable, c.written = []storeState{*st}, st.revision, st.revision
	if d.spoils {
		// But what nobody was promised may be in flight again, and destroyed.
		c.states = slices.DeleteFunc(r.allowed(), func(other storeState) bool { return other.revision > st.revision })
		c.durable, c.written = r.durable, r.durable
	}
	c.lost = slices.DeleteFunc(r.allowed(), func(other storeState) bool { return other.revision <= st.revision })
	c.goOn()
	return nil
}

// kill ends the process, but not the machine, and writes on.
func (r *powerRun) kill(where string) {
	dir, err := os.MkdirTemp(r.lab.dir, "kill-*")
	if !r.did(err) {
		return
	}
	defer os.RemoveAll(dir)
	d, err := r.disk.clone(dir)
	if !r.did(err) {
		return
	}
	c := r.child("process killed "+where, d, 0.4)
	c.states, c.durable, c.written, c.created = slices.Clone(r.states), r.durable, r.written, r.created
	if r.next != nil {
		c.states = append(c.states, *r.next)
	}
	if r.crew != nil && r.crew.left != nil {
		c.states = append(c.states, *r.crew.left)
	}
	c.goOn()
}

func (r *powerRun) child(what string, d *powerDisk, cutChance float64) *powerRun {
	c := &powerRun{lab: r.lab, seed: r.seed, rng: r.rng, opts: r.opts, deep: r.deep + 1, cutChance: cutChance, created: true}
	if c.deep < 2 {
		c.killChance = r.killChance
	}
	if r.crew != nil {
		c.share()
	}
	c.ops = append(slices.Clone(r.ops), what)
	c.start(d)
	return c
}

// goOn opens the store, makes again what was lost, and then something durable.
func (r *powerRun) goOn() {
	defer r.end()
	if r.open(); r.lab.failed != nil {
		return
	}
	r.cutChance = 0.3
	for _, st := range r.lost[:min(retries, len(r.lost))] {
		if len(st.muts) > 0 && r.lab.failed == nil {
			r.by(func() { r.write(r.rng.IntN(4) == 0, st.muts...) })
			for range 3 {
				r.moment("between operations")
			}
		}
	}
	for range r.rng.IntN(3) {
		r.work()
	}
	if r.lab.failed != nil {
		return
	}
	r.by(func() { r.write(true, r.put()) })
	if r.lab.failed == nil {
		r.cut("at the end")
	}
}
