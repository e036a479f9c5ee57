package processes

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/mmapkv/mmapkv/kv"
	"golang.org/x/sys/unix"
)

func init() { roles["counter"] = count }

// counterKeys have numbers, which only grow: the first is counted by itself, the other two
// together, and both have the same.
var counterKeys = [3][]byte{[]byte("alone"), []byte("pair a"), []byte("pair b")}

// common is memory that all processes of a test share: the highest number of the first key, and
// of the other two, that anybody has seen.
type common [2]*atomic.Uint64

const commonSize = 16 // bytes

// openCommon maps a file of commonSize bytes.
func openCommon(path string) (c common, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return c, err
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, commonSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return c, err
	}
	for i := range c {
		c[i] = (*atomic.Uint64)(unsafe.Pointer(&b[8*i]))
	}
	return c, nil
}

// see notes that somebody has seen n.
func see(word *atomic.Uint64, n uint64) {
	for was := word.Load(); was < n && !word.CompareAndSwap(was, n); was = word.Load() {
	}
}

// look reads a key, and sees to it that it is no older than what anybody had seen before.
func (c common) look(s *kv.Store, k int) error {
	word := c[min(k, 1)]
	before := word.Load()
	b, err := s.Get(counterKeys[k])
	if err != nil {
		return err
	}
	n := binary.LittleEndian.Uint64(b)
	if n < before {
		return fmt.Errorf("read %d of %q, after somebody had seen %d", n, counterKeys[k], before)
	}
	see(word, n)
	return nil
}

// add adds one to the first key, or to the other two.
func (c common) add(s *kv.Store, pair bool) (err error) {
	var n uint64
	next := func(old []byte) []byte {
		n = binary.LittleEndian.Uint64(old) + 1
		return binary.LittleEndian.AppendUint64(nil, n)
	}
	word := c[0]
	if pair {
		word = c[1]
	}
	before := word.Load()
	if pair {
		err = s.Update(func(tx *kv.Tx) error {
			b, err := tx.Get(counterKeys[1])
			if err != nil {
				return err
			}
			return errors.Join(tx.Put(counterKeys[1], next(b)), tx.Put(counterKeys[2], next(b)))
		})
	} else {
		err = s.Compute(counterKeys[0], func(old []byte, _ bool) ([]byte, kv.Op) { return next(old), kv.Write })
	}
	if err == nil && n <= before {
		err = fmt.Errorf("counted to %d, after somebody had seen %d", n, before)
	}
	see(word, n)
	return err
}

// count is a child in which one goroutine looks on, and, if the plan says so, another counts and a
// third compacts now and then. It says how often it counted.
func count(p *plan) error {
	words := bufio.NewScanner(os.Stdin)
	c, err := openCommon(filepath.Join(p.Diaries, "common"))
	if err != nil {
		return err
	}
	s, err := kv.Open(p.Path, p.Options.all())
	if err != nil {
		return err
	}
	fmt.Println("open")
	var quit atomic.Bool
	var all sync.WaitGroup
	var counted [2]int // alone, together
	failed := make(chan error, 3)
	loop := func(fn func(i int) error) {
		all.Go(func() {
			for i := 0; !quit.Load(); i++ {
				if err := fn(i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	loop(func(i int) error { time.Sleep(p.Pause); return c.look(s, i%len(counterKeys)) })
	if p.Jobs == "count" {
		loop(func(i int) error { counted[i%2]++; return c.add(s, i%2 == 1) })
		loop(func(int) error {
			time.Sleep(50 * time.Millisecond)
			_, err := s.Compact(context.Background())
			return err
		})
	}
	words.Scan()
	quit.Store(true)
	all.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	fmt.Println("counted", counted[0], counted[1])
	return s.Close()
}

// Goal: once anybody has seen a write, in whichever process, nobody reads what was before it.
// Method: one process counts, or two do, others follow; a goroutine of each reads as fast as it
// can. They share memory that has the highest numbers which anybody has seen, so that no clock
// nor file comes between two looks. The end must be the sum of what all counted.
func TestCounter(t *testing.T) {
	for _, tc := range []struct {
		name  string
		jobs  [4]string     // of a process; "": it has the store open read-only
		pause time.Duration // between two looks
	}{
		{"one counts", [...]string{"count", "look", "", ""}, time.Microsecond}, // who wakes up takes the processor from who counts, wherever that is
		{"two count", [...]string{"count", "count", "", ""}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path, folder := storePath(t), t.TempDir()
			must(t, os.WriteFile(filepath.Join(folder, "common"), make([]byte, commonSize), 0o600))
			s := open(t, path, nil)
			for _, key := range counterKeys {
				must(t, s.Put(key, make([]byte, 8)))
			}
			must(t, s.Close())
			var counters []*process
			for n, jobs := range tc.jobs {
				opts := options{Durability: kv.SyncManual, Shared: jobs != "", ReadOnly: jobs == ""}
				c := start(t, "counter", plan{Path: path, Diaries: folder, Number: n, Options: opts, Jobs: jobs, Pause: tc.pause})
				c.hear(t, "open")
				counters = append(counters, c)
			}
			time.Sleep(time.Second * time.Duration(*scaleFlag))
			wantTotal(t, path, endCounters(t, counters))
		})
	}
}

// endCounters ends the children, and returns how often they counted together.
func endCounters(t *testing.T, counters []*process) (total [2]uint64) {
	t.Helper()
	for _, c := range counters {
		c.say(t, wordRest)
	}
	for _, c := range counters {
		var alone, together uint64
		_, err := fmt.Sscan(c.hear(t, "counted "), &alone, &together)
		must(t, err)
		total[0], total[1] = total[0]+alone, total[1]+together
		c.end(t)
	}
	t.Logf("counted %v", total)
	return total
}

// wantTotal fails the test unless the store at path has the numbers.
func wantTotal(t *testing.T, path string, total [2]uint64) {
	t.Helper()
	s := open(t, path, nil)
	for k, key := range counterKeys {
		b, err := s.Get(key)
		must(t, err)
		if got, want := binary.LittleEndian.Uint64(b), total[min(k, 1)]; got != want || want == 0 {
			t.Errorf("%q has %d, all counted %d", key, got, want)
		}
	}
	must(t, sound(s))
}
