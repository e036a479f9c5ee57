package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/mmapkv/mmapkv/internal/invariants"
	"github.com/mmapkv/mmapkv/internal/loopfs"
	"github.com/mmapkv/mmapkv/kv"
)

// fill puts keys until one does not fit, and returns what was acknowledged.
func fill(t *testing.T, s *kv.Store, size int) map[string]string {
	t.Helper()
	want := map[string]string{}
	for i := range 100000 {
		k, v := fmt.Sprint("key", i), string(valueOf(size, i))
		if err := s.Put([]byte(k), []byte(v)); err != nil {
			wantErr(t, err, kv.ErrFull)
			return want
		}
		want[k] = v
	}
	t.Fatal("never full")
	return nil
}

// checkFull sees that what did not fit changed nothing, in any kind of write.
func checkFull(t *testing.T, s *kv.Store, want map[string]string) {
	t.Helper()
	before := s.Stats()
	big := valueOf(9<<20, 1)
	wantErr(t, s.Put([]byte("key0"), big), kv.ErrFull)
	wantErr(t, s.PutDurable([]byte("new"), big), kv.ErrFull)
	wantErr(t, s.Compute([]byte("key1"), func([]byte, bool) ([]byte, kv.Op) { return big, kv.Write }), kv.ErrFull)
	swapped, err := s.CompareAndSwap([]byte("key1"), []byte(want["key1"]), big)
	wantErr(t, err, kv.ErrFull)
	if swapped {
		t.Error("swapped, and no space")
	}
	wantErr(t, s.Update(func(tx *kv.Tx) error {
		return errors.Join(tx.Delete([]byte("key0")), tx.Put([]byte("key1"), []byte("small")), tx.Put([]byte("key2"), big))
	}), kv.ErrFull)
	after := s.Stats()
	if after.Revision != before.Revision || after.Tail != before.Tail || after.Keys != before.Keys || after.Poisoned != nil {
		t.Errorf("before %+v, after %+v", before, after)
	}
	wantContents(t, s, want)
	verify(t, s)
	must(t, s.Sync())
}

// Goal: on a full disk nothing that was acknowledged is lost, what fails changed
// nothing, reading goes on, and writing too once there is space.
// Method: a small file system, filled by the store with and without a ballast
// beside it, and by its checkpoints.
func TestDiskFull(t *testing.T) {
	for _, d := range []kv.Durability{kv.SyncPeriodic, kv.SyncAlways} {
		t.Run(d.String(), func(t *testing.T) {
			dir := loopfs.Mount(t, "ext4", 24<<20)
			path, ballast := filepath.Join(dir, "store"), filepath.Join(dir, "ballast")
			must(t, os.WriteFile(ballast, make([]byte, 6<<20), 0o600))
			opts := &kv.Options{Durability: d, CompactAt: -1, CheckpointBytes: 1 << 20}
			s := open(t, path, opts)
			want := fill(t, s, 50000)
			checkFull(t, s, want)
			// No room for another 10 MiB of live bytes beside these.
			if _, err := s.Compact(t.Context()); err != nil {
				wantErr(t, err, kv.ErrFull)
			}
			wantContents(t, s, want)
			if _, err := os.Stat(path + ".mmapkv-next"); err == nil {
				t.Error("the compaction left its file")
			}
			must(t, os.Remove(ballast))
			must(t, s.Put([]byte("again"), valueOf(50000, 7)))
			want["again"] = string(valueOf(50000, 7))
			wantContents(t, s, want)
			closeSound(t, s)
			s = open(t, path, opts)
			wantContents(t, s, want)
			for k, v := range fill(t, s, 51000) {
				want[k] = v
			}
			checkFull(t, s, want)
			// As after a kill, with no space to recover with.
			must(t, s.Close())
			s = open(t, path, opts)
			wantContents(t, s, want)
			if err := s.Clear(); err != nil {
				wantErr(t, err, kv.ErrFull)
				wantContents(t, s, want)
			} else {
				wantContents(t, s, nil)
				must(t, s.Put([]byte("k"), []byte("v")))
			}
			closeSound(t, s)
		})
	}
}

