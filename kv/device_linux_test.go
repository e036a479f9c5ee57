package kv

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

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
