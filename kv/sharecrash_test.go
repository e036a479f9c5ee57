package kv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// sharedOn opens handles on one store on a disk whose power is cut.
func sharedOn(t *testing.T, n int) (*powerDisk, []*Store) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("several writers: on Linux only")
	}
	d, err := newPowerDisk(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	handles := make([]*Store, n)
	for i := range handles {
		s, err := openOn(d, filepath.Join(d.dir, storeName), &Options{Shared: true, Durability: SyncManual, SyncEvery: time.Hour, CompactAt: -1, CheckpointBytes: -1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		handles[i] = s
	}
	return d, handles
}

// wantAfterCut fails the test unless an image shows exactly these keys.
func wantAfterCut(t *testing.T, img image, keys ...string) {
	t.Helper()
	dir := t.TempDir()
	if err := img.rebooted(1).write(dir); err != nil {
		t.Fatal(err)
	}
	s := openTestAt(t, filepath.Join(dir, storeName), nil)
	wantKeys(t, s, keys...)
}

// wantKeys fails the test unless s has exactly these keys, in their order.
func wantKeys(t *testing.T, s *Store, keys ...string) {
	t.Helper()
	var got []string
	it := s.Iter(nil)
	for k := range it.All() {
		got = append(got, string(k))
	}
	slices.Sort(got)
	if it.Err() != nil || !slices.Equal(got, keys) {
		t.Fatalf("has %q, want %q; %v", got, keys, it.Err())
	}
}

// Goal: what a writer that died has left does not come back behind a new record, on the device
// neither. Method: the kernel has written what it left; the next writer's record is as long as
// the first of that, and of all that came later the device has got that record alone.
func TestSharedLeftoverOnDevice(t *testing.T) {
	d, handles := sharedOn(t, 2)
	dead, s := handles[0], handles[1]
	r := &powerRun{s: s, states: []storeState{{}}}
	put := func(key string) (end int64) {
		t.Helper()
		if err := s.Put([]byte(key), make([]byte, r.sizeToEndAt(key, pageSize))); err != nil {
			t.Fatal(err)
		}
		return s.Stats().Tail
	}
	off := put("base")
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	end := leaveBehind(t, dead, make([]byte, r.sizeToEndAt("lost", pageSize)), "lost", "stale")
	node := d.current[storeName]
	node.durable = node.content()
	next := put("next")
	if next-off != pageSize || end <= next {
		t.Fatalf("the new record ends at %d, what was left lies from %d to %d", next, off, end)
	}
	b := bytes.Clone(node.durable)
	copy(b[off:next], node.content()[off:])
	wantAfterCut(t, image{storeName: b}, "base", "next")
}

// Goal: a handle that goes over to a new generation promises nothing before its name is
// durable. Method: who has compacted dies before it syncs the directory; another one writes
// durably; the power is cut.
func TestSharedNameDurable(t *testing.T) {
	d, handles := sharedOn(t, 2)
	if err := handles[0].PutDurable([]byte("a"), nil); err != nil {
		t.Fatal(err)
	}
	handles[0].disk = noDirSync{d}
	if _, err := handles[0].Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := handles[1].PutDurable([]byte("b"), nil); err != nil {
		t.Fatal(err)
	}
	wantAfterCut(t, image{storeName: d.names[storeName].durable}, "a", "b")
}

// noDirSync is a disk whose directories are not synced.
type noDirSync struct{ disk }

func (noDirSync) OpenDir(string) (directory, error) {
	return heldDir{func() error { return nil }}, nil
}

// Goal: what a compaction has synced does not count as durable before the name of its file is.
// Method: Stats of the handle that compacts, when it is about to sync the directory.
func TestSharedDurableNotBeforeName(t *testing.T) {
	d, handles := sharedOn(t, 2)
	if err := handles[1].Put([]byte("k"), nil); err != nil {
		t.Fatal(err)
	}
	d.call = func(what string) {
		if what != "before SyncDir" {
			return
		}
		if got := handles[0].Stats().DurableRevision; got != 0 {
			t.Errorf("revision %d counts as durable", got)
		}
	}
	if _, err := handles[0].Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.call = nil
	if got := handles[0].Stats().DurableRevision; got != 1 {
		t.Errorf("after it, revision %d counts as durable, want 1", got)
	}
}

// Goal: the mark is stored in a turn alone. Method: one handle syncs while another has the turn.
func TestSharedMarkInTurn(t *testing.T) {
	handles := openShared(t, filepath.Join(t.TempDir(), "store"), 2, Options{Durability: SyncManual, SyncEvery: time.Hour})
	marks := func() string {
		return string(handles[0].gen.Load().bytes()[crc.MarkOff(0) : crc.MarkOff(1)+crc.MarkSize])
	}
	var before string
	err := handles[0].Update(func(tx *Tx) error {
		before = marks()
		if err := handles[1].Sync(); err != nil {
			t.Error(err)
		}
		if marks() != before {
			t.Error("a mark was stored in another handle's turn")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := handles[1].Put([]byte("k"), nil); err != nil {
		t.Fatal(err)
	}
	if marks() == before {
		t.Error("the next turn has stored no mark")
	}
}

// Goal: whoever has read a value, through whichever handle, nobody reads an older one any more.
// Method: one handle counts up; a reader asks by turns that handle and another.
func TestSharedReadsAgree(t *testing.T) {
	handles := openShared(t, filepath.Join(t.TempDir(), "store"), 2, Options{Durability: SyncManual, SyncEvery: time.Hour, CompactAt: -1})
	const puts = 40_000
	key := []byte("count")
	var done atomic.Bool
	var writer sync.WaitGroup
	writer.Go(func() {
		defer done.Store(true)
		for i := range uint64(puts) {
			if err := handles[0].Put(key, binary.BigEndian.AppendUint64(nil, i)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer writer.Wait()
	buf, last := make([]byte, 8), uint64(0)
	for i := 0; !done.Load(); i++ {
		b, err := handles[i%2].GetAppend(buf[:0], key)
		if err == ErrNotFound {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		n := binary.BigEndian.Uint64(b)
		if n < last {
			t.Fatalf("handle %d shows %d after %d was read by handle %d", i%2, n, last, 1-i%2)
		}
		last = n
	}
}

// staleTail returns the path of a store with the keys a and b whose tail word is behind the
// first, as a power cut may leave it.
func staleTail(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("several writers: on Linux only")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, storeName)
	s := openTestAt(t, path, &Options{Durability: SyncManual, SyncEvery: time.Hour})
	mustPut(t, s, "a", "1")
	tail := s.Stats().Tail
	mustPut(t, s, "b", "2")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	putTail(b, uint64(tail))
	left := t.TempDir()
	if err := (image{storeName: b}).rebooted(1).write(left); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(left, storeName)
}

// Goal: of two who open a store at once after a power cut, the first recovers it. Method: both
// have come to wait for the turn, which a third has.
func TestSharedOpenersRecover(t *testing.T) {
	path := staleTail(t)
	third, err := mmapfile.Open(path, mmapfile.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	if had, err := third.TryLockByte(turnLock, false); !had || err != nil {
		t.Fatal(had, err)
	}
	var waiting, done sync.WaitGroup
	for range 2 {
		waiting.Add(1)
		asked := sync.OnceFunc(waiting.Done)
		on := wrapDisk{osDisk{}, func(_ string, f file) file { return &turnFile{file: f, asked: asked} }}
		done.Go(func() {
			s, err := openOn(on, path, &Options{Shared: true})
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			wantKeys(t, s, "a", "b")
		})
	}
	waiting.Wait()
	if err := third.UnlockByte(turnLock); err != nil {
		t.Fatal(err)
	}
	done.Wait()
}

// Goal: an Open that comes while the holder closes the store, and gives its slack back, is none
// of an empty or damaged store. Method: the holder closes when the other one has mapped the
// file, and is about to lock it.
func TestOpenMeetsClose(t *testing.T) {
	for _, opts := range []Options{{}, {Shared: true}} {
		t.Run(fmt.Sprintf("shared %v", opts.Shared), func(t *testing.T) {
			if opts.Shared && runtime.GOOS != "linux" {
				t.Skip("several writers: on Linux only")
			}
			path := filepath.Join(t.TempDir(), storeName)
			holder, err := Open(path, nil)
			if err != nil {
				t.Fatal(err)
			}
			mustPut(t, holder, "k", "v")
			on := wrapDisk{osDisk{}, func(_ string, f file) file { return meetingFile{f, func() { holder.Close() }} }}
			s, err := openOn(on, path, &opts)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			mustPut(t, s, "l", string(make([]byte, pageSize)))
			wantKeys(t, s, "k", "l")
		})
	}
}

// meetingFile does something before it is locked.
type meetingFile struct {
	file
	before func()
}

func (f meetingFile) TryLock(holderOff int64) error {
	f.before()
	return f.file.TryLock(holderOff)
}

func (f meetingFile) TryShare() error {
	f.before()
	return f.file.TryShare()
}

// refreshedFile does something after its length has been looked at.
type refreshedFile struct {
	file
	after func()
}

func (f refreshedFile) Refresh() error {
	err := f.file.Refresh()
	f.after()
	return err
}

// Goal: who opens a store to read shows what it holds, and no fault and no damage, whoever comes
// to write meanwhile. Method: a store with space behind its log, left by a death; while it is
// read by its records, a writer cuts the space off, or stores a record that it does not publish.
func TestFollowerMeetsWriter(t *testing.T) {
	full := openTestAt(t, filepath.Join(t.TempDir(), storeName), &Options{Durability: SyncManual})
	mustPut(t, full, "k", "v")
	left, err := os.ReadFile(full.path)
	if err != nil {
		t.Fatal(err)
	}
	clear(left[crc.HolderOff : crc.HolderOff+16])
	for name, meet := range map[string]func(t *testing.T, path string){
		"one who closes": func(t *testing.T, path string) {
			if err := openTestAt(t, path, nil).Close(); err != nil {
				t.Fatal(err)
			}
		},
		"one who stores": func(t *testing.T, path string) {
			w := openTestAt(t, path, &Options{Durability: SyncManual})
			mustPut(t, w, "k", "v")
			leaveBehind(t, w, nil, "unpublished")
		},
	} {
		for _, salvage := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, salvage %v", name, salvage), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), storeName)
				if err := os.WriteFile(path, left, 0o600); err != nil {
					t.Fatal(err)
				}
				came := false
				come := sync.OnceFunc(func() { came = true; meet(t, path) })
				on := wrapDisk{osDisk{}, func(_ string, f file) file { return refreshedFile{f, come} }}
				s, err := openOn(on, path, &Options{ReadOnly: true, Salvage: salvage, Hooks: &Hooks{
					Corrupted: func(err *CorruptError) { t.Error(err) },
				}})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if !came {
					t.Error("nobody came")
				}
				wantKeys(t, s, "k")
			})
		}
	}
}

// turnFile tells when the turn has been asked for.
type turnFile struct {
	file
	asked func()
}

func (f *turnFile) TryLockByte(b mmapfile.ByteLock, share bool) (bool, error) {
	had, err := f.file.TryLockByte(b, share)
	if b == turnLock {
		f.asked()
	}
	return had, err
}

// Goal: nobody takes a store for recovered because of one who could not recover it. Method: an
// Open whose sync fails; another one comes as soon as the turn is free.
func TestSharedRecoveryFails(t *testing.T) {
	path := staleTail(t)
	opened := 0
	on := wrapDisk{osDisk{}, func(_ string, f file) file {
		return &failedFile{file: f, closed: func() {
			opened++
			s, err := openOn(osDisk{}, path, &Options{Shared: true})
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			wantKeys(t, s, "a", "b")
		}}
	}}
	if _, err := openOn(on, path, &Options{Shared: true}); !errors.Is(err, syscall.EIO) || opened != 1 {
		t.Fatalf("open: %v, want EIO; %d others opened", err, opened)
	}
}

// failedFile cannot be synced, and tells when it is closed.
type failedFile struct {
	file
	closed func()
}

func (f *failedFile) Sync(int64, int64) error {
	return &fs.PathError{Op: "msync", Path: "store", Err: syscall.EIO}
}

func (f *failedFile) SyncFile() error { return f.Sync(0, 0) }

func (f *failedFile) Close() error {
	err := f.file.Close()
	f.closed()
	return err
}

// Goal: who only reads does not believe the tail word because of one who is about to recover
// the store. Method: somebody has its presence, and no more, after a power cut.
func TestFollowerBesideRecovery(t *testing.T) {
	path := staleTail(t)
	writer, err := mmapfile.Open(path, mmapfile.ReadWrite)
	if err == nil {
		defer writer.Close()
		_, err = writer.TryLockByte(presenceLock, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	wantKeys(t, openTestAt(t, path, &Options{ReadOnly: true}), "a", "b")
}
