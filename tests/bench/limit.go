//go:build linux && !386 && !arm

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmapkv/mmapkv/crc"
)

// limitName is the name under which the machine's limits stand beside the stores.
const limitName = "limit"

// limits measure what the machine can do at best, under the name of the workload
// that they bound.
var limits = map[string]func(b *bench) error{
	"get":       limitGet,
	"get-2":     limitGetTwo,
	"fill":      limitPut,
	"iterate":   limitIterate,
	"durable-1": limitDurable,
	"memcpy":    limitCopy,
	"verify":    limitVerify,
}

const limitNote = "get, of one goroutine or two: two cache misses, the second at an address that the first tells: a random word of 13 B a key in huge pages, then all lines of a record in a mapped file as long as the log; " +
	"fill: copying a record into mapped memory, in order; iterate: a sequential read of the mapped log; durable put of 1: a page of 4 KiB written with O_DSYNC into an allocated file"

// payload is about how many bytes mmapkv wraps an entry in, beside key and value.
const payload = 12

func (b *bench) recordSize() int64 { return crc.RecordSize(keySize + b.Value + payload) }

// anonymous returns memory in huge pages, if the machine has them.
func anonymous(size int64) ([]byte, error) {
	m, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	_ = unix.Madvise(m, unix.MADV_HUGEPAGE) // without it they are small
	for i := 0; i < len(m); i += 4096 {
		m[i] = 0
	}
	return m, nil
}

// mappedLog returns a new mapped file in dir, as long as a log of all keys, written and
// read once. It is written by way of the mapping, as the log of a store is: what long
// write calls leave in the page cache can be slower to read (PERFORMANCE.md, section 3).
func (b *bench) mappedLog(dir string) ([]byte, error) {
	size := b.Keys * b.recordSize()
	f, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		return nil, err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	chunk := newValue(1 << 20)
	for off := 0; off < len(m); {
		off += copy(m[off:], chunk)
	}
	sum := byte(0)
	for i := 0; i < len(m); i += 4096 {
		sum ^= m[i]
	}
	use(sum)
	return m, nil
}

func limitGet(b *bench) error {
	lookups, err := b.misses(b.Dir)
	if err != nil {
		return err
	}
	b.started()
	return b.reads(lookups(0))
}

func limitGetTwo(b *bench) error {
	lookups, err := b.misses(b.Dir)
	if err != nil {
		return err
	}
	b.started()
	return b.oneAndTwo(lookups)
}

// misses returns lookups without anything but their misses, a series of them for each
// seed. What is read decides where the next of a series goes, so that no two overlap.
func (b *bench) misses(dir string) (lookups func(seed uint64) func() error, err error) {
	log, err := b.mappedLog(dir)
	if err != nil {
		return nil, err
	}
	words := uint64(b.Keys) * 13 / 8
	index, err := anonymous(int64(words * 8))
	if err != nil {
		return nil, err
	}
	p := newPicker(4, uint64(b.Keys))
	size := uint64(b.recordSize())
	for i := range words {
		binary.LittleEndian.PutUint64(index[i*8:], p.next()*size)
	}
	return func(seed uint64) func() error {
		slot := newPicker(5+seed, words)
		var got uint64
		return func() error {
			slot.state += got & 1 // the dependency
			off := binary.LittleEndian.Uint64(index[slot.next()*8:])
			rec := log[off : off+size]
			got = uint64(rec[0])
			for i := 64; i < len(rec); i += 64 {
				got += uint64(rec[i])
			}
			return nil
		}
	}, nil
}

// limitPut copies a record to the next place in mapped memory.
func limitPut(b *bench) error {
	log, err := b.mappedLog(b.Dir)
	if err != nil {
		return err
	}
	b.started()
	rec := newValue(int(b.recordSize()))
	off := 0
	return b.reads(func() error {
		if off > len(log)-len(rec) {
			off = 0
		}
		copy(log[off:], rec)
		off += len(rec)
		return nil
	})
}

