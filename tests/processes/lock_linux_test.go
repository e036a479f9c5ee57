package processes

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

func init() {
	roles["holder"] = hold
	roles["sitter"] = sit
	roles["opener"] = tryOpen
	roles["racer"] = race
}

// hold is a child that stays within a transaction until it is told to go on.
func hold(p *plan) error {
	words := bufio.NewScanner(os.Stdin)
	s, err := kv.Open(p.Path, p.Options.all())
	if err != nil {
		return err
	}
	err = s.Update(func(tx *kv.Tx) error {
		if err := errors.Join(tx.Put([]byte("a"), []byte("held")), tx.Put([]byte("b"), []byte("held"))); err != nil {
			return err
		}
		fmt.Println("inside")
		if !words.Scan() {
			return errOrphan
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Println("outside")
	words.Scan()
	return s.Close()
}

// sit is a child that has the store open and does nothing.
func sit(p *plan) error {
	s, err := kv.Open(p.Path, p.Options.all())
	if err != nil {
		return err
	}
	fmt.Println("open")
	bufio.NewScanner(os.Stdin).Scan()
	return s.Close()
}

// tryOpen is a child that says what Open says.
func tryOpen(p *plan) error {
	s, err := kv.Open(p.Path, p.Options.all())
	if err == nil {
		err = s.Close()
		fmt.Println("opened")
	} else {
		text, _ := json.Marshal(err.Error())
		fmt.Println("refused", errors.Is(err, kv.ErrLocked), string(text))
		err = nil
	}
	return err
}

// Goal: who waits for another process's lock waits as long as LockTimeout says, hears who has
// it, and has changed nothing; readers do not wait at all. When the holder goes on, or dies, so
// do the others, and of a transaction that was not finished nothing shows. Method: a child is
// stopped within a transaction, and goes on, or is killed.
func TestLockTimeout(t *testing.T) {
	for _, ending := range []string{"goes on", "killed", "killed while it is stopped"} {
		t.Run(ending, func(t *testing.T) {
			path := storePath(t)
			short := open(t, path, &kv.Options{Shared: true, LockTimeout: 30 * time.Millisecond})
			long := open(t, path, &kv.Options{Shared: true, LockTimeout: time.Hour})
			third := open(t, path, &kv.Options{Shared: true, LockTimeout: time.Hour})
			follower := open(t, path, &kv.Options{ReadOnly: true})
			must(t, long.Put([]byte("a"), []byte("before")))
			c := start(t, "holder", plan{Path: path, Options: options{Shared: true}})
			c.hear(t, "inside")
			c.stop(t)

			waits := make(chan error, 1)
			go func() { waits <- long.Put([]byte("waited"), []byte("yes")) }()
			for name, write := range writes(short) {
				if err := write(); !errors.Is(err, kv.ErrLocked) || !names(err.Error(), c.pid()) {
					t.Errorf("%s: %v, want ErrLocked that names %d", name, err, c.pid())
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			defer cancel()

			if _, err := third.Compact(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Compact with a deadline: %v", err)
			}
			for _, s := range []*kv.Store{short, long, follower} {
				wantGet(t, s, "a", "before")
				wantGet(t, s, "b", "")
				must(t, sound(s))
			}

			want := "before"
			switch ending {
			case "goes on":
				c.signal(t, syscall.SIGCONT)
				c.say(t, "go on")
				c.hear(t, "outside")
				want = "held"
			case "killed":
				c.signal(t, syscall.SIGCONT)
				c.kill()
			default:
				c.kill()
			}
			must(t, <-waits)
			must(t, long.Put([]byte("after"), []byte("yes")))
			must(t, short.Put([]byte("short"), []byte("yes")))
			fresh := open(t, path, &kv.Options{Shared: true})
			for _, s := range []*kv.Store{short, long, follower, fresh} {
				all := map[string]string{}
				it := s.Iter(nil)
				for k, v := range it.All() {
					all[string(k)] = string(v)
				}
				must(t, it.Err())
				wanted := map[string]string{"a": want, "waited": "yes", "after": "yes", "short": "yes"}
				if want == "held" {
					wanted["b"] = want
				}
				if fmt.Sprint(all) != fmt.Sprint(wanted) {
					t.Errorf("has %v, want %v", all, wanted)
				}
				must(t, sound(s))
			}
			if ending == "goes on" {
				c.end(t)
			}
		})
	}
}

// writes are the ways to change a store, each of which would show.
func writes(s *kv.Store) map[string]func() error {
	k, v := []byte("refused"), []byte("no")
	return map[string]func() error{
		"Put":        func() error { return s.Put(k, v) },
		"PutDurable": func() error { return s.PutDurable(k, v) },
		"PutTTL":     func() error { return s.PutTTL(k, v, time.Hour) },
		"Delete":     func() error { return s.Delete([]byte("a")) },
		"Compute":    func() error { return s.Compute(k, func([]byte, bool) ([]byte, kv.Op) { return v, kv.Write }) },
		"CompareAndSwap": func() error {
			_, err := s.CompareAndSwap(k, nil, v)
			return err
		},
		"Update":  func() error { return s.Update(func(tx *kv.Tx) error { return tx.Put(k, v) }) },
		"Clear":   s.Clear,
		"Compact": func() error { _, err := s.Compact(context.Background()); return err },
	}
}

// Goal: shared and exclusive handles exclude each other, in every order, in one process and
// between two, and who is refused hears by whom; followers, and the tool's reading verbs, work
// beside either. Method: all pairs.
func TestExclusion(t *testing.T) {
	tool := buildTool(t)
	for _, tc := range []struct {
		first, second string
		ok            bool
	}{
		{"shared", "shared", true}, {"shared", "exclusive", false}, {"exclusive", "shared", false}, {"exclusive", "exclusive", false},
	} {
		t.Run(tc.first+", "+tc.second, func(t *testing.T) {
			path := storePath(t)
			first, second := options{Shared: tc.first == "shared"}, options{Shared: tc.second == "shared", LockTimeout: time.Millisecond}

			check := func(holder int) {
				t.Helper()
				s, err := kv.Open(path, second.all())
				if tc.ok {
					must(t, err)
					must(t, s.Close())
				} else {
					wantLocked(t, err, holder)
					wantKind(t, err.Error(), path, tc.first)
				}
				c := start(t, "opener", plan{Path: path, Options: second})
				if tc.ok {
					c.hear(t, "opened")
				} else {
					text := c.hear(t, "refused true ")
					if !names(text, holder) {
						t.Errorf("another process hears %s, want that it names %d", text, holder)
					}
					wantKind(t, text, path, tc.first)
				}
				c.end(t)
				beside(t, tool, path)
			}

			s := open(t, path, first.all())
			must(t, s.Put([]byte("k"), []byte("v")))
			check(os.Getpid())
			_, err := s.Compact(t.Context()) // the lock is on another file from here on
			must(t, err)
			check(os.Getpid())
			must(t, s.Clear())
			must(t, s.Put([]byte("k"), []byte("v")))
			check(os.Getpid())
			must(t, s.Close())

			c := start(t, "sitter", plan{Path: path, Options: first})
			c.hear(t, "open")
			check(c.pid())
			c.kill()
			must(t, open(t, path, second.all()).Close())
		})
	}
}

// wantKind fails the test unless an error about the store at path says what kind of handle
// there is.
func wantKind(t *testing.T, text, path, kind string) {
	t.Helper()
	text = strings.ReplaceAll(text, path, "")
	if shared := strings.Contains(text, "shared"); shared != (kind == "shared") {
		t.Errorf("does not say that it is %s: %s", kind, text)
	}
}

// buildTool builds kvtool.
func buildTool(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kvtool")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Dir = filepath.Join("..", "..", "cmd", "kvtool")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// beside runs a follower, and the tool's reading verbs, on a store with the key k.
func beside(t *testing.T, tool, path string) {
	t.Helper()
	f, err := kv.Open(path, &kv.Options{ReadOnly: true})
	must(t, err)
	wantGet(t, f, "k", "v")
	must(t, f.Close())
	for _, args := range [][]string{{"get", path, "k"}, {"scan", path}, {"info", path}, {"inspect", path}, {"check", path}, {"export", path}} {
		if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
			t.Errorf("kvtool %s: %v\n%s", args[0], err, out)
		}
	}
}

// race is a child that puts as fast as it can from the word on until the next, and says
// how often.
func race(p *plan) error {
	words := bufio.NewScanner(os.Stdin)
	s, err := kv.Open(p.Path, p.Options.all())
	if err != nil {
		return err
	}
	fmt.Println("open")
	words.Scan()
	quit, count := make(chan struct{}), 0
	go func() { words.Scan(); close(quit) }()
	for key := keyName(p.Prefix, p.Number); ; count++ {
		select {
		case <-quit:
			fmt.Println("count", count)
			return s.Close()
		default:
		}
		if err := s.Put(key, key); err != nil {
			return err
		}
	}
}

// starved is the part of what each of the writers would get if all got the same, below
// which one is starved.
const starved = 0.05

// Goal: of writers that want the lock all the time, each gets it.
// Method: 8 processes put as fast as they can for a while. None may have less than a
// small part of its share.
func TestFairness(t *testing.T) {
	path := storePath(t)
	var racers []*process
	for n := range writers {
		c := start(t, "racer", plan{Path: path, Options: options{Shared: true, Durability: kv.SyncManual}, Number: n, Prefix: "racer"})
		c.hear(t, "open")
		racers = append(racers, c)
	}
	for _, c := range racers {
		c.say(t, "go")
	}
	time.Sleep(time.Second * time.Duration(*scaleFlag))
	for _, c := range racers {
		c.say(t, "stop")
	}
	total, counts := 0, make([]int, len(racers))
	for i, c := range racers {
		n, err := strconv.Atoi(c.hear(t, "count "))
		must(t, err)
		counts[i] = n
		total += n
		c.end(t)
	}
	t.Logf("puts of each: %v", counts)
	for _, n := range counts {
		if float64(n) < starved*float64(total)/float64(len(counts)) {
			t.Errorf("a writer was starved: %v", counts)
		}
	}
}
