package kv

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

var intakeCuts = flag.Int("intake.cuts", 12, "places at which TestIntake cuts a long log")

// written is a store's state after each of its writes.
type written struct {
	ends    []int64             // where the log ended after the write
	changes []map[string]string // what it set; "" for what it deleted
}

// writeLong writes a log that is worth a goroutine: puts, deletes, and transactions
// of which some are longer than a batch.
func writeLong(t *testing.T, s *Store, r *rand.Rand) (w written) {
	t.Helper()
	for s.Stats().Tail < 3*intakeShort {
		n := 1
		switch r.IntN(40) {
		case 0:
			n = intakeLen + r.IntN(2*intakeLen)
		case 1, 2, 3:
			n = 1 + r.IntN(intakeLen)
		}
		change := make(map[string]string)
		err := s.Update(func(tx *Tx) error {
			for len(change) < n {
				key := fmt.Sprint("key-", r.IntN(8000))
				if r.IntN(5) == 0 && n == 1 {
					change[key] = ""
					return tx.Delete([]byte(key))
				}
				change[key] = fmt.Sprint(len(w.ends), "-", r.Uint32())
				if err := tx.Put([]byte(key), []byte(change[key])); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		w.ends, w.changes = append(w.ends, s.Stats().Tail), append(w.changes, change)
	}
	return w
}

// at returns the state that a log which ends at end has.
func (w *written) at(end int64) map[string]string {
	state := make(map[string]string)
	for i := range w.ends {
		if w.ends[i] > end {
			break
		}
		maps.Copy(state, w.changes[i])
	}
	maps.DeleteFunc(state, func(_, v string) bool { return v == "" })
	return state
}

// Goal: an index that is rebuilt from a long log, by one processor or by several, is
// that of the whole writes in it, transactions longer than a batch included. Method:
// the log is cut anywhere, and each copy is opened, verified and compared with what
// was written before the cut.
func TestIntake(t *testing.T) {
	seed := *seedFlag
	r := rand.New(rand.NewPCG(seed, 0))
	s := openTest(t, &Options{Durability: SyncManual, CompactAt: -1})
	w := writeLong(t, s, r)
	image := bytes.Clone(s.gen.Load().bytes()[:s.Stats().Tail])
	for i := range *intakeCuts {
		cut := crc.HeaderSize + r.Int64N(int64(len(image))-crc.HeaderSize+1)
		if i == 0 {
			cut = int64(len(image))
		}
		for _, processors := range []int{1, max(2, runtime.NumCPU())} {
			name := fmt.Sprintf("cut at %d, %d processors; replay: go test ./kv -run 'TestIntake$' -seed %d -intake.cuts %d", cut, processors, seed, i+1)
			path := filepath.Join(t.TempDir(), "store")
			if err := os.WriteFile(path, image[:cut], 0o600); err != nil {
				t.Fatal(err)
			}
			before := runtime.GOMAXPROCS(processors)
			got, err := Open(path, &Options{CompactAt: -1})
			runtime.GOMAXPROCS(before)
			if err != nil {
				t.Fatal(name, err)
			}
			mustVerify(t, got)
			state := make(map[string]string)
			it := got.Iter(nil)
			for k, v := range it.All() {
				state[string(k)] = string(v)
			}
			if want := w.at(cut); it.Err() != nil || !maps.Equal(state, want) || got.Len() != len(want) {
				t.Errorf("%s: %v; %d keys, Len %d, want %d", name, it.Err(), len(state), got.Len(), len(want))
			}
			if err := got.Close(); err != nil {
				t.Error(name, err)
			}
		}
	}
}

// replayAlone replays the log of the store at path into a fresh generation, to which
// prepare does something first.
func replayAlone(t *testing.T, s *Store, end int64, prepare func(g *generation)) (g *generation, scan scanner, why, err error) {
	t.Helper()
	f, err := s.disk.Open(s.path, mmapfile.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	h, err := s.readHeader(f)
	if err != nil {
		t.Fatal(err)
	}
	g = newGeneration(f, h.Header)
	scan = newScanner(g, g.bytes()[:end])
	prepare(g)
	_, why, err = s.replay(g, &scan)
	if !g.index.mu.TryLock() {
		t.Fatal("somebody still enters records")
	}
	g.index.mu.Unlock()
	return g, scan, why, err
}

// Goal: where the goroutine that enters records fails, replay ends with its error, and
// nobody waits for it in vain; the index counts the keys that it has all the same. Method:
// it gets no memory.
func TestIntakeFails(t *testing.T) {
	s := openTest(t, &Options{Durability: SyncManual, CompactAt: -1})
	fillStore(t, s, 300_000)
	for _, chunks := range []int64{0, 1} { // more are needed
		g, _, why, err := replayAlone(t, s, s.Stats().Tail, func(g *generation) {
			var left atomic.Int64
			left.Store(chunks)
			g.index.more = func(huge bool) (chunk, error) {
				if left.Add(-1) < 0 {
					return chunk{}, mmapfile.ErrNoAddressSpace
				}
				return newChunk(huge)
			}
		})
		if why != nil || !errors.Is(err, mmapfile.ErrNoAddressSpace) {
			t.Errorf("memory for %d chunks: %v, %v", chunks, why, err)
		}
		if v := g.index.check(); len(v) > 0 {
			t.Errorf("memory for %d chunks: %v", chunks, v)
		}
	}
}

// Goal: a fault in what is scanned is why the scan ends, and all before it is entered; a
// fault in what the goroutine looks at is an error. Method: the file is cut beneath the
// mapping; an index names records behind the cut.
func TestIntakeFaults(t *testing.T) {
	s := openTest(t, &Options{Durability: SyncManual, CompactAt: -1})
	fillStore(t, s, 60_000)
	end := s.Stats().Tail
	image := bytes.Clone(s.gen.Load().bytes()[:end])
	path := filepath.Join(t.TempDir(), "store")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	at := &Store{path: path, disk: osDisk{}, opts: s.opts}
	const cut = 4 << 20
	g, scan, why, err := replayAlone(t, at, end, func(*generation) {
		if err := os.Truncate(path, cut); err != nil {
			t.Fatal(err)
		}
	})
	fault, ok := why.(*mmapfile.FaultError)
	if err != nil || !ok || fault.Off < cut || scan.off > fault.Off {
		t.Fatalf("%v, %v, scanned to %d", why, err, scan.off)
	}
	if g.end.Load() != scan.off || g.count.Load() == 0 || g.index.keys.Load() != g.count.Load() {
		t.Errorf("scanned to %d, entered to %d; %d records, %d keys", scan.off, g.end.Load(), g.count.Load(), g.index.keys.Load())
	}

	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	var ends int64
	_, _, why, err = replayAlone(t, at, cut, func(g *generation) {
		// The slots of the keys name the records at the end of the file, as if these
		// were older.
		log := g.bytes()
		behind := newScanner(g, log)
		behind.off = int64(crc.HeaderSize)
		var records []logRecord
		for behind.off < end {
			r, err := behind.next()
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, r)
		}
		for i := range records[:20] {
			last := &records[len(records)-1-i]
			if _, err := g.index.put(g.index.hash.sum(records[i].entry.Key), last.entry.Key, last.off); err != nil {
				t.Fatal(err)
			}
			ends = last.off
		}
		if err := os.Truncate(path, cut); err != nil {
			t.Fatal(err)
		}
	})
	if fault, ok := err.(*mmapfile.FaultError); why != nil || !ok || fault.Off < min(ends, cut) {
		t.Errorf("the goroutine met a fault: %v, %v", why, err)
	}
}
