package kv

import (
	"context"
	"encoding/binary"
	"errors"
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
	"time"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// step is one operation of a script. What it writes was drawn before, so that a
// fault changes nothing of what is asked for.
type step struct {
	do      string
	muts    []mutation
	values  [][]byte // of the puts in muts
	durable bool
	match   bool   // the old value that is given to CompareAndSwap is the right one
	cut     uint64 // seed of a power cut
}

func (st step) String() string {
	s := st.do
	for _, m := range st.muts {
		s += ", " + m.String()
	}
	if st.durable {
		s += ", durable"
	}
	return s
}

// drawScript draws the operations of a seed.
func drawScript(rng *rand.Rand) []step {
	var steps []step
	for range 12 + rng.IntN(16) {
		st := step{durable: rng.IntN(3) == 0, match: rng.IntN(3) > 0}
		switch n := rng.IntN(100); {
		case n < 30:
			st.do, st.muts = "put", []mutation{{key: keyName(rng.IntN(keyCount)), size: drawSize(rng)}}
		case n < 36:
			st.do, st.muts, st.durable = "delete", []mutation{{key: keyName(rng.IntN(keyCount)), remove: true}}, false
		case n < 46:
			st.do = "update"
			for _, i := range rng.Perm(keyCount)[:2+rng.IntN(5)] {
				m := mutation{key: keyName(i), remove: rng.IntN(4) == 0}
				if !m.remove {
					m.size = rng.IntN(1500)
				}
				st.muts = append(st.muts, m)
			}
		case n < 52:
			st.do, st.muts, st.durable = "swap", []mutation{{key: keyName(rng.IntN(keyCount)), size: rng.IntN(3000)}}, false
		default:
			st.durable = false
			st.do = []string{"sync", "tick", "tick", "compact", "compact", "clear", "reopen", "reopen", "follow", "look", "kill", "power"}[(n-52)/4]
			if st.do == "look" && rng.IntN(3) == 0 {
				st.do = "intrude"
			}
			st.cut = rng.Uint64()
		}
		for _, m := range st.muts {
			v := make([]byte, 0, m.size+8)
			for len(v) < m.size {
				v = binary.LittleEndian.AppendUint64(v, rng.Uint64())
			}
			st.values = append(st.values, v[:m.size])
		}
		steps = append(steps, st)
	}
	return steps
}

// drawSize draws the size of a value: small, some pages, more than the extent, or
// more than a compaction copies at once.
func drawSize(rng *rand.Rand) int {
	switch n := rng.IntN(40); {
	case n < 20:
		return rng.IntN(300)
	case n < 32:
		return rng.IntN(20 << 10)
	case n < 39:
		return rng.IntN(200 << 10)
	default:
		return compactBuf + rng.IntN(pageSize)
	}
}

// failureRun is one script on one disk with one fault, and what is known of the
// store.
type failureRun struct {
	*powerRun // the model: states, what of them is durable, and the cuts
	lab       *failureLab
	disk      *failingDisk
	fault     *fault
	script    []step
	path      string
	follower  *Store

	off    bool // the power was cut, and nobody has opened the store since
	poison bool // the store must be poisoned
	hits   int  // operations since the fault first struck, that one included
	// scripted counts the calls of the script, without those of its end.
	scripted map[string]int
	before   struct{ fds, goroutines int }
}

func (l *failureLab) start(seed uint64, f *fault) (*failureRun, error) {
	dir, err := os.MkdirTemp(l.dir, "run-*")
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(seed, 2))
	r := &failureRun{lab: l, fault: f, path: filepath.Join(dir, storeName)}
	r.before.fds, r.before.goroutines = descriptors(), runtime.NumGoroutine()
	power, err := newPowerDisk(dir, nil)
	if err != nil {
		return nil, err
	}
	r.disk = newFailingDisk(power, f)
	if l.plant.disk != nil {
		l.plant.disk(r.disk)
	}
	r.powerRun = &powerRun{
		lab: &powerLab{dir: l.dir}, seed: seed, rng: rand.New(rand.NewPCG(seed, 5)), disk: power,
		deep: 1, states: []storeState{{}},
	}
	r.opts = Options{
		Durability: []Durability{SyncPeriodic, SyncAlways, SyncManual}[rng.IntN(3)],
		SyncEvery:  time.Hour, // the run ticks by itself
		SyncBytes:  []int64{-1, 4 << 10, 64 << 10}[rng.IntN(3)],
		CompactAt:  -1,
		// The run takes some by itself, and Close does.
		CheckpointBytes: []int64{-1, 1, 1}[rng.IntN(3)],
		VerifyReads:     rng.IntN(2) == 0,
	}
	r.script = drawScript(rng)
	return r, nil
}

