package tests

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/kv"
)

// closedStore is the file of a store that was closed cleanly, what it has, and
// the offset of each record.
type closedStore struct {
	bytes   []byte
	want    map[string]string
	records []kv.Record
	header  crc.Header
}

// smallStore writes a store with n keys, one overwritten, one deleted, one of a
// transaction with another.
func smallStore(t testing.TB, n int, size int) *closedStore {
	t.Helper()
	path := storePath(t)
	s := open(t, path, &kv.Options{CompactAt: -1})
	want := make(map[string]string)
	put := func(k, v string) error { want[k] = v; return s.Put([]byte(k), []byte(v)) }
	must(t, put("over", "first"))
	must(t, put("gone", "x"))
	for i := range n {
		must(t, put(fmt.Sprintf("key-%03d", i), string(valueOf(size+i, i))))
	}
	must(t, put("over", "second"))
	must(t, put("", "empty key"))
	must(t, put("empty value", ""))
	must(t, s.Delete([]byte("gone")))
	delete(want, "gone")
	want["tx1"], want["tx2"] = "one", "two"
	must(t, s.Update(func(tx *kv.Tx) error {
		return errors.Join(tx.Put([]byte("tx1"), []byte("one")), tx.Put([]byte("tx2"), []byte("two")))
	}))
	c := &closedStore{want: want}
	for r, err := range s.Records(t.Context()) {
		must(t, err)
		r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
		c.records = append(c.records, r)
	}
	closeSound(t, s)
	var err error
	c.bytes, err = os.ReadFile(path)
	must(t, err)
	c.header, err = crc.DecodeHeader(c.bytes)
	must(t, err)
	return c
}

// outcome opens b as a store, for writing or to read, and returns the error of
// Open and how the contents differ from want. A refusal must be one of the typed
// errors and leave the file as it was.
func outcome(t testing.TB, b []byte, want map[string]string, opts kv.Options) (refused error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "damaged")
	return outcomeAt(t, path, b, want, opts)
}

