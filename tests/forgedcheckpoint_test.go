package tests

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/kv"
)

// sealedStore is a closed store beside which forged checkpoints lie.
type sealedStore struct {
	*closedStore
	history map[string]map[string]bool // key -> all values that it ever had
	head    crc.Checkpoint             // the true one
	slots   []uint64                   // of its segment
}

// sealedStoreOf makes a store with n keys and some more.
func sealedStoreOf(t testing.TB, n int) *sealedStore {
	t.Helper()
	c := &sealedStore{closedStore: smallStore(t, n, 20), history: map[string]map[string]bool{}}
	for _, r := range c.records {
		if c.history[string(r.Key)] == nil {
			c.history[string(r.Key)] = map[string]bool{}
		}
		if !r.Deleted {
			c.history[string(r.Key)][string(r.Value)] = true
		}
	}
	path := storePath(t)
	must(t, os.WriteFile(path, c.bytes, 0o600))
	s, err := kv.Open(path, &kv.Options{CheckpointBytes: 1})
	must(t, err)
	must(t, s.Close())
	b, err := os.ReadFile(path + indexSuffix)
	must(t, err)
	c.head, err = crc.DecodeCheckpoint(b)
	must(t, err)
	for off := crc.SlotsOff(1, 0, c.head.SlotCount); off < int64(len(b)); off += 8 {
		c.slots = append(c.slots, binary.LittleEndian.Uint64(b[off:]))
	}
	return c
}

// forge returns a checkpoint of the store, whose log is the file of that inode, as src
// describes it, with sums that are right. Where src ends it draws zeros, which are never
// the hostile choice.
func (c *sealedStore) forge(src source, inode uint64) []byte {
	h := c.head
	h.File = inode
	place := func() int64 {
		if src.below(3) > 0 {
			r := c.records[src.below(len(c.records))]
			return r.Off + oneOf(src, 0, 0, 8, r.Len)
		}
		return oneOf(src, 0, 8, crc.HeaderSize, crc.HeaderSize-8, h.End, h.End-8, h.End+8, int64(8*src.below(1<<13)), crc.MaxOff-8, math.MaxInt64, -8, 12)
	}
	count := func(n int64) int64 { return oneOf(src, n, 0, -1, n+1, h.End, math.MaxInt64, math.MinInt64, 1<<40) }
	for range src.below(4) {
		switch src.below(10) {
		case 0:
			h.End = place()
		case 1:
			h.Last = place()
		case 2:
			h.Records = count(h.Records)
		case 3:
			h.Live = count(h.Live)
		case 4:
			h.Mortal = count(h.Mortal)
		case 5:
			h.Revision = oneOf(src, h.Revision+1, 0, h.Revision-1, math.MaxInt64, math.MaxInt64-1, 1<<63, math.MaxUint64)
		case 6:
			h.Stamp = oneOf[int64](src, 0, -1, 1<<33, math.MaxInt64, math.MinInt64)
		case 7:
			h.Boot = oneOf[uint64](src, 1, math.MaxUint64)
		case 8: // the log ends earlier
			r := c.records[src.below(len(c.records))]
			h.Last, h.End, h.Revision = r.Off, r.Off+r.Len, r.Revision
		case 9:
			h.Generation, h.StoreID[0] = oneOf(src, h.Generation, 0, h.Generation+1), byte(oneOf(src, int(h.StoreID[0]), 0))
		}
	}
	if h.Last >= 0 && h.Last <= int64(len(c.bytes))-crc.FrameSize && h.End >= crc.HeaderSize && h.End <= int64(len(c.bytes)) {
		h.TailSum = crc.TailSum(c.bytes, h.Last, h.End)
	}
	n := oneOf(src, 1, 1, 1, 2, 3, 4, 8)
	if n > 1 {
		h.SlotCount = 4096
	}
	if src.below(5) == 4 {
		h.SlotCount = oneOf[uint32](src, 64, 128, 4096, 1, 63, 8192)
	}
	h.Segments = make([]crc.CheckpointSegment, n)
	slots := make([][]byte, n)
	for i := range n {
		depth := min(i+1, n-1) // 1, 2, 3, 3 tile
		if src.below(12) == 11 {
			depth = oneOf(src, 0, 1, 2, 3, 22, 23, 255)
		}
		slots[i], h.Segments[i] = c.forgeSlots(src, int(h.SlotCount), depth, place)
		h.Segments[i].Sum = crc.SegmentSum(slots[i], i, h.Salt)
		if src.below(12) == 11 {
			h.Segments[i].Sum++
		}
	}
	b := crc.EncodeCheckpoint(&h)
	for _, s := range slots {
		b = append(b, s...)
	}
	if src.below(8) == 7 {
		binary.LittleEndian.PutUint32(b[124:], oneOf[uint32](src, 0, crc.MaxSegments, crc.MaxSegments+1, math.MaxUint32))
	}
	if src.below(8) == 7 {
		b = b[:src.below(len(b))]
	}
	return b
}

