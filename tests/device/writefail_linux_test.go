//go:build amd64 || arm64

package device

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapkv/mmapkv/kv"
)

// Goal: a write that the device does not take is not acknowledged; the store takes
// no more of them, and is read on; when the device works again and the store is
// opened again, everything acknowledged is there.
// Method: the device refuses writes or flushes, once or from then on, under each
// thing that makes durable. Under the race detector, half of it.
func TestWriteFails(t *testing.T) {
	for i, fs := range fileSystems {
		for j, f := range []struct {
			name string
			fault
		}{
			{"writes", fault{BadWrite: -1}},
			{"one write", fault{BadWrite: 1}},
			{"flushes", fault{BadFlush: -1}},
			{"one flush", fault{BadFlush: 1}},
		} {
			if raceDetector && (i+j)%2 != 0 {
				continue
			}
			t.Run(fs.name+"/"+f.name, func(t *testing.T) {
				shelf, empty := newShelf(t), fs.format(t)
				for _, do := range []string{"put durable", "update durable", "sync", "compact", "close"} {
					t.Run(do, func(t *testing.T) {
						m := shelf.plug(t, newDevice(empty, fs.whole))
						testWriteFails(t, m, &fs, f.fault, do)
					})
				}
			})
		}
	}
}

func testWriteFails(t *testing.T, m *machine, kind *fileSystem, f fault, do string) {
	if err := m.mount(kind, ""); err != nil {
		t.Fatal(err)
	}
	var kept []string
	for i := range 10 {
		kept = append(kept, fmt.Sprintf("kept-%d", i))
	}
	const size = 5000
	r := newRemote(t)
	r.do(request{Do: "open", Path: storePath(m.dir), Durability: kv.SyncManual})
	r.do(request{Do: "put durable", Keys: kept, Size: size})
	r.do(request{Do: "put", Keys: []string{"written"}, Size: size})

	m.setFault(f)
	a := r.ask(request{Do: do, Keys: []string{"refused"}, Size: size})
	if !a.is("typed") || !a.is("EIO") {
		t.Errorf("%s: %q %q", do, a.Err, a.Is)
	}
	if poisons := do != "compact"; poisons && !a.is("poisoned") {
		t.Errorf("%s: %q %q", do, a.Err, a.Is)
	}
	if do != "close" {
		for k, a := range r.do(request{Do: "read", Keys: append(kept, "written"), Size: size}).Reads {
			if a.Err != "" {
				t.Errorf("reading %s after that: %s", k, a.Err)
			}
		}
		if do == "compact" {
			// It has changed nothing: the next write says how things are. A file system
			// that has shut itself down may refuse the growth before it, which does not
			// poison.
			a = r.ask(request{Do: "put durable", Keys: []string{"after"}, Size: size})
			if a.Err == "" {
				kept = append(kept, "after", "written")
			} else if !a.is("typed") || !a.is("poisoned") && !a.is("EIO") {
				t.Errorf("put durable after that: %q %q", a.Err, a.Is)
			}
		} else {
			m.setFault(fault{}) // what was lost stays lost
			for _, do := range []string{"put", "put durable", "update durable", "sync", "compact"} {
				if a := r.ask(request{Do: do, Keys: []string{"later"}, Size: size}); !a.is("typed") || !a.is("poisoned") {
					t.Errorf("%s after that: %q %q", do, a.Err, a.Is)
				}
			}
		}
		r.ask(request{Do: "close"})
	}
	r.end()

	m.setFault(fault{})
	if err := m.unmount(); err != nil {
		t.Fatal(err)
	}
	if err := m.mount(kind, ""); err != nil {
		t.Fatal(err)
	}
	r = newRemote(t)
	r.do(request{Do: "open", Path: storePath(m.dir)})
	for k, a := range r.do(request{Do: "read", Keys: append(kept, "later"), Size: size}).Reads {
		if k == "later" && !a.is("not found") || k != "later" && a.Err != "" {
			t.Errorf("opened again: %s: %q", k, a.Err)
		}
	}
	r.do(request{Do: "verify"})
	r.do(request{Do: "put durable", Keys: []string{"later"}, Size: size})
	r.do(request{Do: "close"})
	r.end()
}

// Goal: what is acknowledged after a sync has failed, and the store was opened again, lasts,
// though the kernel may hold for written what the device never got. Method: the device refuses
// one write; the store is opened again while the file system goes on, and put to, durably; then
// what the kernel has in memory is gone.
func TestOpenAfterFailedSync(t *testing.T) {
	for _, kind := range fileSystems {
		for _, shared := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/shared %v", kind.name, shared), func(t *testing.T) {
				m := newShelf(t).plug(t, newDevice(kind.format(t), kind.whole))
				testOpenAfterFailedSync(t, m, &kind, shared)
			})
		}
	}
}