func outcomeAt(t testing.TB, path string, b []byte, want map[string]string, opts kv.Options) (refused error) {
	t.Helper()
	must(t, os.WriteFile(path, b, 0o600))
	s, err := kv.Open(path, &opts)
	if err != nil {
		if !errors.Is(err, kv.ErrCorrupt) && !errors.Is(err, kv.ErrFormat) && !errors.Is(err, kv.ErrVersion) {
			t.Errorf("refused with %v, which is none of the typed errors", err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(withoutHolder(after), withoutHolder(b)) {
			t.Errorf("a file that was refused has changed (%v)", err)
		}
		return err
	}
	defer s.Close()
	if d, err := compare(s, want); err != nil || d != "" {
		t.Errorf("opened with other contents: %s %v", d, err)
	}
	// Whoever only reads leaves a damaged copy of the header, and Verify tells.
	copied := bytes.Equal(b[:crc.ImmutableSize], b[crc.CopyOff:crc.HeaderSize])
	if err := sound(s); (err == nil) != (copied || !opts.ReadOnly) {
		t.Errorf("verify: %v", err)
	}
	return nil
}

// withoutHolder returns b without the word that says who holds the lock, which
// TestRefusedUnchanged looks at alone.
func withoutHolder(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) >= crc.HolderOff+8 {
		clear(b[crc.HolderOff : crc.HolderOff+8])
	}
	return b
}

// Goal: as Open says, nothing on disk is changed where it refuses a store that is
// damaged: not even who holds it, nor what lies beside it.
// Method: a damaged record in the file of a writer that was killed, and the file of
// its compaction; all before and after.
func TestRefusedUnchanged(t *testing.T) {
	c := smallStore(t, 3, 10)
	b := bytes.Clone(c.bytes)
	b[c.records[2].Off+20] ^= 1
	binary.LittleEndian.PutUint64(b[crc.HolderOff:], 4242)
	path := storePath(t)
	must(t, os.WriteFile(path, b, 0o600))
	must(t, os.WriteFile(path+".mmapkv-next", []byte("left over"), 0o600))
	_, err := kv.Open(path, nil)
	wantErr(t, err, kv.ErrCorrupt)
	after, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(after, b) {
		t.Errorf("the holder's word was %x and is %x", b[crc.HolderOff:crc.HolderOff+16], after[crc.HolderOff:crc.HolderOff+16])
	}
	if left, err := os.ReadFile(path + ".mmapkv-next"); string(left) != "left over" {
		t.Errorf("the file beside it: %q, %v", left, err)
	}
}

var readOrWrite = []kv.Options{{}, {ReadOnly: true}}

// Goal: a store whose end is missing is never taken for a whole one.
// Method: after a clean close, the file at every shorter length.
func TestTruncationEveryLength(t *testing.T) {
	c := smallStore(t, 3, 10)
	path := filepath.Join(t.TempDir(), "damaged")
	for n := range c.bytes {
		if n < crc.HeaderSize-16 && n%61 != 0 && n > 16 {
			continue // within the header one length is like another
		}
		for _, opts := range readOrWrite {
			if outcomeAt(t, path, c.bytes[:n], nil, opts) == nil || t.Failed() {
				t.Fatalf("length %d of %d, %+v: opened", n, len(c.bytes), opts)
			}
		}
	}
}

// Goal: no single flipped bit ever shows as another value.
// Method: each bit of a small store, a third under the race detector; Open refuses, or all is right, and it must
// refuse for every bit of a record and of the header's immutable part.
func TestFlipEveryBit(t *testing.T) {
	c := smallStore(t, 2, 10)
	path := filepath.Join(t.TempDir(), "damaged")
	step := 1
	if testing.Short() || raceDetector {
		step = 3
	}
	for bit := 0; bit < 8*len(c.bytes); bit += step {
		at := bit / 8
		if reservedByte(at) && bit%129 != 0 {
			continue
		}
		b := bytes.Clone(c.bytes)
		b[at] ^= 1 << (bit % 8)
		for _, opts := range readOrWrite {
			err := outcomeAt(t, path, b, c.want, opts)
			if checked := at < crc.ImmutableSize || at >= crc.HeaderSize; checked != (err != nil) || t.Failed() {
				t.Fatalf("bit %d of byte %d, %+v: %v", bit%8, at, opts, err)
			}
			var corrupt *kv.CorruptError
			if err != nil && (!errors.As(err, &corrupt) || !covers(corrupt.Ranges, int64(at))) {
				t.Fatalf("bit %d of byte %d, %+v: the ranges leave it out: %v", bit%8, at, opts, err)
			}
		}
	}
}

// reservedByte tells whether nothing lies at an offset of the header.
func reservedByte(at int) bool {
	if at < crc.ImmutableSize || at >= crc.CopyOff {
		return false
	}
	for _, word := range []int64{crc.TailOff, crc.HolderOff, crc.BootOff, crc.MarkOff(0), crc.MarkOff(1)} {
		if at >= int(word) && at < int(word)+crc.MarkSize {
			return false
		}
	}
	return true
}

func covers(ranges []kv.Range, off int64) bool {
	for _, r := range ranges {
		if off >= r.Off && off < r.Off+r.Len {
			return true
		}
	}
	return false
}

// Goal: whatever larger accident befalls a closed store is refused, or harmless.
// Method: a table of them; the ones that must be harmless say so.
func TestDamage(t *testing.T) {
	c := smallStore(t, 60, 300)
	other := smallStore(t, 60, 300)
	log := len(c.bytes) - crc.HeaderSize
	for _, tc := range []struct {
		name     string
		harmless bool
		damage   func(b []byte) []byte
	}{
		{"nothing", true, func(b []byte) []byte { return b }},
		{"zeroed page", false, func(b []byte) []byte { clear(b[12288:16384]); return b }},
		{"zeroed header", false, func(b []byte) []byte { clear(b[:crc.HeaderSize]); return b }},
		{"zeroed immutable page", false, func(b []byte) []byte { clear(b[:4096]); return b }},
		{"zeroed mutable page", true, func(b []byte) []byte { clear(b[4096:crc.HeaderSize]); return b }},
		{"zeroed last page", false, func(b []byte) []byte { clear(b[len(b)&^4095:]); return b }},
		{"zeroed log", false, func(b []byte) []byte { clear(b[crc.HeaderSize:]); return b }},
		{"zeroed marks", true, func(b []byte) []byte { clear(b[crc.MarkOff(0):crc.CopyOff]); return b }},
		{"zeroed tail word", true, func(b []byte) []byte { clear(b[crc.TailOff : crc.TailOff+8]); return b }},
		{"swapped sectors", false, func(b []byte) []byte {
			first := bytes.Clone(b[12288 : 12288+512])
			copy(b[12288:], b[16384:16384+512])
			copy(b[16384:], first)
			return b
		}},
		{"repeated sector", false, func(b []byte) []byte { copy(b[12288+512:12288+1024], b[12288:12288+512]); return b }},
		{"shifted by a record", false, func(b []byte) []byte {
			return append(b[:c.records[3].Off], b[c.records[4].Off:]...)
		}},
		{"one record twice", false, func(b []byte) []byte {
			r := c.records[3]
			return append(append(bytes.Clone(b[:r.Off+r.Len]), b[r.Off:r.Off+r.Len]...), b[r.Off+r.Len:]...)
		}},
		{"page of another store", false, func(b []byte) []byte { copy(b[12288:16384], other.bytes[12288:16384]); return b }},
		{"immutable page of another store", false, func(b []byte) []byte { copy(b[:crc.Page], other.bytes[:crc.Page]); return b }},
		{"mutable page of another store", false, func(b []byte) []byte {
			copy(b[crc.Page:crc.HeaderSize], other.bytes[crc.Page:crc.HeaderSize])
			return b
		}},
		{"zeroed mutable page, and a bit of the log", false, func(b []byte) []byte {
			clear(b[crc.Page:crc.HeaderSize])
			b[c.records[2].Off+20] ^= 1
			return b
		}},
		{"zeroed behind the immutable page", false, func(b []byte) []byte { clear(b[crc.Page:]); return b }},
		{"log of another store", false, func(b []byte) []byte { copy(b[crc.HeaderSize:], other.bytes[crc.HeaderSize:]); return b }},
		{"header of another store", false, func(b []byte) []byte { copy(b[:crc.HeaderSize], other.bytes[:crc.HeaderSize]); return b }},
		{"zeros behind", true, func(b []byte) []byte { return append(b, make([]byte, 70000)...) }},
		{"garbage behind", true, func(b []byte) []byte { return append(b, valueOf(70000, 3)...) }},
		{"half a word behind", true, func(b []byte) []byte { return append(b, 1, 2, 3) }},
		{"ff behind", true, func(b []byte) []byte { return append(b, bytes.Repeat([]byte{0xff}, 5000)...) }},
		{"own records behind", true, func(b []byte) []byte { return append(b, b[crc.HeaderSize:]...) }},
		{"another store behind", true, func(b []byte) []byte { return append(b, other.bytes...) }},
		{"log reversed", false, func(b []byte) []byte {
			for i, j := crc.HeaderSize, len(b)-1; i < j; i, j = i+1, j-1 {
				b[i], b[j] = b[j], b[i]
			}
			return b
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, opts := range readOrWrite {
				err := outcome(t, tc.damage(bytes.Clone(c.bytes)), c.want, opts)
				if (err == nil) != tc.harmless {
					t.Errorf("of a log of %d bytes, %+v: %v", log, opts, err)
				}
			}
		})
	}
}

// Goal: an older state of some pages among newer ones shows only what was there.
// Method: an image of the file after 30 puts, and one after 60, with each subset
// of few pages taken from the older.
func TestOlderPages(t *testing.T) {
	path := storePath(t)
	s := open(t, path, nil)
	want := make(map[string]string)
	fill := func(from, to int) []byte {
		for i := from; i < to; i++ {
			k, v := fmt.Sprint("key", i), string(valueOf(400, i))
			want[k] = v
			must(t, s.Put([]byte(k), []byte(v)))
		}
		must(t, s.Sync())
		b, err := os.ReadFile(path)
		must(t, err)
		return b[:s.Stats().Tail]
	}
	older, newer := fill(0, 30), fill(30, 60)
	pages := (len(newer) + 4095) / 4096
	for subset := range 1 << pages {
		b := bytes.Clone(newer)
		for p := range pages {
			if subset>>p&1 == 1 {
				end := min(len(b), 4096*(p+1))
				clear(b[4096*p : end])
				copy(b[4096*p:end], older[min(len(older), 4096*p):])
			}
		}
		dir := t.TempDir()
		file := filepath.Join(dir, "mixed")
		must(t, os.WriteFile(file, b, 0o600))
		m, err := kv.Open(file, nil)
		if err != nil {
			if !errors.Is(err, kv.ErrCorrupt) {
				t.Fatalf("subset %b: %v", subset, err)
			}
			continue
		}
		got, err := contents(m)
		must(t, err)
		// The first n puts, for some n, and at least those of the older mark.
		for i := range got {
			if want[i] != got[i] {
				t.Fatalf("subset %b: %q is wrong", subset, i)
			}
		}
		for i := range len(got) {
			if _, ok := got[fmt.Sprint("key", i)]; !ok || len(got) < 30 {
				t.Fatalf("subset %b: %d keys without key%d", subset, len(got), i)
			}
		}
		closeSound(t, m)
	}
}

// forge appends a sealed record to b.
func forge(b []byte, h crc.Header, payload []byte, flags uint32) []byte {
	off := int64(len(b))
	rec := make([]byte, crc.RecordSize(len(payload)))
	copy(rec[crc.FrameSize:], payload)
	crc.Seal(rec, len(payload), flags, h.Salt, off)
	return append(b, rec...)
}

// withMark makes all of b durable, as its header says.
func withMark(b []byte, h crc.Header, off int64, revision uint64) []byte {
	for i := range uint64(2) {
		crc.EncodeMark(b[crc.MarkOff(i):], crc.Mark{Off: off, Revision: revision, Stamp: 1}, h.Salt)
	}
	return b
}

// Goal: sums that are right make nothing true that is not.
// Method: a table of files whose every sum was computed anew.
func TestForged(t *testing.T) {
	c := smallStore(t, 3, 10)
	h := c.header
	next := c.records[len(c.records)-1].Revision + 1
	entry := func(revision uint64) []byte {
		return codec.Append(nil, &codec.Entry{Key: []byte("forged"), Revision: revision, Value: []byte("v")})
	}
	plus := map[string]string{"forged": "v"}
	for k, v := range c.want {
		plus[k] = v
	}
	header := func(b []byte, change func(h *crc.Header)) []byte {
		g := h
		change(&g)
		full := make([]byte, crc.HeaderSize)
		crc.EncodeHeader(full, &g)
		copy(b, full[:crc.ImmutableSize])
		copy(b[crc.CopyOff:], full[crc.CopyOff:])
		return b
	}
	for _, tc := range []struct {
		name  string
		want  error // nil: opens
		shows map[string]string
		forge func(b []byte) []byte
	}{
		{"well-formed", nil, plus, func(b []byte) []byte { return forge(b, h, entry(next), 0) }},
		{"gap in revisions", nil, plus, func(b []byte) []byte { return forge(b, h, entry(next+1000), 0) }},
		{"unknown compatible record flag", nil, plus, func(b []byte) []byte { return forge(b, h, entry(next), 1<<3) }},
		{"unknown record flag", kv.ErrVersion, nil, func(b []byte) []byte { return forge(b, h, entry(next), 1<<20) }},
		{"run without an end", nil, c.want, func(b []byte) []byte { return forge(b, h, entry(next), crc.FlagMore) }},
		{"run without an end, durable", kv.ErrCorrupt, nil, func(b []byte) []byte {
			b = forge(b, h, entry(next), crc.FlagMore)
			return withMark(b, h, int64(len(b)), next)
		}},
		{"undecodable", kv.ErrCorrupt, nil, func(b []byte) []byte { return forge(b, h, []byte("\xff\xff\xff"), 0) }},
		{"undecodable, one more behind", kv.ErrCorrupt, nil, func(b []byte) []byte {
			return forge(forge(b, h, []byte("\xff\xff\xff"), 0), h, entry(next), 0)
		}},
		{"undecodable, durable", kv.ErrCorrupt, nil, func(b []byte) []byte {
			b = forge(b, h, []byte{0x0a, 0x7f}, 0)
			return withMark(b, h, int64(len(b)), next)
		}},
		{"key of 4 GiB", kv.ErrCorrupt, nil, func(b []byte) []byte {
			return forge(b, h, []byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 'k', 0x10, 0x7f, 0x7a, 0}, 0)
		}},
		{"not ascending", kv.ErrCorrupt, nil, func(b []byte) []byte { return forge(b, h, entry(next-1), 0) }},
		{"not ascending, durable", kv.ErrCorrupt, nil, func(b []byte) []byte {
			b = forge(b, h, entry(1), 0)
			return withMark(b, h, int64(len(b)), next)
		}},
		{"huge length, claimed only", nil, c.want, func(b []byte) []byte {
			return append(b, 1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 9, 9)
		}},
		{"length beyond the end, durable", kv.ErrCorrupt, nil, func(b []byte) []byte {
			binary.LittleEndian.PutUint32(b[c.records[1].Off+8:], crc.MaxPayload)
			return b
		}},
		{"mark beyond the end", kv.ErrCorrupt, nil, func(b []byte) []byte { return withMark(b, h, int64(len(b))+8, next) }},
		{"mark at 8 TiB", kv.ErrCorrupt, nil, func(b []byte) []byte { return withMark(b, h, 8<<40, next) }},
		{"mark off the grid", nil, c.want, func(b []byte) []byte { return withMark(b, h, int64(len(b))-1, next) }},
		{"mark of the last revision there is", nil, c.want, func(b []byte) []byte { return withMark(b, h, crc.HeaderSize, ^uint64(0)) }},
		{"future version", kv.ErrVersion, nil, func(b []byte) []byte { b[8]++; b[crc.CopyOff+8]++; return b }},
		{"future version beside a whole copy", kv.ErrCorrupt, nil, func(b []byte) []byte { b[8]++; return b }},
		{"future version, summed", kv.ErrVersion, nil, func(b []byte) []byte {
			return header(b, func(h *crc.Header) { h.Version = 2 })
		}},
		{"unknown incompatible flag", kv.ErrVersion, nil, func(b []byte) []byte {
			return header(b, func(h *crc.Header) { h.Incompatible = 1 << 31 })
		}},
		{"unknown compatible flag", nil, c.want, func(b []byte) []byte {
			return header(b, func(h *crc.Header) { h.Compatible = 1 << 31 })
		}},
		{"other salt", kv.ErrCorrupt, nil, func(b []byte) []byte {
			b = header(b, func(h *crc.Header) { h.Salt++ })
			g := h
			g.Salt++
			return withMark(b, g, int64(len(b)), next)
		}},
		{"written before there was time", nil, plus, func(b []byte) []byte {
			return forge(b, h, codec.Append(nil, &codec.Entry{Key: []byte("forged"), Revision: next, Written: math.MinInt64/1000 - 1, Expiry: 1 << 50, Value: []byte("v")}), 0)
		}},
		{"value of the year 9999 makes the clock no fool", nil, plus, func(b []byte) []byte {
			return forge(b, h, codec.Append(nil, &codec.Entry{Key: []byte("forged"), Revision: next, Written: 1 << 62, Value: []byte("v")}), 0)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, opts := range readOrWrite {
				err := outcome(t, tc.forge(bytes.Clone(c.bytes)), tc.shows, opts)
				if tc.want == nil && err != nil || tc.want != nil && !errors.Is(err, tc.want) {
					t.Errorf("%+v: %v, want %v", opts, err, tc.want)
				}
			}
		})
	}
}