// forgeSlots makes a segment: as a rule from the true slots, changed here and there.
func (c *sealedStore) forgeSlots(src source, count, depth int, place func() int64) (b []byte, row crc.CheckpointSegment) {
	slots := make([]uint64, count)
	if src.below(4) > 0 {
		copy(slots, c.slots)
	}
	for range src.below(40) {
		at := src.below(count)
		switch src.below(6) {
		case 0:
			slots[at] = 0
		case 1:
			slots[at] = 1
		case 2: // another record, of perhaps another key
			slots[at] = slots[at]&^(1<<40-1) | uint64(place())>>3&(1<<40-1)
		case 3: // displaced
			slots[at] ^= uint64(src.below(4)) << 40
		case 4: // moved
			to := src.below(count)
			slots[at], slots[to] = slots[to], slots[at]
		case 5: // filled up with one key
			for i := range slots[at:min(at+64, count)] {
				slots[at+i] = slots[at]
			}
		}
	}
	row.Depth = uint8(depth)
	for _, slot := range slots {
		b = binary.LittleEndian.AppendUint64(b, slot)
		switch {
		case slot == 1:
			row.Marks++
		case slot > 1:
			row.Used++
		}
	}
	if src.below(8) == 7 {
		row.Used, row.Marks = uint16(oneOf(src, 0, int(row.Used)+1, count, math.MaxUint16)), uint16(oneOf(src, int(row.Marks), 0, math.MaxUint16))
	}
	return b, row
}

