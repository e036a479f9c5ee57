//go:build amd64 || arm64

package device

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapkv/mmapkv/kv"
)

const (
	workers    = 5 // the last one is of the child that looks
	looker     = workers - 1
	workerKeys = 6 // of each, beside its pair
)

func keyName(w, k int) string                { return fmt.Sprintf("w%d.k%d", w, k) }
func pairNames(w int) (a, b string)          { return fmt.Sprintf("w%d.a", w), fmt.Sprintf("w%d.b", w) }
func storePath(dir string) string            { return filepath.Join(dir, "store") }
func workerOf(key string) (w int)            { fmt.Sscanf(key, "w%d.", &w); return w }
func oneOf[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

// session is a child that has a store open.
type session struct {
	ledger *ledger
	cmd    *exec.Cmd
	stop   io.Closer // its stdin
	ended  chan struct{}
	err    error // valid once ended is closed
}

// start starts a child that tells its work to l.
func start(l *ledger, role string, args ...string) (*session, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s := &session{ledger: l, cmd: child(role, args...), ended: make(chan struct{})}
	var said bytes.Buffer
	s.cmd.Stdout, s.cmd.Stderr = &said, &said
	s.cmd.ExtraFiles = []*os.File{w}
	if s.stop, err = s.cmd.StdinPipe(); err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, r.Close(), w.Close())
	}
	l.pipeMu.Lock()
	l.pipe = w
	l.pipeMu.Unlock()
	heard := make(chan struct{})
	go func() {
		l.listen(r)
		close(heard)
	}()
	go func() {
		s.err = s.cmd.Wait()
		l.pipeMu.Lock()
		l.pipe = nil
		w.Close()
		l.pipeMu.Unlock()
		<-heard
		r.Close()
		if said.Len() > 0 {
			s.err = fmt.Errorf("%v: the child said: %.4000s", s.err, said.String())
		}
		close(s.ended)
	}()
	return s, nil
}

// childLimit is more than any child needs.
const childLimit = 2 * time.Minute

// finish waits for the end of the child, which it was told to come to, or which it
// comes to by itself.
func (s *session) finish() error {
	select {
	case <-s.ended:
		return errors.Join(s.ledger.trouble(), s.err)
	case <-time.After(childLimit):
		s.cmd.Process.Signal(unix.SIGQUIT) // it says where it is
		<-s.ended
		return errors.Join(fmt.Errorf("the child does not end"), s.err)
	}
}

// kill ends the child now.
func (s *session) kill() error {
	s.cmd.Process.Kill()
	<-s.ended
	return s.ledger.trouble()
}

// voice is what a child speaks with.
type voice struct{ *os.File }

func newVoice() voice { return voice{os.NewFile(3, "pipe")} }

func (v voice) say(words ...any) { v.WriteString(fmt.Sprintln(words...)) }

func (v voice) wrong(err error) int {
	v.say(sayWrong, strings.ReplaceAll(fmt.Sprintf("%.3000s", err), "\n", "; "))
	return 1
}

// open opens the store and says what it has.
func (v voice) open(path string, opts *kv.Options) (*kv.Store, error) {
	s, err := kv.Open(path, opts)
	if err != nil {
		return nil, err
	}
	it := s.Iter(nil)
	for k, val := range it.All() {
		n, err := writeOf(string(k), val)
		if err != nil {
			return s, err
		}
		v.say(sayHas, string(k), n)
	}
	if err := it.Err(); err != nil {
		return s, err
	}
	v.say(sayOpened)
	return s, nil
}

func init() {
	roles["look"] = func(args []string) int {
		v := newVoice()
		if err := look(v, args[0], args[1]); err != nil {
			return v.wrong(err)
		}
		return 0
	}
	roles["work"] = func(args []string) int {
		v := newVoice()
		if err := work(v, args[0], args[1], args[2]); err != nil {
			return v.wrong(err)
		}
		return 0
	}
}