// Goal: salvage shows every record that verifies and says what is missing; the
// file is not touched.
// Method: each record damaged in turn, and pairs of them.
func TestSalvage(t *testing.T) {
	c := smallStore(t, 6, 40)
	for first := range c.records {
		for _, second := range []int{first, (first + 4) % len(c.records)} {
			t.Run(fmt.Sprint(first, "+", second), func(t *testing.T) {
				b := bytes.Clone(c.bytes)
				broken := map[int64]bool{}
				for _, i := range []int{first, second} {
					b[c.records[i].Off+crc.FrameSize+3] ^= 0x10
					broken[c.records[i].Off] = true
				}
				if first == second {
					b[c.records[first].Off+crc.FrameSize+3] = c.bytes[c.records[first].Off+crc.FrameSize+3] ^ 0x10
				}
				path := filepath.Join(t.TempDir(), "damaged")
				must(t, os.WriteFile(path, b, 0o600))
				_, err := kv.Open(path, nil)
				wantErr(t, err, kv.ErrCorrupt)
				s, err := kv.Open(path, &kv.Options{Salvage: true})
				must(t, err)
				defer s.Close()
				want := map[string]string{}
				missing := s.Stats().Missing
				for i, r := range c.records {
					// A transaction is whole or not there; with its start broken its end
					// may show, as the format says.
					inTx := i >= len(c.records)-2
					if broken[r.Off] != covers(missing, r.Off) && !inTx {
						t.Errorf("record %d at %d: broken %v, missing %v", i, r.Off, broken[r.Off], missing)
					}
					if covers(missing, r.Off) {
						continue
					}
					if r.Deleted {
						delete(want, string(r.Key))
					} else {
						want[string(r.Key)] = string(r.Value)
					}
				}
				wantContents(t, s, want)
				wantErr(t, s.Put([]byte("k"), nil), kv.ErrReadOnly)
				if after, _ := os.ReadFile(path); !bytes.Equal(withoutHolder(after), withoutHolder(b)) {
					t.Error("salvage changed the file")
				}
			})
		}
	}
}