// examine opens the store beside a forged checkpoint in every way and uses it. Whoever
// forges may hide keys and bring back old values; but nothing is shown that the key
// never had, each error is typed, and nothing panics, hangs or takes too much memory.
// The log stays sound.
func (c *sealedStore) examine(path string, src source) (resumed bool, err error) {
	if err := os.WriteFile(path, c.bytes, 0o600); err != nil {
		return false, err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	index := c.forge(src, uint64(fi.Sys().(*syscall.Stat_t).Ino))
	for _, opts := range []kv.Options{{ReadOnly: true}, {Salvage: true}, {Durability: kv.SyncManual, CompactAt: -1, CheckpointBytes: 1}} {
		if err := errors.Join(os.WriteFile(path, c.bytes, 0o600), os.WriteFile(path+indexSuffix, index, 0o600)); err != nil {
			return false, err
		}
		s, err := openBounded(path, opts)
		if err != nil {
			return false, fmt.Errorf("%+v: %w", opts, err)
		}
		by := s.Stats().Checkpoint > 0
		resumed = resumed || by && opts.CheckpointBytes == 0
		forged := by || opts.CheckpointBytes > 0
		err = c.use(s, opts, forged)
		closeErr := s.Close()
		if forged && errors.Is(closeErr, kv.ErrPoisoned) {
			closeErr = nil // a write could not make the index agree with what is forged
		}
		if err = errors.Join(err, closeErr); err != nil {
			return resumed, fmt.Errorf("%+v: %w", opts, err)
		}
	}
	os.Remove(path + indexSuffix)
	s, err := openBounded(path, kv.Options{ReadOnly: true})
	if err != nil {
		return resumed, fmt.Errorf("the log is no longer sound: %w", err)
	}
	return resumed, errors.Join(c.use(s, kv.Options{ReadOnly: true}, true), sound(s), s.Close())
}

// use does all that can be done with s. forged tells that its index may be a forgery.
func (c *sealedStore) use(s *kv.Store, opts kv.Options, forged bool) error {
	typed := func(what string, err error) error {
		if err == nil || err == kv.ErrNotFound || forged && (errors.Is(err, kv.ErrCorrupt) || errors.Is(err, kv.ErrPoisoned) || errors.Is(err, kv.ErrFull)) {
			return nil
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	had := func(key, value string) error {
		if !c.history[key][value] && value != "written on" {
			return fmt.Errorf("key %.40q has %.40q, which it never had", key, value)
		}
		return nil
	}
	if !forged {
		if d, err := compare(s, c.want); d != "" || err != nil {
			return fmt.Errorf("%s %w", d, err)
		}
	}
	var keys [][]byte
	for key := range c.history {
		keys = append(keys, []byte(key))
		v, err := s.Get([]byte(key))
		if err == nil {
			err = had(key, string(v))
		}
		if err := typed("get", err); err != nil {
			return err
		}
	}
	err := s.GetMany(keys, func(i int, value []byte, ok bool) error {
		if !ok {
			return nil
		}
		return had(string(keys[i]), string(value))
	})
	if err := typed("get many", err); err != nil {
		return err
	}
	it := s.Iter(nil)
	for k, v := range it.All() {
		if err := had(string(k), string(v)); err != nil {
			return err
		}
	}
	_, verifyErr := s.Verify(context.Background())
	_, copyErr := copyOf(s)
	if err := errors.Join(typed("iterate", it.Err()), typed("verify", verifyErr), typed("copy", copyErr)); err != nil || opts.ReadOnly || opts.Salvage {
		return err
	}
	for i, key := range keys {
		switch i % 3 {
		case 0:
			err = s.Put(key, []byte("written on"))
		case 1:
			err = s.Delete(key)
		case 2:
			err = s.Update(func(tx *kv.Tx) error {
				return errors.Join(tx.Put(key, []byte("written on")), tx.Put([]byte("over"), []byte("written on")))
			})
		}
		if err := typed("write", err); err != nil {
			return err
		}
	}
	for i := range 300 { // as many as make a small index grow, and split
		if err := typed("put", s.Put(fmt.Append(nil, "new ", i), []byte("written on"))); err != nil {
			return err
		}
	}
	return typed("sync", s.Sync())
}

// Goal: no checkpoint, be it made to verify, makes anything panic, hang, or allocate more
// than a multiple of its length, nor shows a value that the key never had; and the log
// stays what it is.
// Method: checkpoints that the fuzzer describes, beside a true log.
func FuzzCheckpoint(f *testing.F) {
	for seed := range 12 {
		f.Add(valueOf(30+30*seed, seed))
	}
	c := sealedStoreOf(f, 20)
	f.Fuzz(func(t *testing.T, b []byte) {
		hung := time.AfterFunc(time.Minute, func() { panic("a forgery hangs") })
		defer hung.Stop()
		src := byteSource(b)
		if _, err := c.examine(filepath.Join(t.TempDir(), "forgery"), &src); err != nil {
			t.Error(err)
		}
	})
}

// Goal and method: as FuzzCheckpoint, in every run of the tests, with descriptions that a
// seed draws.
func TestForgedCheckpoints(t *testing.T) {
	c := sealedStoreOf(t, 20)
	used := 0
	path := storePath(t)
	all := seeds(100)
	for _, seed := range all {
		src := byteSource(valueOf(int(seed*13%400), int(seed)))
		resumed, err := c.examine(path, &src)
		if err != nil {
			t.Fatalf("seed %d: %v; the file is kept at %s", seed, err, keep(t, path))
		}
		if resumed {
			used++
		}
	}
	t.Logf("%d of %d forgeries were taken for checkpoints", used, len(all))
	if *seedFlag == 0 && (used == 0 || used == len(all)) {
		t.Error("one of the two was not tested")
	}
}