// look opens a store, after what has become of it, says what it has, verifies it,
// opens it again, writes on, and looks once more.
func look(v voice, path, first string) error {
	n, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		v.say(sayGone)
		return nil
	}
	a, b := pairNames(looker)
	for round := range 3 {
		s, err := v.open(path, &kv.Options{Durability: kv.SyncManual})
		if err != nil {
			return fmt.Errorf("open %d: %w", round, err)
		}
		if r, err := s.Verify(context.Background()); err != nil || len(r.Violations) > 0 {
			return fmt.Errorf("verify after open %d: %v %v", round, err, r.Violations)
		}
		if round == 1 {
			key := keyName(looker, 0)
			v.say(sayPut, looker, n, key)
			if err := s.PutDurable([]byte(key), valueOf(key, n)); err != nil {
				return err
			}
			v.say(sayKept, looker, n)
			v.say(sayPair, looker, n+1, a, b)
			err := s.Update(func(tx *kv.Tx) error {
				return errors.Join(tx.Put([]byte(a), valueOf(a, n+1)), tx.Put([]byte(b), valueOf(b, n+1)))
			})
			if err != nil {
				return err
			}
			v.say(sayDone, looker, n+1)
			if val, err := s.Get([]byte(key)); err != nil || !bytes.Equal(val, valueOf(key, n)) {
				return fmt.Errorf("reading back: %w", err)
			}
		}
		v.say(saySync, "close")
		if err := s.Close(); err != nil {
			return err
		}
		v.say(saySynced, "close")
	}
	return nil
}

// toil is a child's work on a store.
type toil struct {
	voice
	path string
	opts kv.Options

	// mu is held shared by who uses the store, and alone by who replaces or clears it.
	mu    sync.RWMutex
	store *kv.Store // guarded by mu

	last atomic.Uint64 // number of the last write
	stop atomic.Bool
}

// work works on a store until its stdin ends.
func work(v voice, path, first, seed string) error {
	n, err1 := strconv.ParseUint(first, 10, 64)
	sd, err2 := strconv.ParseUint(seed, 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(sd, n))
	t := &toil{voice: v, path: path, opts: kv.Options{
		Durability: kv.Durability(rng.IntN(3)),
		SyncEvery:  time.Duration(1+rng.IntN(20)) * time.Millisecond,
		SyncBytes:  oneOf[int64](rng, 16<<10, 256<<10, -1),
		CompactAt:  oneOf(rng, -1, 0.1, 0.5),
		MaxSize:    12 << 20,
	}}
	t.last.Store(n)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		t.stop.Store(true)
	}()
	return t.run(sd)
}