// Goal: a store whose header is destroyed is refused as damaged, and salvaged whole
// by the copy; a copy that is destroyed is written again by who may write.
// Method: either zeroed; with both, it is no store any more.
func TestHeaderCopy(t *testing.T) {
	c := smallStore(t, 6, 40)
	path := filepath.Join(t.TempDir(), "damaged")
	b := bytes.Clone(c.bytes)
	clear(b[:4096])
	for _, opts := range readOrWrite {
		var corrupt *kv.CorruptError
		if err := outcomeAt(t, path, b, nil, opts); !errors.As(err, &corrupt) || !covers(corrupt.Ranges, 0) {
			t.Errorf("%+v: %v", opts, err)
		}
	}
	s := open(t, path, &kv.Options{Salvage: true})
	wantContents(t, s, c.want)
	if m := s.Stats().Missing; len(m) != 1 || !covers(m, 0) {
		t.Errorf("missing %v", m)
	}
	must(t, s.Close())

	b = bytes.Clone(c.bytes)
	clear(b[4096:crc.HeaderSize])
	must(t, os.WriteFile(path, b, 0o600))
	s = open(t, path, nil)
	wantContents(t, s, c.want)
	closeSound(t, s)
	b, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(b[:crc.ImmutableSize], b[crc.CopyOff:crc.HeaderSize]) {
		t.Error("the copy was not written again")
	}

	clear(b[:crc.HeaderSize])
	must(t, os.WriteFile(path, b, 0o600))
	_, err = kv.Open(path, &kv.Options{Salvage: true})
	wantErr(t, err, kv.ErrFormat)
}