// descriptors counts those that the process has open; 0 where nothing tells.
func descriptors() int {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(names)
}

// all runs the script.
func (r *failureRun) all() (err error) {
	defer func() { os.RemoveAll(filepath.Dir(r.path)) }()
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
		var img image
		if err != nil {
			img = r.files()
		}
		r.close()
		if err == nil {
			err = r.leaks()
		}
		err = r.broken(err, img)
		for _, f := range r.disk.leaked {
			f.Close()
		}
	}()
	r.note("%v, SyncBytes %d; the fault: %v", r.opts.Durability, r.opts.SyncBytes, r.fault)
	if err := r.open(); err != nil {
		return err
	}
	for _, st := range r.script {
		if err := r.one(st); err != nil {
			return err
		}
	}
	r.scripted = maps.Clone(r.disk.calls)
	r.disk.lift()
	for _, do := range []string{"look", "reopen", "look"} {
		if err := r.one(step{do: do}); err != nil {
			return err
		}
	}
	m := mutation{key: keyName(0), size: 100}
	if err := r.one(step{do: "put", muts: []mutation{m}, values: [][]byte{make([]byte, 100)}, durable: true}); err != nil {
		return err
	}
	if err := r.cutNow("at the end"); err != nil {
		return err
	}
	return r.shut()
}

// files are what there is on the disk.
func (r *failureRun) files() image {
	img := make(image)
	for name, n := range r.powerRun.disk.current {
		img[name] = n.content()
	}
	return img
}

// broken makes err a failure that replays, with the image that a cut left or img.
func (r *failureRun) broken(err error, img image) error {
	if err == nil {
		return nil
	}
	var bad *cutError
	if errors.As(err, &bad) {
		img, err = bad.image, fmt.Errorf("%w; cut %s, %s", bad.err, bad.where, bad.how)
	}
	return &failureError{r.seed, *r.fault, slices.Clone(r.ops), &cutError{image: img, err: err}}
}

// failureError is a broken promise.
type failureError struct {
	seed  uint64
	fault fault
	ops   []string
	err   *cutError
}

func (e *failureError) Unwrap() error { return e.err }

func (e *failureError) Error() string {
	return fmt.Sprintf("%v\nafter\n\t%s\nreplay: go test ./kv -run 'TestFailures$' -seed %d -fault '%v'",
		e.err.err, strings.Join(e.ops, "\n\t"), e.seed, e.fault)
}

// close lets go of all that the run has open, whatever has become of it.
func (r *failureRun) close() {
	if r.follower != nil {
		r.follower.Close()
	}
	if r.s != nil {
		r.s.Close()
	}
	r.powerRun.disk.close()
	r.lab.cuts += r.powerRun.lab.cuts
}

