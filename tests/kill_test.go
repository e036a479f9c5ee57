package tests

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/mmapkv/mmapkv/kv"
)

// A value of these tests describes itself, so that a wrong one shows: sum of the
// rest, number of the write, key.

// statement is the value of key at its seq-th write, padded to size bytes.
func statement(key string, seq uint64, size int) []byte {
	v := make([]byte, 16, max(16+len(key), size))
	binary.LittleEndian.PutUint64(v[8:], seq)
	v = append(v, key...)
	for len(v) < size {
		v = append(v, byte(seq)+byte(len(v)))
	}
	binary.LittleEndian.PutUint64(v, xxhash.Sum64(v[8:]))
	return v
}

// seqOf checks that value is a statement of key, and returns which.
func seqOf(key string, value []byte) (uint64, error) {
	if len(value) < 16+len(key) || binary.LittleEndian.Uint64(value) != xxhash.Sum64(value[8:]) || string(value[16:16+len(key)]) != key {
		return 0, fmt.Errorf("key %q has %d bytes that nobody wrote: %.40q", key, len(value), value)
	}
	return binary.LittleEndian.Uint64(value[8:]), nil
}

// readSeq is seqOf of what the store has; 0 where it has nothing.
func readSeq(s *kv.Store, key string) (uint64, error) {
	v, err := s.Get([]byte(key))
	if err == kv.ErrNotFound {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return seqOf(key, v)
}

var killsFlag = flag.Int("kills", 24, "children to kill in TestKill")

const (
	killWriters = 4
	killKeys    = 8 // of each writer, beside its pair
)

func killKey(w, k int) string { return fmt.Sprintf("writer %d key %d", w, k) }

// killKinds are what a child does beside its writes, and so in the midst of what
// it can be killed. Each round has the next kind, each durability comes to each.
var killKinds = []string{"write", "compact", "close", "clear"}

// killPhases are what a child announces that it is in the midst of: "recover" is
// to open what was killed, "open" what was closed; in "grow" a write is under way
// for which the file is too short, in "grown" the file has been made longer and
// no write has been acknowledged since. "checkpoint" is one in the background or that
// of Close.
var killPhases = map[string][]string{
	"write":   {"recover", "grow", "grown", "checkpoint"},
	"compact": {"recover", "compact", "grown", "checkpoint"},
	"close":   {"open", "close", "grow", "checkpoint"},
	"clear":   {"open", "clear", "grown", "checkpoint"},
}

// killCheckpoints are how much may be written between two checkpoints, round by round;
// -1: none is taken or used.
var killCheckpoints = []int64{1, 16 << 10, 1, 256 << 10, 1, 16 << 10, -1}

// phaseLog is the handler of a child's Logger: it announces the checkpoints.
type phaseLog struct{ slog.Handler }

func (phaseLog) Enabled(context.Context, slog.Level) bool { return true }

func (phaseLog) Handle(_ context.Context, r slog.Record) error {
	switch r.Message {
	case "a checkpoint begins":
		sayPhase(">", "checkpoint")
	case "a checkpoint was taken":
		sayPhase("<", "checkpoint")
	}
	return nil
}

func init() {
	roles["writer"] = func(args []string) int {
		round, _ := strconv.Atoi(args[1])
		return report((&killWriter{path: args[0], round: round, dirty: args[2] == "dirty"}).run())
	}
}

// killWriter is a child that writes until it is killed. Before and after each write
// it says so on stdout, a line of at most a pipe's atomic size: "+" attempted, "="
// acknowledged; ">" and "<" are around the phases.
type killWriter struct {
	path  string
	round int
	dirty bool // the file is that of one who was killed
	seq   [killWriters]uint64
	rng   [killWriters]*rand.Rand
}

func sayPhase(sign, phase string) { os.Stdout.WriteString(sign + " " + phase + "\n") }

// during does what it announces.
func during(phase string, do func() error) error {
	sayPhase(">", phase)
	err := do()
	sayPhase("<", phase)
	return err
}

func (c *killWriter) run() error {
	kind := killKinds[c.round%len(killKinds)]
	opts := kv.Options{
		Durability: kv.Durability(c.round / len(killKinds) % 3), CompactAt: []float64{-1, 0.1}[c.round/(3*len(killKinds))%2], SyncEvery: 5 * time.Millisecond,
		CheckpointBytes: killCheckpoints[c.round%len(killCheckpoints)], Logger: slog.New(phaseLog{}),
		Hooks: &kv.Hooks{Grown: func(int64, int64, time.Duration, error) { sayPhase(">", "grown") }},
	}
	for w := range killWriters {
		c.rng[w] = rand.New(rand.NewPCG(uint64(w), uint64(c.round)))
		// Numbers go on ascending from round to round, whatever was deleted.
		c.seq[w] = uint64(c.round) << 32
	}
	phase := "open"
	if c.dirty {
		phase = "recover"
	}
	for {
		var s *kv.Store
		err := during(phase, func() (err error) { s, err = kv.Open(c.path, &opts); return err })
		if err != nil {
			return err
		}
		phase = "open"
		switch kind {
		case "compact":
			compacted := make(chan error, 1)
			go func() { compacted <- compactForEver(s) }()
			return errors.Join(c.write(s, math.MaxInt), <-compacted)
		case "clear":
			for err == nil {
				err = c.write(s, 20)
				if err == nil {
					err = during("clear", s.Clear)
				}
			}
		case "close":
			if err = c.write(s, 20); err == nil {
				err = during("close", s.Close)
			}
		default:
			err = c.write(s, math.MaxInt)
		}
		if err != nil {
			return err
		}
	}
}

// compactForEver compacts with as long a pause as each compaction took.
func compactForEver(s *kv.Store) error {
	for {
		start := time.Now()
		err := during("compact", func() error { _, err := s.Compact(context.Background()); return err })
		if err != nil {
			return err
		}
		time.Sleep(time.Since(start))
	}
}

// write makes n writes with each writer.
func (c *killWriter) write(s *kv.Store, n int) error {
	failed := make(chan error)
	for w := range killWriters {
		go func() { failed <- c.writeOne(s, w, n) }()
	}
	var err error
	for range killWriters {
		err = errors.Join(err, <-failed)
	}
	return err
}

func say(sign, key string, seq uint64) {
	os.Stdout.WriteString(fmt.Sprintf("%s %d %s\n", sign, seq, key))
}

func (c *killWriter) writeOne(s *kv.Store, w, n int) error {
	rng := c.rng[w]
	size := func() int {
		if rng.IntN(50) == 0 {
			return rng.IntN(300 << 10)
		}
		return rng.IntN(500)
	}
	a, b := fmt.Sprintf("pair %d a", w), fmt.Sprintf("pair %d b", w)
	for range n {
		c.seq[w]++
		seq := c.seq[w]
		switch i := rng.IntN(20); {
		case i < 12:
			key, n := killKey(w, rng.IntN(killKeys)), size()
			put := func() error { return s.Put([]byte(key), statement(key, seq, n)) }
			say("+", key, seq)
			var err error
			if st := s.Stats(); int64(n) > st.FileBytes-st.Tail {
				err = during("grow", put)
			} else {
				err = put()
			}
			if err != nil {
				return err
			}
			say("=", key, seq)
		case i < 19:
			say("+", a, seq)
			err := s.Update(func(tx *kv.Tx) error {
				return errors.Join(tx.Put([]byte(a), statement(a, seq, size())), tx.Put([]byte(b), statement(b, seq, size())))
			})
			if err != nil {
				return err
			}
			say("=", a, seq)
		default:
			key := "gone " + strconv.Itoa(w)
			say("+", key, seq)
			if err := s.Put([]byte(key), statement(key, seq, size())); err != nil {
				return err
			}
			if err := s.Delete([]byte(key)); err != nil {
				return err
			}
			say("-", key, seq)
		}
	}
	return nil
}

// ledger is what a parent knows of its writers.
type ledger struct {
	mu        sync.Mutex
	attempted map[string]uint64
	acked     map[string]uint64
	deleted   map[string]uint64

	phases map[string]int // that the child is in the midst of, and how often
	last   []string       // lines that it said last
	aim    string         // a phase
	nth    int            // the announcement of aim that closes hit
	hit    chan struct{}
}

func newLedger() *ledger {
	l := &ledger{}
	l.forget()
	return l
}

// forget is what a Clear does.
func (l *ledger) forget() {
	l.attempted, l.acked, l.deleted = map[string]uint64{}, map[string]uint64{}, map[string]uint64{}
}

// expect prepares for another child, and returns what is closed when it announces
// a phase for the nth time, or has ended.
func (l *ledger) expect(phase string, nth int) <-chan struct{} {
	l.phases, l.last, l.aim, l.nth, l.hit = map[string]int{}, nil, phase, nth, make(chan struct{})
	return l.hit
}

// listen notes what a child says until the pipe ends, and returns what it says
// that is none of this.
func (l *ledger) listen(r io.Reader) (other string) {
	lines := bufio.NewScanner(r)
	once := sync.OnceFunc(func() { close(l.hit) })
	defer once()
	for lines.Scan() {
		l.mu.Lock()
		if l.last = append(l.last, lines.Text()); len(l.last) > 30 {
			l.last = l.last[1:]
		}
		sign, rest, _ := strings.Cut(lines.Text(), " ")
		if sign == ">" && rest == l.aim {
			if l.nth--; l.nth < 0 {
				once()
			}
		}
		if !l.note(sign, rest) {
			other += lines.Text() + "\n"
		}
		l.mu.Unlock()
	}
	return other
}

// note notes a line, and tells whether it is one of a writer's.
func (l *ledger) note(sign, rest string) bool {
	num, key, _ := strings.Cut(rest, " ")
	seq, err := strconv.ParseUint(num, 10, 64)
	switch {
	case sign == ">" && (rest == "grown" || rest == "checkpoint"): // which may fail
		l.phases[rest] = 1
	case sign == ">":
		l.phases[rest]++
	case sign == "<" && rest == "checkpoint":
		l.phases[rest] = 0
	case sign == "<":
		l.phases[rest]--
		if rest == "clear" {
			l.forget()
		}
	case err != nil:
		return false
	case sign == "+":
		l.attempted[key] = seq
	case sign == "=":
		l.acked[key] = seq
		l.phases["grown"] = 0
	case sign == "-":
		l.acked[key], l.deleted[key] = seq, seq
	default:
		return false
	}
	return true
}

// check compares the store with the ledger. Who was killed in a Clear has cleared
// all or nothing.
func (l *ledger) check(s *kv.Store) error {
	if l.phases["clear"] > 0 && s.Len() == 0 {
		l.forget()
	}
	for key, attempted := range l.attempted {
		got, err := readSeq(s, key)
		if err != nil {
			return err
		}
		switch {
		case got == 0 && (l.acked[key] == 0 || strings.HasPrefix(key, "gone")):
		case got < l.acked[key]:
			return fmt.Errorf("key %q has write %d, acknowledged were %d", key, got, l.acked[key])
		case got > attempted:
			return fmt.Errorf("key %q has write %d, attempted were %d", key, got, attempted)
		case got == l.deleted[key]:
			return fmt.Errorf("key %q has write %d, whose deletion was acknowledged", key, got)
		}
	}
	it := s.Iter(nil)
	for k, v := range it.All() {
		if _, err := seqOf(string(k), v); err != nil {
			return err
		}
		if _, ok := l.attempted[string(k)]; !ok && !bytes.HasPrefix(k, []byte("pair")) {
			return fmt.Errorf("key %q was never written", k)
		}
	}
	for w := range killWriters {
		a, err := readSeq(s, fmt.Sprintf("pair %d a", w))
		if err != nil {
			return err
		}
		b, err := readSeq(s, fmt.Sprintf("pair %d b", w))
		if err != nil {
			return err
		}
		if a != b {
			return fmt.Errorf("half a transaction: pair %d has %d and %d", w, a, b)
		}
	}
	return errors.Join(it.Err(), sound(s))
}

// followKilled reads through a read-only handle until stop, and checks that no
// key ever goes back, nor goes without a Clear.
func followKilled(path string, clears *atomic.Uint64, stop <-chan struct{}) error {
	f, err := kv.Open(path, &kv.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer f.Close()
	type sight struct {
		seq, clears uint64
		gone        bool
	}
	newest := map[string]sight{}
	for {
		for w := range killWriters {
			for k := range killKeys {
				key := killKey(w, k)
				before := clears.Load()
				got, err := readSeq(f, key)
				if err != nil {
					return err
				}
				was := newest[key]
				// clears is odd while a Clear is under way.
				cleared := was.gone || was.clears%2 == 1 || clears.Load() != was.clears
				if got < was.seq && (got != 0 || !cleared) {
					return fmt.Errorf("key %q went from write %d to %d", key, was.seq, got)
				}
				newest[key] = sight{max(got, was.seq), before, got == 0}
			}
		}
		select {
		case <-stop:
			return nil
		case <-time.After(time.Millisecond):
		}
	}
}

// Goal: what was acknowledged survives the death of the process at any instant,
// nothing else appears, and it stays so, generation after generation.
// Method: a child writes with several goroutines and tells what it attempts, what
// was acknowledged, and what else it is in the midst of; the parent kills it some
// microseconds after it announced a phase, or at any time, opens the one store,
// and compares. Half of the time it only reads, so that the next child has to
// recover, and can be killed as it does. A follower looks on.
func TestKill(t *testing.T) {
	rounds := *killsFlag
	if testing.Short() {
		rounds = min(rounds, 6)
	}
	seed := seeds(1)[0]
	k := &killLab{path: storePath(t), image: storePath(t), rng: rand.New(rand.NewPCG(uint64(seed), 99)), ledger: newLedger(), hits: map[string]int{}}
	open(t, k.path, nil).Close()
	var clears atomic.Uint64
	stop := make(chan struct{})
	followed := make(chan error, 1)
	go func() { followed <- followKilled(k.path, &clears, stop) }()
	acknowledged := 0
	for k.round = range rounds {
		clearing := killKinds[k.round%len(killKinds)] == "clear"
		if clearing {
			clears.Add(1)
		}
		k.kill(t)
		if clearing {
			clears.Add(1)
		}
		acknowledged += len(k.ledger.acked)
		if t.Failed() {
			t.Fatalf("round %d of seed %d, to be killed in %q, was killed in %v; the file is kept at %s; the child said last:\n%s",
				k.round, seed, k.ledger.aim, k.ledger.phases, keep(t, k.image), strings.Join(k.ledger.last, "\n"))
		}
		select {
		case err := <-followed:
			t.Fatalf("round %d of seed %d: the follower: %v", k.round, seed, err)
		default:
		}
	}
	close(stop)
	if err := <-followed; err != nil {
		t.Errorf("the follower: %v", err)
	}
	if acknowledged == 0 {
		t.Fatal("nothing was acknowledged: nothing was tested")
	}
	t.Logf("%d kills, in the midst of: %v; a checkpoint served %d times to read it", rounds, k.hits, k.resumed)
	if k.resumed == 0 && rounds >= 12 {
		t.Error("it was never opened by a checkpoint")
	}
	for _, phases := range killPhases {
		for _, phase := range phases {
			if k.hits[phase] == 0 && rounds >= 200 {
				t.Errorf("nobody was killed in %q", phase)
			}
		}
	}
}

// killLab kills children that write one store, one after the other.
type killLab struct {
	path, image string
	rng         *rand.Rand
	ledger      *ledger
	round       int
	dirty       bool // nobody has recovered the file since the last kill
	hits        map[string]int
	resumed     int // times that a checkpoint served to open the store read-only
}

// kill lets a child write until it is in some phase, kills it, and checks the
// store.
func (k *killLab) kill(t *testing.T) {
	t.Helper()
	kind := killKinds[k.round%len(killKinds)]
	phase := killPhases[kind][k.rng.IntN(len(killPhases[kind]))]
	nth, after := k.rng.IntN(4), time.Duration(1<<k.rng.IntN(12))*time.Microsecond
	state := "clean"
	if k.dirty {
		state = "dirty"
	}
	if kind == "write" || kind == "compact" {
		if phase == "recover" {
			nth = 0
			if !k.dirty {
				phase = "open"
			}
		}
	}
	if k.rng.IntN(4) == 0 {
		phase, after = "", time.Duration(k.rng.IntN(120))*time.Millisecond
	}
	hit := k.ledger.expect(phase, nth)
	cmd := child("writer", k.path, strconv.Itoa(k.round), state)
	out, err := cmd.StdoutPipe()
	must(t, err)
	var trouble bytes.Buffer
	cmd.Stderr = &trouble
	must(t, cmd.Start())
	said := make(chan string)
	go func() { said <- k.ledger.listen(out) }()
	if phase != "" {
		select {
		case <-hit:
		case <-time.After(2 * time.Second): // it does not come to that: then here
		}
	}
	// Sleep would round it up.
	for start := time.Now(); time.Since(start) < after; {
		if after > 2*time.Millisecond {
			time.Sleep(after)
		}
	}
	cmd.Process.Kill()
	other := <-said
	cmd.Wait()
	if other != "" || trouble.Len() > 0 {
		t.Errorf("the child said: %.2000s%.2000s", other, trouble.String())
	}
	for phase, n := range k.ledger.phases {
		if n > 0 {
			k.hits[phase]++
		}
	}
	copyFile(t, k.path, k.image)
	copyCheckpoint(t, k.path, k.image)
	// What the next child finds beside the store is what this one left, or Close.
	k.dirty = k.rng.IntN(2) == 0
	s, err := kv.Open(k.path, &kv.Options{LockTimeout: 20 * time.Second, ReadOnly: k.dirty, CheckpointBytes: killCheckpoints[k.rng.IntN(len(killCheckpoints))]})
	if err != nil {
		t.Errorf("open after the kill: %v", err)
		return
	}
	if k.dirty && s.Stats().Checkpoint > 0 { // a writer may have taken one itself
		k.resumed++
	}
	if err := errors.Join(k.ledger.check(s), s.Close()); err != nil {
		t.Error(err)
	}
	if left := filesAt(k.path + "*"); !k.dirty && len(left) != 1 {
		t.Errorf("beside the store lies what the dead left: %v", left)
	}
}

// keep copies a file to where it outlives the test.
func keep(t *testing.T, path string) string {
	dir, err := os.MkdirTemp("", "mmapkv-kept")
	must(t, err)
	to := filepath.Join(dir, "store")
	copyFile(t, path, to)
	copyCheckpoint(t, path, to)
	return to
}