// run has the workers work until stop, and closes the store.
func (t *toil) run(seed uint64) (err error) {
	if t.store, err = t.open(t.path, &t.opts); err != nil {
		return err
	}
	errs := make(chan error)
	for w := range looker {
		go func() { errs <- t.worker(w, rand.New(rand.NewPCG(seed, uint64(w)))) }()
	}
	for range looker {
		if e := <-errs; e != nil {
			t.stop.Store(true)
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return errors.Join(err, t.store.Close())
	}
	return t.close()
}

func (t *toil) close() error {
	t.say(saySync, "close")
	if err := t.store.Close(); err != nil {
		return err
	}
	t.say(saySynced, "close")
	return nil
}

// worker writes, one thing after another.
func (t *toil) worker(w int, rng *rand.Rand) error {
	for !t.stop.Load() {
		var err error
		switch d := rng.IntN(1000); {
		case d < 5:
			err = t.alone(rng)
		case d < 12:
			err = t.together(w, func() error { _, err := t.store.Compact(context.Background()); return err })
		case d < 40:
			err = t.together(w, func() error { return t.store.Sync() })
		case d < 55:
			err = t.together(w, t.waitDurable)
		case d < 80:
			err = t.writeBack(rng)
		case d < 200:
			err = t.delete(w, rng)
		case d < 400:
			err = t.pair(w, rng)
		default:
			err = t.put(w, rng)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// alone does what no other write may be beside of.
func (t *toil) alone(rng *rand.Rand) (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rng.IntN(3) == 0 {
		n := t.last.Add(1)
		t.say(sayClear, n)
		if err := t.store.Clear(); err != nil {
			return err
		}
		t.say(sayKept, 0, n)
		return nil
	}
	if err := t.close(); err != nil {
		return err
	}
	s, err := t.open(t.path, &t.opts)
	if err != nil {
		t.stop.Store(true)
		return err
	}
	t.store = s
	return nil
}

// together does what makes durable all that has returned.
func (t *toil) together(w int, do func() error) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	id := fmt.Sprint(w, ".", t.last.Add(1))
	t.say(saySync, id)
	if err := do(); err != nil {
		return t.unlessFull(err)
	}
	t.say(saySynced, id)
	return nil
}

// waitDurable waits until the store says that what it has is durable. With
// SyncPeriodic that comes by itself.
func (t *toil) waitDurable() error {
	now := t.store.Stats().Revision
	for t.store.Stats().DurableRevision < now {
		if t.opts.Durability == kv.SyncManual {
			return t.store.Sync()
		}
		if err := t.store.Stats().Poisoned; err != nil {
			return err
		}
		time.Sleep(100 * time.Microsecond)
	}
	return nil
}

// writeBack has the kernel begin to write some pages of the file, without a flush,
// as it does when it thinks fit.
func (t *toil) writeBack(rng *rand.Rand) error {
	f, err := os.Open(t.path)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	pages := fi.Size()/4096 + 1
	first := oneOf(rng, 0, rng.Int64N(pages))
	return unix.SyncFileRange(int(f.Fd()), first*4096, (1+rng.Int64N(pages))*4096, unix.SYNC_FILE_RANGE_WRITE)
}

// unlessFull is nil where nothing has changed for want of space, be it that there
// was none to open the store again.
func (t *toil) unlessFull(err error) error {
	if errors.Is(err, kv.ErrFull) && !errors.Is(err, kv.ErrPoisoned) || errors.Is(err, kv.ErrClosed) && t.stop.Load() {
		return nil
	}
	return err
}

// returned says what has become of write n of worker w.
func (t *toil) returned(w int, n uint64, durable bool, err error) error {
	switch {
	case err != nil && t.unlessFull(err) == nil:
		t.say(sayFull, w, n)
		return nil
	case err != nil:
		return err
	case durable || t.opts.Durability == kv.SyncAlways:
		t.say(sayKept, w, n)
	default:
		t.say(sayDone, w, n)
	}
	return nil
}

func (t *toil) put(w int, rng *rand.Rand) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	key, n, durable := keyName(w, rng.IntN(workerKeys)), t.last.Add(1), rng.IntN(10) == 0
	value := valueOf(key, n)
	t.say(sayPut, w, n, key)
	if durable {
		return t.returned(w, n, true, t.store.PutDurable([]byte(key), value))
	}
	return t.returned(w, n, false, t.store.Put([]byte(key), value))
}

func (t *toil) pair(w int, rng *rand.Rand) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	a, b := pairNames(w)
	n, durable := t.last.Add(1), rng.IntN(4) == 0
	t.say(sayPair, w, n, a, b)
	return t.returned(w, n, durable, t.store.Update(func(tx *kv.Tx) error {
		if durable {
			tx.Durable()
		}
		return errors.Join(tx.Put([]byte(a), valueOf(a, n)), tx.Put([]byte(b), valueOf(b, n)))
	}))
}

func (t *toil) delete(w int, rng *rand.Rand) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	key, n := keyName(w, rng.IntN(workerKeys)), t.last.Add(1)
	t.say(sayDelete, w, n, key)
	return t.returned(w, n, false, t.store.Delete([]byte(key)))
}