// leaks tells what the run left: files, descriptors, goroutines.
func (r *failureRun) leaks() error {
	if err := r.leftovers(); err != nil {
		return err
	}
	if n := descriptors(); n > r.before.fds {
		return fmt.Errorf("%d descriptors, %d before", n, r.before.fds)
	}
	var n int
	for range 1000 {
		if n = runtime.NumGoroutine(); n <= r.before.goroutines {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return fmt.Errorf("%d goroutines, %d before", n, r.before.goroutines)
}

// leftovers tells of files beside the store. Only a Remove that failed may leave one,
// and a power cut, until the store is opened.
func (r *failureRun) leftovers() error {
	names, err := filepath.Glob(r.path + ownSuffix + "*")
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, r.path+indexSuffix) })
	if r.off {
		names = slices.DeleteFunc(names, func(name string) bool { return name == r.path+nextSuffix })
	}
	if err == nil && len(names) > 0 && !(r.fault.kind == "Remove" && r.disk.hit) {
		err = fmt.Errorf("left behind: %s", shortName(filepath.Base(names[0])))
	}
	return err
}

// visible is the state that the store shows.
func (r *failureRun) visible() *storeState { return r.last() }

// one does one step, and what is to be done between steps once the fault struck.
func (r *failureRun) one(st step) error {
	if r.s == nil {
		return errors.New("no store is open")
	}
	r.note("%v", st)
	var err error
	switch st.do {
	case "put", "delete", "update", "swap":
		err = r.mutation(st)
	case "sync":
		if err = r.s.Sync(); err == nil {
			r.durable = r.visible().revision
		}
		err = r.judge("sync", err)
	case "tick":
		r.s.onTick()
		if err = r.judge("tick", nil); r.s != nil && r.opts.CheckpointBytes > 0 {
			if f, err := r.s.writeCheckpoint(r.s.gen.Load(), mmapfile.BootID()); err == nil {
				f.Close()
			}
		}
	case "compact":
		_, err = r.s.Compact(context.Background())
		err = r.judge("compact", err)
	case "clear":
		err = r.clear()
	case "reopen":
		if err = r.shut(); err == nil {
			err = r.open()
		}
	case "kill":
		r.kill()
		err = r.open()
	case "power":
		if err = r.power(st.cut); err == nil {
			err = r.open()
		}
	case "follow":
		err = r.follow()
	case "look":
		err = r.look()
	case "intrude":
		err = r.intrude()
	}
	if err == nil {
		err = r.between()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", st.do, err)
	}
	return nil
}

// between looks at everything after each of the first operations that the fault has
// to do with, and opens a poisoned store again after some.
func (r *failureRun) between() error {
	if !r.disk.hit {
		return nil
	}
	r.hits++
	if r.hits <= 6 && r.s != nil {
		if err := errors.Join(r.visible().compare(r.s), r.leftovers()); err != nil {
			return err
		}
	}
	if r.hits == 1 || r.hits == 4 {
		if err := r.cutNow(fmt.Sprintf("%d operations after the fault", r.hits-1)); err != nil {
			return err
		}
	}
	if r.hits == 5 {
		r.note("the fault is over")
		r.disk.lift()
	}
	if r.hits >= 7 && r.poison {
		return r.one(step{do: "reopen"})
	}
	return nil
}

// cutNow cuts the power.
func (r *failureRun) cutNow(where string) error {
	r.cut(where)
	if bad := r.powerRun.lab.failed; bad != nil {
		return bad
	}
	return nil
}

// poisons tells whether a call that failed in operation op poisons the store: then
// nobody knows what the device holds of the log, or which log it holds.
func (r *failureRun) poisons(op, kind string) bool {
	switch kind {
	case "Sync":
		return slices.Contains([]string{"put", "delete", "update", "swap", "sync", "tick", "background", "close", "compact", "clear"}, op)
	case "SyncDir":
		return op == "compact" || op == "clear"
	case "Rename":
		return r.fault.late
	case "Truncate", "SyncFile":
		return op == "close"
	}
	return false
}

// hidden tells whether operation op goes on without a call that failed.
func (r *failureRun) hidden(op, kind string) bool {
	switch kind {
	case "Remove", "Protect":
		return true
	case "Close":
		return op != "close" && op != "unfollow"
	case "Grow":
		return op == "background" || r.fault.noSpace() && !r.fault.forever // less is asked for then
	case "IsAt":
		return op == "look" // the follower opens what is at the path
	}
	return op == "tick" || op == "background"
}

