package kv

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
)

// openShared opens handles on one store, which are verified when the test ends.
func openShared(t *testing.T, path string, n int, opts Options) []*Store {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("several writers: on Linux only")
	}
	opts.Shared = true
	handles := make([]*Store, n)
	for i := range handles {
		handles[i] = openTestAt(t, path, &opts)
		if err := handles[i].Put(nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	return handles
}

// wantSame fails the test unless all handles have exactly want.
func wantSame(t *testing.T, handles []*Store, want map[string]string) {
	t.Helper()
	for i, s := range handles {
		got := make(map[string]string)
		it := s.Iter(nil)
		for k, v := range it.All() {
			got[string(k)] = string(v)
		}
		if err := it.Err(); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("handle %d has %v, want %v; %v", i, got, want, err)
		}
		for k, v := range want {
			if got, err := s.Get([]byte(k)); err != nil || string(got) != v {
				t.Fatalf("handle %d: %s is %q, %v; want %q", i, k, got, err, v)
			}
		}
	}
}

// Goal: what one handle did, each other one sees at once, whatever it was, and goes on from
// there. Method: handles by turns, one op each, all looked at after each.
func TestSharedByTurns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	handles := openShared(t, path, 3, Options{CompactAt: -1})
	reader := openTestAt(t, path, &Options{ReadOnly: true})
	want := map[string]string{"": ""}
	big := strings.Repeat("v", 100_000)
	ops := []struct {
		name string
		do   func(s *Store, key string) error
	}{
		{"put", func(s *Store, key string) error { want[key] = "1"; return s.Put([]byte(key), []byte("1")) }},
		{"growth", func(s *Store, key string) error { want[key] = big; return s.Put([]byte(key), []byte(big)) }},
		{"update", func(s *Store, key string) error {
			want[key], want["both"] = "2", key
			return s.Update(func(tx *Tx) error {
				return errors.Join(tx.Put([]byte(key), []byte("2")), tx.Put([]byte("both"), []byte(key)))
			})
		}},
		{"compute", func(s *Store, key string) error {
			want["sum"] += "x"
			return s.Compute([]byte("sum"), func(old []byte, ok bool) ([]byte, Op) { return append(bytes.Clone(old), 'x'), Write })
		}},
		{"delete", func(s *Store, key string) error { delete(want, "both"); return s.Delete([]byte("both")) }},
		{"durable", func(s *Store, key string) error { want[key] = "3"; return s.PutDurable([]byte(key), []byte("3")) }},
		{"sync", func(s *Store, key string) error { return s.Sync() }},
		{"compact", func(s *Store, key string) error { _, err := s.Compact(context.Background()); return err }},
		{"compare and swap", func(s *Store, key string) error {
			was := []byte(want["sum"])
			want["sum"] = "y"
			swapped, err := s.CompareAndSwap([]byte("sum"), was, []byte("y"))
			if err == nil && !swapped {
				err = errors.New("not swapped")
			}
			return err
		}},
		{"clear", func(s *Store, key string) error { clear(want); return s.Clear() }},
	}
	for round := range 6 {
		for i, op := range ops {
			who := (round + i) % len(handles)
			if err := op.do(handles[who], fmt.Sprintf("key %d", i%4)); err != nil {
				t.Fatalf("round %d, %s by handle %d: %v", round, op.name, who, err)
			}
			wantSame(t, append(handles, reader), want)
		}
	}
}