func testOpenAfterFailedSync(t *testing.T, m *machine, kind *fileSystem, shared bool) {
	if err := m.mount(kind, ""); err != nil {
		t.Fatal(err)
	}
	const size = 20_000 // some pages of its own
	open := request{Do: "open", Path: storePath(m.dir), Durability: kv.SyncManual, Shared: shared}
	r := newRemote(t)
	r.do(open)
	r.do(request{Do: "put durable", Keys: []string{"before"}, Size: size})
	m.setFault(fault{BadWrite: 1})
	if a := r.ask(request{Do: "put durable", Keys: []string{"refused"}, Size: size}); !a.is("poisoned") || !a.is("EIO") {
		t.Fatalf("put durable on a device that refuses a write: %q %q", a.Err, a.Is)
	}
	m.setFault(fault{})
	r.ask(request{Do: "close"})
	r.do(open)
	kept := []string{"before", "after"}
	r.do(request{Do: "put durable", Keys: kept[1:], Size: size})
	r.do(request{Do: "close"})
	r.end()
	if err := errors.Join(m.unmount(), m.mount(kind, "")); err != nil {
		t.Fatal(err)
	}
	r = newRemote(t)
	open.Path = storePath(m.dir)
	r.do(open)
	for k, a := range r.do(request{Do: "read", Keys: kept, Size: size}).Reads {
		if a.Err != "" {
			t.Errorf("%s was acknowledged as durable: %s", k, a.Err)
		}
	}
	r.do(request{Do: "verify"})
	r.do(request{Do: "close"})
	r.end()
}

func init() {
	roles["fill"] = func(args []string) int {
		v := newVoice()
		if err := fill(v, args[0], args[1]); err != nil {
			return v.wrong(err)
		}
		return 0
	}
}

// fill works on a store while the disk around it is filled up, and for a while
// after that, or until an error other than ErrFull ends it. It returns errors that
// it should not meet.
func fill(v voice, path, seed string) error {
	n, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(n, 0))
	t := &toil{voice: v, path: path, opts: kv.Options{
		Durability: kv.Durability(rng.IntN(3)), SyncBytes: oneOf[int64](rng, 16<<10, -1), CompactAt: oneOf(rng, -1, 0.1),
		SyncEvery: 5 * time.Millisecond,
	}}
	ended := make(chan struct{})
	filled := make(chan error, 1)
	go func() {
		err := fillUp(filepath.Join(filepath.Dir(path), ballast))
		for from, over := t.last.Load(), false; t.last.Load() < from+1000 && !over; {
			select {
			case <-ended:
				over = true
			case <-time.After(time.Millisecond):
			}
		}
		t.stop.Store(true)
		filled <- err
	}()
	err = t.run(n)
	close(ended)
	if full := <-filled; !errors.Is(full, unix.ENOSPC) && !errors.Is(full, unix.EROFS) {
		return fmt.Errorf("filling: %w", full)
	}
	r := replyOf(err)
	v.say(sayNote, fmt.Sprintf("%.300q", r.Is), strings.ReplaceAll(fmt.Sprintf("%.500s", r.Err), "\n", "; "))
	if err != nil && !(r.is("typed") && (r.is("full") || r.is("fault") || r.is("poisoned"))) {
		return err
	}
	return nil
}

// ballast names the file that takes the space.
const ballast = "ballast"

// Goal: a full disk that copies on write, so that there may be no space for what
// was allocated, costs no data that was acknowledged as durable, and no signal.
// Method: a small btrfs is filled up beside a store at work, which goes on for a
// while. The space is freed, and the store opened again.
func TestFullCopyOnWrite(t *testing.T) {
	if raceDetector {
		t.Skip("SKIPPED: in the race detector's own code a fault ends the process: see mmapfile.Guard")
	}
	kind := fileSystemNamed(t, "btrfs")
	shelf, empty := newShelf(t), kind.format(t)
	for i := range uint64(max(2, *cutsFlag/4)) {
		seed := *seedFlag + i
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			l := newLedger()
			m := shelf.plug(t, newDevice(empty, kind.whole))
			if err := m.mount(kind, ""); err != nil {
				t.Fatal(err)
			}
			run := func(role string) {
				t.Helper()
				args := map[string]string{"look": fmt.Sprint(l.next()), "fill": fmt.Sprint(seed)}
				s, err := start(l, role, storePath(m.dir), args[role])
				if err == nil {
					err = s.finish()
				}
				if err != nil {
					path, keepErr := (&picture{&cut{Image: m.content()}, l}).keep()
					t.Fatalf("%v\n%s\nThe image is kept (%v): %s", err, l.tell(), keepErr, path)
				}
			}
			run("fill")
			full := 0
			for _, a := range l.Accounts {
				for _, o := range a.Ops {
					if o.Kind == sayFull {
						full++
					}
				}
			}
			t.Logf("%d writes of %d found no space, and the store ended with: %q", full, l.next(), l.notes)
			if err := os.Remove(filepath.Join(m.dir, ballast)); err != nil {
				t.Fatal(err)
			}
			if i%2 == 1 {
				if err := errors.Join(m.unmount(), m.mount(kind, "")); err != nil {
					t.Fatal(err)
				}
			}
			run("look")
		})
	}
}

// fillUp writes to a file until nothing more goes in, in ever smaller pieces.
func fillUp(path string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 1 << 20; size >= 4096; size /= 4 {
		piece := make([]byte, size)
		for i := range piece {
			piece[i] = byte(rand.Uint32()) // not to be compressed
		}
		for err = nil; err == nil; err = f.Sync() {
			if _, err = f.Write(piece); err != nil {
				break
			}
		}
		var at *fs.PathError
		if !errors.As(err, &at) {
			return err
		}
	}
	return err
}