// judge compares what operation op returned with what it should have, and the
// poison with what the faults in it make of it.
func (r *failureRun) judge(op string, err error) error {
	struck := r.disk.take()
	wasPoisoned := r.poison
	writes := !slices.Contains([]string{"open", "follow", "unfollow", "look", "intrude", "tick", "background"}, op)
	var told []string // calls that failed and must show
	for _, kind := range struck {
		r.note("\t%s failed", kind)
		if r.poisons(op, kind) {
			r.poison = true
		}
		if !r.hidden(op, kind) {
			told = append(told, kind)
		}
	}
	if r.poison && !wasPoisoned {
		r.lab.poisoned++
	}
	if r.lab.plant.forgets && r.s != nil {
		r.poison = false
		r.s.poison.Store(nil)
		return nil
	}
	if r.lab.plant.quiet {
		r.poison = false
		return nil
	}
	switch {
	case err != nil:
		if err := r.judgeError(err, len(struck) > 0, writes && r.poison); err != nil {
			return err
		}
	case writes && wasPoisoned:
		return errors.New("a poisoned store acknowledges")
	case len(told) > 0:
		return fmt.Errorf("%v failed, and no error was returned", told)
	}
	if r.s == nil {
		return nil
	}
	got := r.s.Stats().Poisoned
	if (got != nil) != r.poison || got != nil && !errors.Is(got, r.fault.errno) {
		return fmt.Errorf("Stats().Poisoned is %v, want poison=%v, after %v failed", got, r.poison, struck)
	}
	return nil
}

// judgeError tells what is wrong with an error.
func (r *failureRun) judgeError(err error, struck, poisoned bool) error {
	var e *Error
	switch {
	case !errors.As(err, &e) || e.Op == "" || e.Path != r.path:
		return fmt.Errorf("the error is not an *Error of the store: %w", err)
	case !struck && !poisoned:
		return fmt.Errorf("an error, though nothing failed: %w", err)
	case !errors.Is(err, r.fault.errno):
		return fmt.Errorf("the error does not say %v: %w", r.fault.errno, err)
	case errors.Is(err, ErrPoisoned) != poisoned:
		return fmt.Errorf("matches ErrPoisoned: %v, want %v: %w", !poisoned, poisoned, err)
	case errors.Is(err, ErrFull) != (!poisoned && r.fault.full()):
		return fmt.Errorf("matches ErrFull: %v, want the contrary: %w", errors.Is(err, ErrFull), err)
	}
	for _, other := range []error{ErrNotFound, ErrClosed, ErrLocked, ErrReadOnly, ErrCorrupt, ErrTooLarge, ErrFormat, ErrVersion, ErrFault} {
		if errors.Is(err, other) {
			return fmt.Errorf("matches %q too: %w", other, err)
		}
	}
	if s := err.Error(); strings.Contains(s, "hard links") != (r.fault.errno.Is(fs.ErrPermission) && r.fault.kind == "Link") {
		return fmt.Errorf("the text leads astray: %w", err)
	}
	return nil
}

// open opens the store, once more when that failed, and without the fault after that.
func (r *failureRun) open() error {
	for try := 0; ; try++ {
		s, err := openOn(r.disk, r.path, &r.opts)
		if err == nil {
			s.background.Wait() // for the checkpoint of a file whose sync had failed, and which is written anew
		}
		r.s, r.poison = s, false
		if err := r.judge("open", err); err != nil {
			return fmt.Errorf("open: %w", err)
		}
		if err == nil {
			s.checkpointFrom = time.Now().Add(time.Hour) // so that none is taken beside the run
			break
		}
		if try == 0 {
			r.lab.refused++
		}
		r.note("\tnot opened: %v", err)
		if try == 2 {
			return err
		}
		if err := errors.Join(r.unheld(), r.leftovers()); err != nil {
			return fmt.Errorf("after an Open that failed: %w", err)
		}
		if err := r.cutNow("after an Open that failed"); err != nil {
			return err
		}
		if try == 1 {
			r.note("\tthe fault is over")
			r.disk.lift()
		}
	}
	states := []storeState{*r.visible()}
	if r.off {
		states = r.allowed()
	}
	st, err := shown(r.s, states)
	if err != nil {
		return fmt.Errorf("opened: %w", err)
	}
	r.states, r.off = []storeState{*st}, false
	r.durable, r.created = st.revision, true
	return nil
}

