package tests

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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

const (
	killWriters = 4
	killKeys    = 8 // of each writer, beside its pair
)

func killKey(w, k int) string { return fmt.Sprintf("writer %d key %d", w, k) }

func init() {
	roles["writer"] = func(args []string) int { return report(killWriter(args[0], args[1])) }
}

// killWriter writes until it is killed. Before and after each write it says so
// on stdout, a line of at most a pipe's atomic size: "+" attempted, "=" acknowledged.
func killWriter(path, round string) error {
	n, _ := strconv.Atoi(round)
	opts := kv.Options{Durability: kv.Durability(n % 3), CompactAt: []float64{-1, 0.1}[n/3%2], SyncEvery: 5 * time.Millisecond}
	s, err := kv.Open(path, &opts)
	if err != nil {
		return err
	}
	fmt.Println("open")
	failed := make(chan error)
	for w := range killWriters {
		go func() { failed <- killWriterLoop(s, w, n) }()
	}
	if n%4 == 1 {
		go func() {
			for {
				if _, err := s.Compact(context.Background()); err != nil {
					failed <- err
					return
				}
				time.Sleep(3 * time.Millisecond)
			}
		}()
	}
	return <-failed
}

func say(sign, key string, seq uint64) {
	os.Stdout.WriteString(fmt.Sprintf("%s %d %s\n", sign, seq, key))
}

func killWriterLoop(s *kv.Store, w, round int) error {
	rng := rand.New(rand.NewPCG(uint64(w), uint64(round)))
	size := func() int {
		if rng.IntN(50) == 0 {
			return rng.IntN(300 << 10)
		}
		return rng.IntN(500)
	}
	a, b := fmt.Sprintf("pair %d a", w), fmt.Sprintf("pair %d b", w)
	// Numbers go on ascending from round to round, whatever was deleted.
	seq := uint64(round) << 32
	for {
		seq++
		switch i := rng.IntN(20); {
		case i < 12:
			key := killKey(w, rng.IntN(killKeys))
			say("+", key, seq)
			if err := s.Put([]byte(key), statement(key, seq, size())); err != nil {
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
}

// ledger is what a parent knows of its writers.
type ledger struct {
	mu        sync.Mutex
	attempted map[string]uint64
	acked     map[string]uint64
	deleted   map[string]uint64
}

func newLedger() *ledger {
	return &ledger{attempted: map[string]uint64{}, acked: map[string]uint64{}, deleted: map[string]uint64{}}
}

// listen notes what a child says until the pipe ends, and returns what it says
// that is none of this.
func (l *ledger) listen(r io.Reader, opened chan<- struct{}) (other string) {
	lines := bufio.NewScanner(r)
	once := sync.OnceFunc(func() { close(opened) })
	defer once()
	for lines.Scan() {
		sign, rest, _ := bytes.Cut(lines.Bytes(), []byte(" "))
		num, key, _ := bytes.Cut(rest, []byte(" "))
		seq, err := strconv.ParseUint(string(num), 10, 64)
		l.mu.Lock()
		switch {
		case string(sign) == "open":
			once()
		case err != nil:
			other += lines.Text() + "\n"
		case string(sign) == "+":
			l.attempted[string(key)] = seq
		case string(sign) == "=":
			l.acked[string(key)] = seq
		case string(sign) == "-":
			l.acked[string(key)], l.deleted[string(key)] = seq, seq
		}
		l.mu.Unlock()
	}
	return other
}

// check compares the store with the ledger.
func (l *ledger) check(s *kv.Store) error {
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
// Method: a child writes with several goroutines and tells what it attempts and
// what was acknowledged; the parent kills it at random, opens the one store, and
// compares. Some children are killed while they still open. A follower looks on.
func TestKill(t *testing.T) {
	rounds := 24 * *scaleFlag
	if testing.Short() {
		rounds = 6
	}
	seed := seeds(1)[0]
	rng := rand.New(rand.NewPCG(uint64(seed), 99))
	path := storePath(t)
	open(t, path, nil).Close()
	l := newLedger()
	var clears atomic.Uint64
	stop := make(chan struct{})
	followed := make(chan error, 1)
	go func() { followed <- followKilled(path, &clears, stop) }()
	for round := range rounds {
		if round > 0 && round%7 == 0 {
			clears.Add(1)
			s := open(t, path, &kv.Options{LockTimeout: 20 * time.Second})
			must(t, s.Clear())
			clears.Add(1)
			must(t, s.Close())
			l = newLedger()
		}
		killOnce(t, l, path, round, time.Duration(rng.IntN(120))*time.Millisecond, rng.IntN(4) == 0)
		if t.Failed() {
			t.Fatalf("round %d of seed %d; the file is kept at %s", round, seed, keep(t, path))
		}
		select {
		case err := <-followed:
			t.Fatalf("round %d of seed %d: the follower: %v", round, seed, err)
		default:
		}
	}
	close(stop)
	if err := <-followed; err != nil {
		t.Errorf("the follower: %v", err)
	}
	if len(l.acked) == 0 {
		t.Fatal("nothing was acknowledged: nothing was tested")
	}
}

// killOnce lets a child write for a while, from its opening on or, early, from
// its start, kills it, and checks the store.
func killOnce(t *testing.T, l *ledger, path string, round int, after time.Duration, early bool) {
	t.Helper()
	cmd := child("writer", path, strconv.Itoa(round))
	out, err := cmd.StdoutPipe()
	must(t, err)
	var trouble bytes.Buffer
	cmd.Stderr = &trouble
	must(t, cmd.Start())
	opened, said := make(chan struct{}), make(chan string)
	go func() { said <- l.listen(out, opened) }()
	if early {
		after /= 5
	} else {
		<-opened
	}
	time.Sleep(after)
	cmd.Process.Kill()
	other := <-said
	cmd.Wait()
	if other != "" || trouble.Len() > 0 {
		t.Errorf("the child said: %.2000s%.2000s", other, trouble.String())
	}
	s, err := kv.Open(path, &kv.Options{LockTimeout: 20 * time.Second})
	if err != nil {
		t.Errorf("open after the kill: %v", err)
		return
	}
	defer s.Close()
	if err := l.check(s); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(path + "*"); err != nil || len(left) != 1 {
		t.Errorf("beside the store lies what the dead left: %v %v", left, err)
	}
}

// keep copies a file to where it outlives the test.
func keep(t *testing.T, path string) string {
	dir, err := os.MkdirTemp("", "mmapkv-kept")
	must(t, err)
	to := filepath.Join(dir, "store")
	copyFile(t, path, to)
	return to
}