// tornStore is an image with one key synced and a transaction of three behind
// the mark, and the offset of the mark.
func tornStore(t testing.TB) (image []byte, durable, end int64) {
	t.Helper()
	path := storePath(t)
	s := open(t, path, &kv.Options{Durability: kv.SyncManual})
	must(t, s.Put([]byte("k"), []byte("1")))
	must(t, s.Sync())
	durable = s.Stats().Tail
	must(t, s.Update(func(tx *kv.Tx) error {
		return errors.Join(tx.Put([]byte("a"), []byte("1")), tx.Put([]byte("b"), []byte("1")), tx.Put([]byte("c"), []byte("1")))
	}))
	image, err := os.ReadFile(path)
	must(t, err)
	clear(image[crc.HolderOff : crc.HolderOff+16]) // nobody who lives holds it
	return image, durable, s.Stats().Tail
}

// Goal: salvage, too, shows a transaction whole or not at all.
// Method: its last record torn; a plain open shows none of it.
func TestSalvageTornRun(t *testing.T) {
	b, _, end := tornStore(t)
	b[end-20] ^= 1
	for _, opts := range []kv.Options{{}, {ReadOnly: true}, {Salvage: true}} {
		path := storePath(t)
		must(t, os.WriteFile(path, b, 0o600))
		s, err := kv.Open(path, &opts)
		must(t, err)
		if d, err := compare(s, map[string]string{"k": "1"}); d != "" || err != nil {
			t.Errorf("%+v: %s %v", opts, d, err)
		}
		s.Close()
	}
}