// Goal: Shared handles and one that is not exclude each other, and say who; the last one to
// close leaves the store as an exclusive one does. Method: every order.
func TestSharedExcludes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	handles := openShared(t, path, 2, Options{})
	wantLocked := func(opts *Options, text string) {
		t.Helper()
		_, err := Open(path, opts)
		if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("%s by process %d", text, os.Getpid())) {
			t.Fatalf("open: %v, want ErrLocked, %s by %d", err, text, os.Getpid())
		}
	}
	wantLocked(nil, "shared")
	for i, s := range handles {
		wantLocked(nil, "shared")
		if err := s.Put([]byte("k"), []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantLocked(nil, "shared")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	info, err := Inspect(path)
	if err != nil || info.FileBytes != info.Tail || info.DurableTail != info.Tail {
		t.Fatalf("after the last: %+v, %v", info, err)
	}
	alone := openTestAt(t, path, nil)
	wantLocked(nil, "locked")
	wantLocked(&Options{Shared: true, LockTimeout: time.Millisecond}, "locked")
	if err := alone.Close(); err != nil {
		t.Fatal(err)
	}
	openShared(t, path, 1, Options{})
}

// Goal: a writer that dies before it publishes leaves nothing, and nothing of what it left
// follows a new record. Method: one stores whole records behind the tail and lets the turn go;
// the store is then used by another, and recovered as after the death of all.
func TestSharedLeftover(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "store")
	handles := openShared(t, path, 2, Options{CompactAt: -1})
	dead, s := handles[0], handles[1]
	put := func(s *Store, key string) {
		t.Helper()
		if err := s.Put([]byte(key), []byte("value")); err != nil {
			t.Fatal(err)
		}
	}
	put(s, "1")
	off := leaveBehind(t, dead, []byte("value"), "a", "b", "c")

	put(s, "2")
	if next := s.gen.Load().bytes()[s.gen.Load().end.Load():off]; len(next) == 0 || len(bytes.Trim(next, "\x00")) != 0 {
		t.Fatalf("behind the tail is still %x", next)
	}
	want := map[string]string{"": "", "1": "value", "2": "value"}
	wantSame(t, handles, want)
	left := filepath.Join(dir, "left")
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(left, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, []*Store{openTestAt(t, left, nil)}, want)
}

// Goal: who opens the store to follow it believes no record that was not published, as long as
// there is anybody who will write on; not even one who has not looked since the file was
// replaced. Method: of two writers one compacts, dies with a whole record behind the tail, and
// the other has not noticed.
func TestSharedFollowerBelievesTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	handles := openShared(t, path, 2, Options{CompactAt: -1})
	dead, s := handles[0], handles[1]
	if _, err := dead.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	leaveBehind(t, dead, []byte("value"), "never")
	g := dead.gen.Load()
	g.log.current.Load().Word(crc.HolderOff).Store(0)
	if err := g.file.Close(); err != nil { // as its death does
		t.Fatal(err)
	}
	dead.company.Close()
	reader := openTestAt(t, path, &Options{ReadOnly: true})
	wantSame(t, []*Store{reader}, map[string]string{"": ""})
	if err := s.Put([]byte("after"), []byte("value")); err != nil {
		t.Fatal(err)
	}
	wantSame(t, []*Store{reader, s}, map[string]string{"": "", "after": "value"})
}

