package processes

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

const (
	comersAtOnce = 3
	comerKeys    = 6 // which each writes at once
)

func init() { roles["comer"] = comeAndGo }

func comerKey(number, i int) []byte { return fmt.Appendf(nil, "%d-%d", number, i) }

// counted returns the count that a value begins with.
func counted(value []byte) uint64 {
	if len(value) < 8 {
		return 0
	}
	return binary.LittleEndian.Uint64(value)
}

// comeAndGo counts its keys up, all of them in each transaction, notes what was acknowledged in
// a file, compacts and syncs now and then, and sooner or later closes the store and ends.
func comeAndGo(p *plan) error {
	ledger, err := os.OpenFile(filepath.Join(p.Diaries, fmt.Sprint("ledger-", p.Number)), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	note := make([]byte, 8)
	_, _ = ledger.ReadAt(note, 0) // nothing yet is 0
	acknowledged := counted(note)
	s, err := kv.Open(p.Path, p.Options.all())
	if err != nil {
		return err
	}
	acknowledge := func(n uint64) error {
		acknowledged = n
		binary.LittleEndian.PutUint64(note, n)
		_, err := ledger.WriteAt(note, 0)
		return err
	}
	rng := rand.New(rand.NewPCG(p.Seed, uint64(p.Number)))
	for {
		err := s.Update(func(tx *kv.Tx) error {
			now, err := tx.Get(comerKey(p.Number, 0))
			if err != nil && err != kv.ErrNotFound {
				return err
			}
			n := counted(now)
			if n < acknowledged || n > acknowledged+1 {
				return fmt.Errorf("has counted to %d, and %d was acknowledged", n, acknowledged)
			}
			if n > acknowledged { // by one who was killed before he noted it, as this one may be
				if err := acknowledge(n); err != nil {
					return err
				}
			}
			value := make([]byte, 8+rng.IntN(3000))
			binary.LittleEndian.PutUint64(value, n+1)
			for i := range comerKeys {
				if err := tx.Put(comerKey(p.Number, i), value); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := acknowledge(acknowledged + 1); err != nil {
			return err
		}
		switch n := rng.IntN(400); {
		case n == 0:
			_, err = s.Compact(context.Background())
		case n < 4:
			err = s.Sync()
		case n == 5:
			return s.Close()
		}
		if err != nil {
			return err
		}
	}
}

// onlooker follows the store, and knows how far each count had come.
type onlooker struct {
	s    *kv.Store
	seen map[string]uint64
}

// look returns what is wrong with what the store shows: each process's keys must agree, and go
// nowhere back.
func (o *onlooker) look() error {
	of := make(map[byte]uint64)
	it := o.s.Iter(nil)
	for k, v := range it.All() {
		n := counted(v)
		if other, ok := of[k[0]]; ok && other != n {
			return fmt.Errorf("%s is at %d, others of its process at %d", k, n, other)
		}
		if before := o.seen[string(k)]; n < before {
			return fmt.Errorf("%s is at %d, and was at %d", k, n, before)
		}
		of[k[0]], o.seen[string(k)] = n, n
	}
	return it.Err()
}

// Goal: processes may open a store, close it, and die at any moment, be it while others do; be
// one of them the last, be it all at once. What was acknowledged stays, and transactions stay
// whole. Method: three that write, compact, close and come again; they are killed and stopped
// at random, while a follower looks on, with a new handle now and then.
func TestComeAndGo(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "store")
	rng := rand.New(rand.NewPCG(*seedFlag, 0))
	var crew [comersAtOnce]*process
	kills, ends, starts := 0, 0, uint64(0)
	come := func(i int) {
		starts++
		crew[i] = start(t, "comer", plan{Path: path, Diaries: dir, Number: i, Seed: rng.Uint64() + starts, Options: options{
			Shared: true, SyncEvery: 5 * time.Millisecond, CheckpointBytes: 256 << 10, LockTimeout: patience, CompactAt: 0.3,
		}})
	}
	for i := range crew {
		come(i)
	}
	o := onlooker{seen: make(map[string]uint64)}
	// Where starting takes long, they are killed before they can end: then those that are left
	// are let be, until one has.
	for n := 0; n < 100*rounds(3) || ends == 0 && n < 10000; n++ {
		time.Sleep(time.Duration(rng.IntN(30)) * time.Millisecond)
		i := rng.IntN(len(crew))
		if crew[i].hasEnded() {
			if text := crew[i].err.String(); text != "" {
				t.Fatal(text)
			}
			ends++
			come(i)
			continue
		}
		if n >= 100*rounds(3) {
			continue
		}
		switch rng.IntN(4) {
		case 0:
			must(t, crew[i].cmd.Process.Signal(syscall.SIGSTOP))
			time.Sleep(time.Duration(rng.IntN(30)) * time.Millisecond)
			must(t, crew[i].cmd.Process.Signal(syscall.SIGCONT))
		case 1, 2:
			all := rng.IntN(10) == 0
			for j, c := range crew {
				if j == i || all {
					kills++
					c.kill()
				}
			}
			for j := range crew {
				if j == i || all {
					come(j)
				}
			}
		case 3:
			if o.s != nil && rng.IntN(5) == 0 {
				must(t, o.s.Close())
				o.s = nil
			}
			if o.s == nil {
				s, err := kv.Open(path, &kv.Options{ReadOnly: true})
				if errors.Is(err, os.ErrNotExist) {
					continue
				}
				must(t, err)
				o.s = s
				t.Cleanup(func() { s.Close() })
			}
			must(t, o.look())
		}
	}
	for _, c := range crew {
		c.kill()
		if text := c.err.String(); text != "" {
			t.Fatal(text)
		}
	}
	o.s = open(t, path, nil)
	must(t, o.look())
	must(t, sound(o.s))
	t.Logf("%d kills, %d that ended by themselves, %d generations", kills, ends, o.s.Stats().Generation)
	if kills == 0 || ends == 0 {
		t.Error("nobody was killed, or none ended by itself")
	}
}

// hasEnded tells whether the child has ended by itself.
func (c *process) hasEnded() bool {
	select {
	case _, ok := <-c.out:
		if !ok {
			c.cmd.Wait()
		}
		return !ok
	default:
		return false
	}
}