// Goal: what is torn behind the durable mark is cut off, and never comes back.
// Method: a table of tails; the store is opened, written to with records of the
// same lengths, and opened again after each.
func TestTornTail(t *testing.T) {
	image, durable, end := tornStore(t)
	torn := map[string]string{"k": "1"}
	whole := map[string]string{"k": "1", "a": "1", "b": "1", "c": "1"}
	for _, tc := range []struct {
		name string
		want map[string]string
		tail func(b []byte) []byte
	}{
		{"whole", whole, func(b []byte) []byte { return b }},
		{"whole, tail word behind", whole, func(b []byte) []byte {
			binary.LittleEndian.PutUint64(b[crc.TailOff:], uint64(durable))
			return b
		}},
		{"whole, tail word far ahead", whole, func(b []byte) []byte {
			binary.LittleEndian.PutUint64(b[crc.TailOff:], 1<<40)
			return b
		}},
		{"first record torn, later ones whole", torn, func(b []byte) []byte { b[durable+20] ^= 1; return b }},
		{"second record torn", torn, func(b []byte) []byte { b[durable+40] ^= 1; return b }},
		{"last record torn", torn, func(b []byte) []byte { b[end-20] ^= 1; return b }},
		{"last record not there", torn, func(b []byte) []byte { return b[:durable+72] }},
		{"zeros", torn, func(b []byte) []byte { clear(b[durable:]); return b }},
		{"garbage", torn, func(b []byte) []byte { copy(b[durable:], valueOf(len(b)-int(durable), 5)); return b }},
		{"file ends at the mark", torn, func(b []byte) []byte { return b[:durable] }},
		{"first word only", torn, func(b []byte) []byte { return b[:durable+8] }},
		{"superseded and whole", whole, func(b []byte) []byte { b[crc.TailOff+7] |= 0x80; return b }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := storePath(t)
			must(t, os.WriteFile(path, tc.tail(bytes.Clone(image)), 0o600))
			want := map[string]string{}
			for k, v := range tc.want {
				want[k] = v
			}
			for n := range 6 {
				r := open(t, path, &kv.Options{ReadOnly: true})
				wantContents(t, r, want)
				must(t, r.Close())
				s := open(t, path, &kv.Options{Durability: kv.SyncManual})
				wantContents(t, s, want)
				fi, err := os.Stat(path)
				must(t, err)
				if st := s.Stats(); n == 0 && fi.Size() != st.Tail {
					t.Errorf("the file has %d bytes, its log ends at %d: not cut", fi.Size(), st.Tail)
				}
				k := strconv.Itoa(n)
				want[k] = "1"
				must(t, s.Put([]byte(k), []byte("1")))
				// Go on as after a power cut that lost nothing.
				b, err := os.ReadFile(path)
				must(t, err)
				clear(b[crc.HolderOff : crc.HolderOff+16])
				must(t, s.Close())
				must(t, os.WriteFile(path+".image", b, 0o600))
				must(t, os.Rename(path+".image", path))
			}
		})
	}
}