// unheld tells whether the file says that somebody writes it.
func (r *failureRun) unheld() error {
	info, err := Inspect(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Holder != 0 {
		err = fmt.Errorf("process %d is said to hold the store", info.Holder)
	}
	return err
}

// shut closes the store.
func (r *failureRun) shut() error {
	s := r.s
	err := s.Close()
	r.s = nil
	if err2 := s.Close(); (err2 == nil) != (err == nil) {
		return fmt.Errorf("Close returned %v, and then %v", err, err2)
	}
	if err == nil {
		r.durable = r.visible().revision
	}
	return errors.Join(r.judge("close", err), r.unheld(), r.leftovers())
}

// kill ends the store as the death of its process would.
func (r *failureRun) kill() {
	g := r.s.gen.Load()
	r.s.tick.timer.Stop()
	r.s.stop(ErrClosed)
	_ = setHolder(g.file, 0) // what is dead is no holder
	g.mapped.Close()
	r.s = nil
}

// power cuts the power, and goes on with what is left, on another disk with the same
// fault.
func (r *failureRun) power(seed uint64) error {
	if err := r.unfollow(); err != nil {
		return err
	}
	img, how := r.powerRun.disk.cut(rand.New(rand.NewPCG(seed, 0)))
	r.note("\t%s", how)
	r.kill()
	r.powerRun.disk.close()
	dir, err := os.MkdirTemp(r.lab.dir, "run-*")
	if err != nil {
		return err
	}
	img = img.rebooted(1)
	if b := img[storeName]; len(b) >= crc.HeaderSize {
		clear(b[crc.HolderOff : crc.HolderOff+8]) // what is dead is no holder; this process lives
	}
	power, err := newPowerDisk(dir, img)
	if err != nil {
		return err
	}
	os.RemoveAll(filepath.Dir(r.path))
	r.path = filepath.Join(dir, storeName)
	r.powerRun.disk, r.disk.disk, r.off = power, power, true
	return nil
}

// foreground runs op with nothing beside it: what it leaves to the background is
// done after it.
func (r *failureRun) foreground(op func() error) error {
	running := r.s.closing
	r.s.closing = halted
	err := op()
	r.s.closing = running
	return err
}

// background does what the last operation left to the background.
func (r *failureRun) background() error {
	s, g := r.s, r.s.gen.Load()
	if g.aheadAt.Load() == math.MaxInt64 {
		s.lookAhead(g)
	}
	if s.tick.kicked.CompareAndSwap(true, false) {
		s.syncForBytes(g)
	}
	return r.judge("background", nil)
}

// mutation makes the changes of st, and notes what the store shows then.
func (r *failureRun) mutation(st step) error {
	next := storeState{revision: r.visible().revision, keys: maps.Clone(r.visible().keys)}
	if next.keys == nil {
		next.keys = make(map[string]string)
	}
	old, there := next.keys[st.muts[0].key]
	swaps := st.do != "swap" || st.match
	for i, m := range st.muts {
		if _, ok := next.keys[m.key]; m.remove && !ok || !swaps {
			continue
		}
		next.revision++
		if delete(next.keys, m.key); !m.remove {
			next.keys[m.key] = string(st.values[i])
		}
	}
	err := r.foreground(func() error { return r.write(st, old, there) })
	changed := next.revision > r.visible().revision
	if changed && (err == nil || slices.Contains(r.disk.struck, "Sync")) {
		r.states = append(r.states, next)
	}
	if err == nil && changed && (st.durable || r.opts.Durability == SyncAlways) {
		r.durable = next.revision
	}
	if err := r.judge(st.do, err); err != nil {
		return err
	}
	if got := r.s.Stats(); got.Revision != r.visible().revision || got.DurableRevision > got.Revision {
		return fmt.Errorf("revision %d, durable %d, want %d", got.Revision, got.DurableRevision, r.visible().revision)
	}
	if err := r.background(); err != nil {
		return err
	}
	// What the store says is durable must be.
	r.durable = max(r.durable, r.s.Stats().DurableRevision)
	return nil
}

// write is the call that st asks for.
func (r *failureRun) write(st step, old string, there bool) error {
	key := []byte(st.muts[0].key)
	switch {
	case st.do == "delete":
		return r.s.Delete(key)
	case st.do == "swap":
		var was []byte
		if there {
			was = []byte(old)
		}
		if !st.match {
			was = []byte("never written")
		}
		swapped, err := r.s.CompareAndSwap(key, was, st.values[0])
		if err == nil && swapped != st.match {
			err = fmt.Errorf("swapped: %v, want %v", swapped, st.match)
		}
		return err
	case st.do == "update":
		return r.s.Update(func(tx *Tx) error {
			if st.durable {
				tx.Durable()
			}
			var err error
			for i, m := range st.muts {
				if m.remove {
					err = errors.Join(err, tx.Delete([]byte(m.key)))
				} else {
					err = errors.Join(err, tx.Put([]byte(m.key), st.values[i]))
				}
			}
			return err
		})
	case st.durable:
		return r.s.PutDurable(key, st.values[0])
	}
	return r.s.Put(key, st.values[0])
}

// clear clears the store. Where the directory could not be synced the keys are gone,
// and may be back after a power cut.
func (r *failureRun) clear() error {
	err := r.s.Clear()
	replaced := slices.Contains(r.disk.struck, "SyncDir") || slices.Contains(r.disk.struck, "Rename") && r.fault.late
	if err == nil || replaced {
		r.states = append(r.states, storeState{revision: r.visible().revision + 1})
	}
	if err == nil {
		r.durable = r.visible().revision
	}
	return r.judge("clear", err)
}

// unfollow closes the reader, if there is one.
func (r *failureRun) unfollow() error {
	if r.follower == nil {
		return nil
	}
	err := r.follower.Close()
	r.follower = nil
	return r.judge("unfollow", err)
}

// follow opens a reader in place of the one that there was.
func (r *failureRun) follow() error {
	if err := r.unfollow(); err != nil {
		return err
	}
	opts := r.opts
	opts.ReadOnly = true
	s, err := openOn(r.disk, r.path, &opts)
	if err == nil {
		r.follower = s
	}
	return r.judge("follow", err)
}

// look has the reader see all that the store shows.
func (r *failureRun) look() error {
	if r.follower == nil {
		return nil
	}
	_, err := r.follower.Has([]byte(keyName(0)))
	if err := r.judge("look", err); err != nil {
		return err
	}
	if err != nil {
		return nil // it says so, and need not know more
	}
	if err := r.visible().compare(r.follower); err != nil {
		return fmt.Errorf("the follower: %w", err)
	}
	return nil
}

// intrude opens the store to write, which somebody else does.
func (r *failureRun) intrude() error {
	s, err := openOn(r.disk, r.path, &r.opts)
	if err == nil {
		s.Close()
		return errors.New("two have the store open to write")
	}
	if errors.Is(err, ErrLocked) && !slices.ContainsFunc(r.disk.struck, func(kind string) bool { return !r.hidden("intrude", kind) }) {
		err = nil
	}
	if err := r.judge("intrude", err); err != nil {
		return err
	}
	info, err := Inspect(r.path)
	if err == nil && info.Holder != os.Getpid() {
		err = fmt.Errorf("process %d is said to hold the store", info.Holder)
	}
	return err
}
