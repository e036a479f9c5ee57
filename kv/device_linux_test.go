package kv

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/internal/loopfs"
)

// deviceBytes returns what has been written to the block device below path.
func deviceBytes(t *testing.T, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	dev := uint64(st.Dev)
	name := strconv.FormatUint(dev>>8&0xfff, 10) + ":" + strconv.FormatUint(dev&0xff|dev>>12&0xfff00, 10)
	stat, err := os.ReadFile(filepath.Join("/sys/dev/block", name, "stat"))
	if err != nil {
		t.Fatal(err)
	}
	sectors, err := strconv.ParseInt(strings.Fields(string(stat))[6], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return sectors * 512
}

// Goal: a durable put writes about a page to the device, and not the 2 MiB that
// the kernel would like to keep together once a file has been written in order
// for some MiB. Method: the statistics of a device that nobody else uses.
func TestDurablePutWritesLittle(t *testing.T) {
	const puts, limit = 2000, 8 << 10
	dir := loopfs.Mount(t, "ext4", 512<<20)
	s := openTestAt(t, filepath.Join(dir, "store"), &Options{Durability: SyncAlways})
	value := make([]byte, benchValue)
	for round := range 40 {
		err := s.Update(func(tx *Tx) error {
			for i := range 1000 {
				if err := tx.Put(benchKey(nil, uint64(round*1000+i)), make([]byte, 1000)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, when := range []string{"grown", "compacted"} {
		if when == "compacted" {
			if _, err := s.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		before := deviceBytes(t, dir)
		for i := range uint64(puts) {
			if err := s.Put(benchKey(nil, i), value); err != nil {
				t.Fatal(err)
			}
		}
		each := (deviceBytes(t, dir) - before) / puts
		t.Logf("%s: %d bytes a durable put", when, each)
		if each > limit {
			t.Errorf("%s: a durable put of %d bytes writes %d bytes to the device, want at most %d", when, benchValue, each, limit)
		}
	}
}

// Goal: the page with the immutable part of the header is not written again after
// the file got its name, so that no power cut finds it in flight.
// Method: bytes of both header pages are changed on the device, behind the file
// system's back; durable puts must bring back those of the mutable page alone. Of a
// file that was just made, and of one that is not in the page cache.
func TestImmutablePageStays(t *testing.T) {
	for _, cached := range []bool{true, false} {
		dir := loopfs.Mount(t, "ext4", 16<<20)
		path := filepath.Join(dir, "store")
		s := openTestAt(t, path, &Options{Durability: SyncAlways})
		if err := s.Put([]byte("key"), make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		if !cached {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			forget(t, path)
			s = openTestAt(t, path, &Options{Durability: SyncAlways})
		}
		device, err := os.OpenFile(loopfs.Image(dir), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer device.Close()
		header := s.gen.Load().bytes()[:crc.HeaderSize]
		const at = 3000 // in either page: reserved bytes, which are zero
		place := find(t, device, header[:crc.ImmutableSize])
		for page := range int64(2) {
			if _, err := device.WriteAt([]byte{0x5a}, place+page*crc.Page+at); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 10 {
			if err := s.Put([]byte{byte(i)}, make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
			if err := s.syncMark(s.gen.Load()); err != nil {
				t.Fatal(err)
			}
		}
		now := make([]byte, crc.HeaderSize)
		if _, err := device.ReadAt(now, place); err != nil {
			t.Fatal(err)
		}
		if now[at] != 0x5a {
			t.Errorf("cached %v: the immutable page was written", cached)
		}
		if now[crc.Page+at] != 0 {
			t.Errorf("cached %v: the mutable page was not written: the test tells nothing", cached)
		}
	}
}

// forget makes the kernel drop what it caches of a file.
func forget(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	for range 1000 {
		runtime.GC() // pages that are mapped stay
		if err := unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Preadv2(fd, [][]byte{make([]byte, 1)}, 0, unix.RWF_NOWAIT); err == unix.EAGAIN {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("the file stays in the page cache")
}

// find returns the block of a device that begins with what.
func find(t *testing.T, device *os.File, what []byte) int64 {
	t.Helper()
	all, err := os.ReadFile(device.Name())
	if err != nil {
		t.Fatal(err)
	}
	for off := 0; off < len(all); off += 1024 {
		if bytes.HasPrefix(all[off:], what) {
			return int64(off)
		}
	}
	t.Fatal("the file's first block is not on the device")
	return 0
}