// leaveBehind has a handle store whole records behind the tail and let the turn go, as one that
// dies. It returns where they end.
func leaveBehind(t *testing.T, dead *Store, value []byte, keys ...string) (end int64) {
	t.Helper()
	g, err := dead.lockWrites(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	end = g.end.Load()
	for i, key := range keys {
		e := codec.Entry{Key: []byte(key), Value: value, Revision: g.revision.Load() + 1 + uint64(i)}
		n := e.Size()
		g.writtenWord().Store(uint64(end + crc.RecordSize(n)))
		g.encode(&e, n, end, 0)
		end += crc.RecordSize(n)
	}
	dead.unlockWrites(g)
	return end
}

// Goal: a compaction that died before its rename keeps nobody from writing. Method: its word is
// set, and nothing follows.
func TestSharedSuperseded(t *testing.T) {
	handles := openShared(t, filepath.Join(t.TempDir(), "store"), 2, Options{})
	g, err := handles[0].lockWrites(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g.supersede(true)
	handles[0].unlockWrites(g)
	if err := handles[1].Put([]byte("k"), []byte("v")); err != nil {
		t.Fatal(err)
	}
	wantSame(t, handles, map[string]string{"": "", "k": "v"})
}

// Goal: a write waits for its turn as long as LockTimeout says, and Compact as its context
// lasts; then all goes on. Method: another handle's Update that does not end.
func TestSharedTimeout(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	handles := openShared(t, path, 2, Options{LockTimeout: 30 * time.Millisecond})
	err := handles[0].Update(func(tx *Tx) error {
		err := handles[1].Put([]byte("k"), nil)
		if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
			t.Errorf("put: %v, want ErrLocked naming %d", err, os.Getpid())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := handles[1].Compact(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("compact: %v, want the context's", err)
		}
		if _, err := handles[1].Get(nil); err != nil {
			t.Errorf("get: %v", err)
		}
		return tx.Put([]byte("k"), []byte("mine"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := handles[1].Put([]byte("l"), nil); err != nil {
		t.Fatal(err)
	}
	wantSame(t, handles, map[string]string{"": "", "k": "mine", "l": ""})
}

// Goal: counts of several handles add up, while the file grows, is compacted, and read. Method:
// goroutines on each handle count up the same keys, by Compute and by Update.
func TestSharedCounts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	handles := openShared(t, path, 3, Options{})
	const each, keys = 200, 4
	var done sync.WaitGroup
	for i, s := range handles {
		for j := range 2 {
			done.Go(func() {
				for n := range each {
					key := fmt.Appendf(nil, "%d", n%keys)
					add := func(old []byte) []byte { return append(bytes.Clone(old), byte(i)) }
					var err error
					if j == 0 {
						err = s.Compute(key, func(old []byte, _ bool) ([]byte, Op) { return add(old), Write })
					} else {
						err = s.Update(func(tx *Tx) error {
							old, err := tx.Get(key)
							if err != nil && err != ErrNotFound {
								return err
							}
							return tx.Put(key, add(old))
						})
					}
					if err == nil && n%50 == i {
						_, err = s.Compact(context.Background())
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for _, s := range handles {
		readers.Go(func() {
			seen := make([]int, keys)
			for {
				select {
				case <-stop:
					return
				default:
				}
				for k := range keys {
					v, err := s.Get(fmt.Appendf(nil, "%d", k))
					if err != nil && err != ErrNotFound || len(v) < seen[k] {
						t.Errorf("key %d has %d counts after %d; %v", k, len(v), seen[k], err)
						return
					}
					seen[k] = len(v)
				}
			}
		})
	}
	done.Wait()
	close(stop)
	readers.Wait()
	for _, s := range handles {
		for k := range keys {
			if v, err := s.Get(fmt.Appendf(nil, "%d", k)); err != nil || len(v) != 2*len(handles)*each/keys {
				t.Errorf("key %d was counted %d times, want %d; %v", k, len(v), 2*len(handles)*each/keys, err)
			}
		}
	}
}

// Goal: a handle gives way only while somebody waits. Method: one announces that it waits, and
// is gone; soon nothing is left of that.
func TestSharedYieldsToSomebody(t *testing.T) {
	s := openShared(t, filepath.Join(t.TempDir(), "store"), 1, Options{})[0]
	event := s.gen.Load().file.Mapping().Event(crc.TurnOff)
	event.Announce()
	quiet := func() bool {
		if err := s.Put([]byte("k"), nil); err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return !event.Waited() && !s.turns.yields
	}
	for n := 0; !quiet(); n++ {
		if n == 20_000 {
			t.Fatal("it still gives way, to itself")
		}
	}
}

// Goal: the mark is stored in a turn while the last one is being synced in the background.
// Method: two handles that write and sync as often as they can; the race detector judges.
func TestSharedMarks(t *testing.T) {
	handles := openShared(t, filepath.Join(t.TempDir(), "store"), 2, Options{SyncEvery: time.Microsecond})
	var done sync.WaitGroup
	for _, s := range handles {
		done.Go(func() {
			for range 300 {
				if err := s.PutDurable([]byte("k"), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done.Wait()
}

// Goal: nobody who reads sees a part of a transaction that another reader of the handle is
// taking in, nor the state before it where the log seems to end behind it. Method: one handle
// writes long transactions; of another, and of a follower, several goroutines look, in the
// steps that reads are made of.
func TestFollowTakesInWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	handles := openShared(t, path, 2, Options{CompactAt: -1})
	readers := []*Store{handles[1], openTestAt(t, path, &Options{ReadOnly: true})}
	const keys, rounds = 500, 100
	key := func(i int) []byte { return fmt.Appendf(nil, "%d", i) }
	var over atomic.Bool
	var done sync.WaitGroup
	for _, s := range readers {
		done.Go(func() {
			for n := 0; !over.Load(); n++ {
				if _, err := s.Get(key(n % keys)); err != nil && err != ErrNotFound {
					t.Error(err)
				}
			}
		})
		done.Go(func() {
			for g := s.gen.Load(); !over.Load(); {
				v, err := g.view() // as a read that has looked before the transaction was published
				if err != nil {
					t.Error(err)
					return
				}
				v.snap.release()
				if rec, err := crc.Read(g.bytes(), v.last); err != nil || rec.Flags&crc.FlagMore != 0 {
					t.Errorf("a view ends within a transaction, at %d; %v", v.end, err)
					return
				}
			}
		})
		done.Go(func() {
			for g := s.gen.Load(); !over.Load(); {
				word, end := g.tailWord().Load(), g.end.Load()
				if uint64(end) == word && g.applying.Load() != nil && g.tailWord().Load() == word {
					t.Errorf("all is taken in, up to %d, and keys are shown as before", end)
					return
				}
			}
		})
	}
	for n := range uint64(rounds) {
		err := handles[0].Update(func(tx *Tx) error {
			for i := range keys {
				if err := tx.Put(key(i), binary.LittleEndian.AppendUint64(nil, n)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	over.Store(true)
	done.Wait()
}

// Goal: a write gives no revision twice, whatever a reader of its handle is about. Method: a
// reader that has moved the end, and not the revision yet.
func TestSharedWriteAwaitsReader(t *testing.T) {
	handles := openShared(t, filepath.Join(t.TempDir(), "store"), 2, Options{})
	s, g := handles[1], handles[1].gen.Load()
	if _, err := s.Get(nil); err != nil {
		t.Fatal(err)
	}
	s.follow.Lock()
	revision := g.revision.Swap(g.revision.Load() - 1)
	written := make(chan error)
	go func() { written <- s.Put([]byte("k"), []byte("v")) }()
	for busy := false; !busy; {
		var err error
		if busy, err = handles[0].gen.Load().file.ByteLocked(turnLock); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(10 * time.Millisecond) // in which a write that does not wait takes its revision
	g.revision.Store(revision)
	s.follow.Unlock()
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if got := g.revision.Load(); got != revision+1 {
		t.Fatalf("the write got revision %d, want %d", got, revision+1)
	}
}

// Goal: Close does not wait for a turn that others keep, nor does what it ends. Method: another
// handle's Update, within which a handle is closed that is about to write, and one that is
// about to compact, both with all the time in the world.
func TestSharedCloseWaitsForNoTurn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	handles := openShared(t, path, 3, Options{LockTimeout: time.Hour})
	ended := make(chan error, 2)
	err := handles[0].Update(func(*Tx) error {
		event := handles[0].gen.Load().file.Mapping().Event(crc.TurnOff)
		begin := func(op func() error) {
			event.Wake(0)
			go func() { ended <- op() }()
			for !event.Waited() {
				runtime.Gosched()
			}
		}
		begin(func() error { return handles[1].Put(nil, nil) })
		begin(func() error { _, err := handles[2].Compact(context.Background()); return err })
		return errors.Join(handles[1].Close(), handles[2].Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("what was waiting: %v, want ErrClosed", err)
		}
	}
}

// Goal: who opens the store goes by the header as it is once it has the turn. Method: the
// holder changes while it waits.
func TestSharedOpenReadsHeaderInTurn(t *testing.T) {
	handles := openShared(t, filepath.Join(t.TempDir(), "store"), 2, Options{})
	s := handles[0]
	g, err := s.lockWrites(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f, err := handles[1].disk.Open(s.path, s.mode())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	opened := make(chan *head, 1)
	go func() {
		before, err := handles[1].claimShared(f)
		if err != nil {
			t.Error(err)
		}
		opened <- before
	}()
	for event := f.Mapping().Event(crc.TurnOff); !event.Waited(); {
		runtime.Gosched()
	}
	g.log.current.Load().Word(crc.HolderOff).Store(1)
	s.unlockWrites(g)
	if before := <-opened; before == nil || before.holder != 1 {
		t.Fatalf("the header was %+v, want holder 1", before)
	}
}

// Goal: what put a handle's next compaction off does not once another has compacted. Method: as
// after a failure.
func TestSharedCompactionIsDueAgain(t *testing.T) {
	handles := openShared(t, filepath.Join(t.TempDir(), "store"), 2, Options{CompactAt: -1})
	handles[1].compactFrom.Store(1 << 40)
	if _, err := handles[0].Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := handles[1].Get(nil); err != nil {
		t.Fatal(err)
	}
	if got := handles[1].compactFrom.Load(); got != handles[1].compactFloor() {
		t.Fatalf("it begins with %d dead bytes, want %d", got, handles[1].compactFloor())
	}
}

// Goal: a file that was cut after it was mapped, as by the last to close it while somebody
// waited to open it, is opened again. Method: just that.
func TestSharedOpenOfCutFile(t *testing.T) {
	a := openShared(t, filepath.Join(t.TempDir(), "store"), 1, Options{})[0]
	f, err := a.disk.Open(a.path, a.mode())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	s := &Store{path: a.path, opts: a.opts, disk: a.disk}
	if s.company, err = s.disk.OpenName(s.path); err != nil {
		t.Fatal(err)
	}
	defer s.company.Close()
	if before, err := s.claimShared(f); before != nil || err != nil {
		t.Fatalf("%+v, %v", before, err)
	}
}