// limitCopy copies values out of a log and into one.
func limitCopy(b *bench) error {
	log, err := b.mappedLog(b.Dir)
	if err != nil {
		return err
	}
	b.started()
	value := newValue(b.Value)
	p := newPicker(6, uint64(b.Keys))
	size := uint64(b.recordSize())
	off := 0
	got, err := b.byTurns(
		func() error {
			at := p.next() * size
			copy(value, log[at:at+uint64(b.Value)])
			return nil
		},
		func() error {
			if off > len(log)-int(size) {
				off = 0
			}
			copy(log[off:], value)
			off += int(size)
			return nil
		})
	if err != nil {
		return err
	}
	b.out["get"], b.out["put"] = got[0], got[1]
	return nil
}

// limitIterate reads the log in order.
func limitIterate(b *bench) error {
	log, err := b.mappedLog(b.Dir)
	if err != nil {
		return err
	}
	b.started()
	passes, took, err := rate(b.Time, 1<<62, func() error {
		var sum uint64
		for i := 0; i+64 <= len(log); i += 64 {
			l := log[i : i+64]
			sum += binary.LittleEndian.Uint64(l) + binary.LittleEndian.Uint64(l[16:]) + binary.LittleEndian.Uint64(l[32:]) + binary.LittleEndian.Uint64(l[48:])
		}
		use(byte(sum))
		return nil
	})
	b.out["ns_op"] = float64(took) / float64(passes*b.Keys)
	return err
}

// limitVerify checks the sums of a log of as many records.
func limitVerify(b *bench) error {
	size := b.recordSize()
	log, err := anonymous(crc.HeaderSize + b.Keys*size)
	if err != nil {
		return err
	}
	n := keySize + b.Value + payload
	for i := range b.Keys {
		off := crc.HeaderSize + i*size
		putKey(log[off+crc.FrameSize:], uint64(i))
		crc.Seal(log[off:], n, 0, 1, off)
	}
	b.started()
	passes, took, err := rate(b.Time, 1<<62, func() error {
		_, err := verify(log, 1)
		return err
	})
	b.out["ns_op"] = float64(took) / float64(passes*b.Keys)
	return err
}

// verify walks the records of a log until there is none, and counts them.
func verify(log []byte, salt uint64) (count int64, err error) {
	for off := int64(crc.HeaderSize); off < int64(len(log)); count++ {
		rec, err := crc.Verify(log, off, salt)
		if errors.Is(err, crc.ErrNoRecord) || errors.Is(err, crc.ErrBounds) {
			break
		} else if err != nil {
			return count, err
		}
		off += rec.Size
	}
	return count, nil
}

// verifyFile returns how long the records of a store's file take to scan and verify
// when all its pages are mapped.
func verifyFile(path string, keys int64) (time.Duration, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(fi.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(m)
	_ = unix.Madvise(m, unix.MADV_POPULATE_READ)
	h, err := crc.DecodeHeader(m)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	count, err := verify(m, h.Salt)
	took := time.Since(start)
	if err == nil && count < keys {
		err = fmt.Errorf("%d records verify, want %d", count, keys)
	}
	return took, err
}

// syncedPage is a file that exists on the disk, of which page after page is written
// again and synced.
type syncedPage struct {
	f    *os.File
	page []byte
	off  int64
}

const syncedPages = 4096 // 16 MiB

func newSyncedPage(path string) (*syncedPage, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_DSYNC, 0o600)
	if err != nil {
		return nil, err
	}
	p := &syncedPage{f: f, page: newValue(4096)}
	err = unix.Fallocate(int(f.Fd()), 0, 0, syncedPages*4096)
	if err == nil || errors.Is(err, unix.EOPNOTSUPP) {
		// Written once, so that no extent has to be marked as written later.
		_, err = f.WriteAt(newValue(syncedPages*4096), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return p, nil
}

func (p *syncedPage) write() error {
	_, err := p.f.WriteAt(p.page, p.off)
	p.off = (p.off + 4096) % (syncedPages * 4096)
	return err
}

func (p *syncedPage) close() { p.f.Close() }

func limitDurable(b *bench) error {
	p, err := newSyncedPage(filepath.Join(b.Dir, "page"))
	if err != nil {
		return err
	}
	defer p.close()
	b.started()
	if err := b.writes(p.write); err != nil {
		return err
	}
	b.out["per_s"] = 1e9 / b.out["ns_op"]
	return nil
}