// Goal: a reader beside a living writer never takes a damaged tail for a shorter
// store.
// Method: each bit of the tail word flipped beneath an open store that is quiet.
func TestTailWordFlips(t *testing.T) {
	path := storePath(t)
	s := open(t, path, nil)
	want := make(map[string]string)
	for i := range 20 {
		want[fmt.Sprint("key", i)] = string(valueOf(10*i, i))
		must(t, s.Put([]byte(fmt.Sprint("key", i)), valueOf(10*i, i)))
	}
	must(t, s.Sync())
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var right [8]byte
	_, err = f.ReadAt(right[:], crc.TailOff)
	must(t, err)
	for bit := range 64 {
		wrong := right
		wrong[bit/8] ^= 1 << (bit % 8)
		_, err = f.WriteAt(wrong[:], crc.TailOff)
		must(t, err)
		r, err := kv.Open(path, &kv.Options{ReadOnly: true})
		if err == nil {
			if d, err := compare(r, want); d != "" || err != nil && !errors.Is(err, kv.ErrCorrupt) {
				t.Errorf("bit %d: %s %v", bit, d, err)
			}
			r.Close()
		} else if !errors.Is(err, kv.ErrCorrupt) {
			t.Errorf("bit %d: %v", bit, err)
		}
	}
	_, err = f.WriteAt(right[:], crc.TailOff)
	must(t, err)
}