// Goal: a store cannot be created on a full disk, which is ErrFull and leaves
// nothing behind.
// Method: no block is left.
func TestCreateFull(t *testing.T) {
	dir := loopfs.Mount(t, "ext4", 4<<20)
	for _, n := range []int{1 << 20, 64 << 10, 4 << 10} {
		for i := 0; os.WriteFile(filepath.Join(dir, fmt.Sprint("ballast", n, "-", i)), make([]byte, n), 0o600) == nil; i++ {
			if err := exec.Command("sync", "-f", dir).Run(); err != nil {
				t.Skipf("SKIPPED: sync: %v", err)
			}
		}
	}
	_, err := kv.Open(filepath.Join(dir, "store"), nil)
	wantErr(t, err, kv.ErrFull)
	if left := filesAt(filepath.Join(dir, "store*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Goal: MaxSize is a full disk of the store's own: never exceeded, not even for
// a moment, and deleting and compacting gives space.
// Method: sizes about a page and an extent.
func TestMaxSize(t *testing.T) {
	for _, size := range []int64{32 << 10, 32<<10 + 1, 40000, 100000, 1<<20 - 8, 8 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			path := storePath(t)
			opts := &kv.Options{MaxSize: size, CompactAt: -1}
			s := open(t, path, opts)
			want := fill(t, s, 1000)
			checkFull(t, s, want)
			fi, err := os.Stat(path)
			must(t, err)
			if fi.Size() > size || s.Stats().FileBytes > size {
				t.Errorf("the file has %d bytes of at most %d", fi.Size(), size)
			}
			if used := s.Stats().Tail; size-used > 1100 {
				t.Errorf("%d of %d bytes in use when full", used, size)
			}
			closeSound(t, s)
			s = open(t, path, opts)
			wantContents(t, s, want)
			_, err = s.Compact(t.Context())
			must(t, err)
			wantContents(t, s, want)
			must(t, s.Clear())
			if again := fill(t, s, 1000); len(again) != len(want) {
				t.Errorf("%d keys fit after Clear, %d before", len(again), len(want))
			}
			fi, err = os.Stat(path)
			must(t, err)
			if fi.Size() > size {
				t.Errorf("the file has %d bytes of at most %d", fi.Size(), size)
			}
		})
	}
}

// Goal: limits are refused with ErrTooLarge, and nothing changed.
// Method: one byte more than each; the limit itself is written.
func TestLimits(t *testing.T) {
	s := open(t, storePath(t), nil)
	key := valueOf(kv.MaxKeySize+1, 1)
	wantErr(t, s.Put(key, nil), kv.ErrTooLarge)
	wantErr(t, s.Delete(key), kv.ErrTooLarge)
	wantErr(t, s.Update(func(tx *kv.Tx) error { return tx.Put(key, nil) }), kv.ErrTooLarge)
	wantErr(t, s.Compute(key, func([]byte, bool) ([]byte, kv.Op) { return nil, kv.Write }), kv.ErrTooLarge)
	if _, err := s.Get(key); err != kv.ErrNotFound && !errors.Is(err, kv.ErrTooLarge) {
		t.Errorf("get: %v", err)
	}
	if !invariants.Enabled { // the race detector takes a minute for a gigabyte
		huge := make([]byte, kv.MaxValueSize+1) // never touched
		wantErr(t, s.Put([]byte("k"), huge), kv.ErrTooLarge)
		wantErr(t, s.Compute([]byte("k"), func([]byte, bool) ([]byte, kv.Op) { return huge, kv.Write }), kv.ErrTooLarge)
	}
	must(t, s.Put(key[:kv.MaxKeySize], []byte("v")))
	wantContents(t, s, map[string]string{string(key[:kv.MaxKeySize]): "v"})
}