// Goal: a file made of claims costs no more than a multiple of its length.
// Method: 8 MiB in which every word could be the length of a record; the test's
// own time limit is the watchdog. Salvage tells of all of it.
func TestClaims(t *testing.T) {
	c := smallStore(t, 1, 10)
	b := c.bytes[:crc.HeaderSize:crc.HeaderSize]
	word := make([]byte, 8)
	for len(b) < 8<<20 {
		binary.LittleEndian.PutUint32(word, uint32(8<<20-len(b))/2)
		b = append(b, word...)
	}
	b = withMark(b, c.header, int64(len(b)), 1)
	start := time.Now()
	if err := outcome(t, b, nil, kv.Options{}); !errors.Is(err, kv.ErrCorrupt) {
		t.Errorf("opened: %v", err)
	}
	path := storePath(t)
	must(t, os.WriteFile(path, b, 0o600))
	s, err := kv.Open(path, &kv.Options{Salvage: true})
	must(t, err)
	defer s.Close()
	t.Logf("%v for 8 MiB", time.Since(start))
	if m := s.Stats().Missing; len(m) != 1 || m[0] != (kv.Range{Off: crc.HeaderSize, Len: int64(len(b)) - crc.HeaderSize}) || s.Len() != 0 {
		t.Errorf("%d keys, missing %v", s.Len(), m)
	}
}
