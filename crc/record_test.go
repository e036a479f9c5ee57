package crc_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"runtime"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/mmapkv/mmapkv/crc"
)

const salt = 0x0123456789abcdef

// payload returns n bytes, none of them zero, that differ from one n to the next.
func payload(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(1 + (i*7+n)%255)
	}
	return p
}

// sealed returns a log: the space of a header, and one record after another from its end.
func sealed(flags uint32, payloads ...[]byte) []byte {
	log := make([]byte, crc.HeaderSize)
	for _, p := range payloads {
		off := len(log)
		log = append(log, make([]byte, crc.RecordSize(len(p)))...)
		copy(log[off+crc.FrameSize:], p)
		crc.Seal(log[off:], len(p), flags, salt, int64(off))
	}
	return log
}

// resum seals the record at off again, over whatever length and flags its word now has, by FORMAT.md's words rather than by Seal.
func resum(log []byte, off int) {
	le := binary.LittleEndian
	rec := log[off:]
	n := le.Uint32(rec[8:])
	b := le.AppendUint64(nil, xxhash.Sum64(rec[16:16+n]))
	b = append(b, rec[8:16]...)
	b = le.AppendUint64(b, salt)
	b = le.AppendUint64(b, uint64(off))
	le.PutUint64(rec, xxhash.Sum64(b))
}

// Goal: a record takes its frame, its payload and the padding to 8. Method: a table, the limit included.
func TestRecordSize(t *testing.T) {
	for n, want := range map[int]int64{0: 16, 1: 24, 7: 24, 8: 24, 9: 32, 100: 120, crc.MaxPayload - 1: crc.MaxPayload + 16, crc.MaxPayload: crc.MaxPayload + 16} {
		if got := crc.RecordSize(n); got != want {
			t.Errorf("RecordSize(%d) = %d, want %d", n, got, want)
		}
	}
}

// Goal: what Seal wrote is what all readers find. Method: payload lengths around each alignment, with each kind of flag, behind one another.
func TestSealRoundTrip(t *testing.T) {
	for _, flags := range []uint32{0, 1, 0xffff, crc.FlagMore, crc.FlagMore | 0x8001} {
		var payloads [][]byte
		for n := 1; n <= 40; n++ {
			payloads = append(payloads, payload(n))
		}
		payloads = append(payloads, payload(4096), payload(1<<20+3))
		log := sealed(flags, payloads...)
		off := int64(crc.HeaderSize)
		for _, want := range payloads {
			rec, err := crc.Verify(log, off, salt)
			if err != nil || !bytes.Equal(rec.Payload, want) || rec.Flags != flags || rec.Size != crc.RecordSize(len(want)) {
				t.Fatalf("flags %#x, length %d: Verify = %d bytes, flags %#x, size %d, %v", flags, len(want), len(rec.Payload), rec.Flags, rec.Size, err)
			}
			checkReaders(t, log, off)
			if cap(rec.Payload) != len(rec.Payload) {
				t.Errorf("length %d: the payload's capacity goes on into the padding", len(want))
			}
			if &rec.Payload[0] != &log[off+crc.FrameSize] {
				t.Errorf("length %d: the payload is a copy", len(want))
			}
			off += rec.Size
		}
		if off != int64(len(log)) {
			t.Errorf("flags %#x: the last record ends at %d of %d", flags, off, len(log))
		}
	}
}

// checkReaders fails the test unless Read, Payload, Plausible and Verify agree on off as their comments say.
func checkReaders(t *testing.T, log []byte, off int64) {
	t.Helper()
	rec, err := crc.Read(log, off)
	p, ok := crc.Payload(log, off)
	if ok != (err == nil) || ok && (!bytes.Equal(p, rec.Payload) || cap(p) != len(p)) {
		t.Errorf("offset %d: Payload = %d bytes, %v, Read = %d bytes, %v", off, len(p), ok, len(rec.Payload), err)
	}
	if err != nil && (rec.Payload != nil || rec.Size != 0) {
		t.Errorf("offset %d: Read returned a record beside %v", off, err)
	}
	plausible := crc.Plausible(log, off)
	if plausible && !ok {
		t.Errorf("offset %d: plausible, and Read = %v", off, err)
	}
	full, verr := crc.Verify(log, off, salt)
	switch {
	case verr == nil && (!plausible || !bytes.Equal(full.Payload, rec.Payload) || full.Flags != rec.Flags || full.Size != rec.Size):
		t.Errorf("offset %d: verified, plausible %v, Read = %v", off, plausible, err)
	case errors.Is(verr, crc.ErrSum) && err != nil && !errors.Is(err, crc.ErrFlags),
		errors.Is(verr, crc.ErrFlags) && !errors.Is(err, crc.ErrFlags),
		(errors.Is(verr, crc.ErrBounds) || errors.Is(verr, crc.ErrNoRecord)) && !errors.Is(err, verr):
		t.Errorf("offset %d: Verify = %v, Read = %v", off, verr, err)
	}
}

// Goal: Seal writes its record and nothing else, whatever was there. Method: a space full of ones around and within it.
func TestSealStaysWithin(t *testing.T) {
	for n := 1; n <= 24; n++ {
		buf := bytes.Repeat([]byte{0xff}, 100)
		size := int(crc.RecordSize(n))
		copy(buf[crc.FrameSize:], payload(n))
		crc.Seal(buf, n, 0, salt, crc.HeaderSize)
		if got := buf[crc.FrameSize : crc.FrameSize+n]; !bytes.Equal(got, payload(n)) {
			t.Errorf("length %d: the payload changed to %x", n, got)
		}
		for i := crc.FrameSize + n; i < len(buf); i++ {
			if want := byte(0xff); i < size && buf[i] != 0 || i >= size && buf[i] != want {
				t.Errorf("length %d, size %d: byte %d is %#x", n, size, i, buf[i])
			}
		}
	}
}

// Goal: the sum is the formula of FORMAT.md, so that any tool can check it. Method: the formula written again, with the public package.
func TestSumFormula(t *testing.T) {
	log := sealed(crc.FlagMore|5, payload(21), payload(8))
	want := bytes.Clone(log)
	resum(want, crc.HeaderSize)
	resum(want, crc.HeaderSize+int(crc.RecordSize(21)))
	if !bytes.Equal(log, want) {
		t.Error("Seal and the formula differ")
	}
}

// Goal: a program that seals nothing, too much, or into too little space, is stopped. Method: recover.
func TestSealPanics(t *testing.T) {
	for _, c := range []struct {
		name      string
		recLen, n int
	}{
		{"empty payload", 64, 0},
		{"negative length", 64, -1},
		{"beyond MaxPayload", 64, crc.MaxPayload + 1},
		{"no room for the payload", 24, 9},
		{"no room for the padding", 23, 5},
		{"no room for the frame", 8, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			rec := make([]byte, c.recLen)
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
				if !bytes.Equal(rec, make([]byte, c.recLen)) {
					t.Error("the record was written to")
				}
			}()
			crc.Seal(rec, c.n, 0, salt, crc.HeaderSize)
		})
	}
}

// putWord stores length and flags of the record at off.
func putWord(log []byte, off int, length, flags uint32) {
	binary.LittleEndian.PutUint32(log[off+8:], length)
	binary.LittleEndian.PutUint32(log[off+12:], flags)
}

// Goal: each way in which there is no valid record has its error. Method: a table of damage to a log of two records of 20 and 8 bytes.
func TestVerifyRefuses(t *testing.T) {
	const first, second = crc.HeaderSize, crc.HeaderSize + 40
	for _, c := range []struct {
		name   string
		off    int64
		damage func(log []byte) []byte
		read   error // of Read, nil if only Verify sees it
		verify error
	}{
		{"zeros", first, func(log []byte) []byte { clear(log[first:]); return log }, crc.ErrNoRecord, crc.ErrNoRecord},
		{"length zero", first, func(log []byte) []byte { putWord(log, first, 0, 0); return log }, crc.ErrNoRecord, crc.ErrNoRecord},
		{"length zero with flags", first, func(log []byte) []byte { putWord(log, first, 0, math.MaxUint32); return log }, crc.ErrNoRecord, crc.ErrNoRecord},
		{"length zero with a true sum", first, func(log []byte) []byte { putWord(log, first, 0, 0); resum(log, first); return log }, crc.ErrNoRecord, crc.ErrNoRecord},
		{"no log", first, func([]byte) []byte { return nil }, crc.ErrBounds, crc.ErrBounds},
		{"log ends before the record", first, func(log []byte) []byte { return log[:first] }, crc.ErrBounds, crc.ErrBounds},
		{"log ends in the frame", first, func(log []byte) []byte { return log[:first+15] }, crc.ErrBounds, crc.ErrBounds},
		{"log ends in the payload", first, func(log []byte) []byte { return log[:first+32] }, crc.ErrBounds, crc.ErrBounds},
		{"log ends in the padding", first, func(log []byte) []byte { return log[:first+39] }, crc.ErrBounds, crc.ErrBounds},
		{"one word beyond the log", second, func(log []byte) []byte { putWord(log, second, 9, 0); return log }, crc.ErrBounds, crc.ErrBounds},
		{"length of all ones", first, func(log []byte) []byte { putWord(log, first, math.MaxUint32, 0); return log }, crc.ErrBounds, crc.ErrBounds},
		{"length of the sign bit", first, func(log []byte) []byte { putWord(log, first, 1<<31, 0); return log }, crc.ErrBounds, crc.ErrBounds},
		{"length that wraps when padded", first, func(log []byte) []byte { putWord(log, first, math.MaxUint32-2, 0); return log }, crc.ErrBounds, crc.ErrBounds},
		{"length beyond MaxPayload", first, func(log []byte) []byte { putWord(log, first, crc.MaxPayload+1, 0); return log }, crc.ErrBounds, crc.ErrBounds},
		{"offset misaligned", first + 4, func(log []byte) []byte { return log }, crc.ErrBounds, crc.ErrBounds},
		{"offset in the header", first - 8, func(log []byte) []byte { putWord(log, first-8, 1, 0); return log }, crc.ErrBounds, crc.ErrBounds},
		{"offset zero", 0, func(log []byte) []byte { putWord(log, 0, 1, 0); return log }, crc.ErrBounds, crc.ErrBounds},
		{"offset negative", -8, func(log []byte) []byte { return log }, crc.ErrBounds, crc.ErrBounds},
		{"offset most negative", math.MinInt64, func(log []byte) []byte { return log }, crc.ErrBounds, crc.ErrBounds},
		{"offset at the end", second + 24, func(log []byte) []byte { return log }, crc.ErrBounds, crc.ErrBounds},
		{"offset beyond the end", second + 32, func(log []byte) []byte { return log }, crc.ErrBounds, crc.ErrBounds},
		{"offset greatest", math.MaxInt64 &^ 7, func(log []byte) []byte { return log }, crc.ErrBounds, crc.ErrBounds},
		{"sum zeroed", first, func(log []byte) []byte { clear(log[first : first+8]); return log }, nil, crc.ErrSum},
		{"payload lost", first, func(log []byte) []byte { clear(log[first+16 : first+36]); return log }, nil, crc.ErrSum},
		{"payload cut shorter", first, func(log []byte) []byte { putWord(log, first, 19, 0); return log }, nil, crc.ErrSum},
		{"compatible flag added", first, func(log []byte) []byte { putWord(log, first, 20, 1); return log }, nil, crc.ErrSum},
		{"FlagMore added", first, func(log []byte) []byte { putWord(log, first, 20, crc.FlagMore); return log }, nil, crc.ErrSum},
		{"incompatible flag added", first, func(log []byte) []byte { putWord(log, first, 20, 1<<17); return log }, crc.ErrFlags, crc.ErrSum},
		{"padding not zero, first byte", first, func(log []byte) []byte { log[first+36] = 1; return log }, nil, crc.ErrSum},
		{"padding not zero, last byte", first, func(log []byte) []byte { log[first+39] = 0x80; return log }, nil, crc.ErrSum},
		{"records swapped", second, func(log []byte) []byte { copy(log[second:], log[first:first+24]); return log }, crc.ErrBounds, crc.ErrBounds},
		{"incompatible flag of a later version", first, func(log []byte) []byte { putWord(log, first, 20, 1<<17); resum(log, first); return log }, crc.ErrFlags, crc.ErrFlags},
		{"all incompatible flags", first, func(log []byte) []byte { putWord(log, first, 20, 0xffff0000); resum(log, first); return log }, crc.ErrFlags, crc.ErrFlags},
		{"all compatible flags of a later version", first, func(log []byte) []byte { putWord(log, first, 20, 0xffff); resum(log, first); return log }, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := c.damage(sealed(0, payload(20), payload(8)))
			if _, err := crc.Read(log, c.off); !errors.Is(err, c.read) {
				t.Errorf("Read: %v, want %v", err, c.read)
			}
			if rec, err := crc.Verify(log, c.off, salt); !errors.Is(err, c.verify) || err != nil && rec.Payload != nil {
				t.Errorf("Verify: %v, want %v", err, c.verify)
			}
			checkReaders(t, log, c.off)
		})
	}
}

// Goal: no flipped bit of a record goes unseen, the padding's included. Method: each of them, in records with and without padding.
func TestEveryBitOfRecord(t *testing.T) {
	for _, n := range []int{1, 13, 16, 100} {
		log := sealed(crc.FlagMore, payload(n), payload(8))
		end := crc.HeaderSize + int(crc.RecordSize(n))
		for bit := crc.HeaderSize * 8; bit < end*8; bit++ {
			log[bit/8] ^= 1 << (bit % 8)
			if _, err := crc.Verify(log, crc.HeaderSize, salt); err == nil {
				t.Errorf("length %d: bit %d of byte %d flipped, and the record verifies", n, bit%8, bit/8-crc.HeaderSize)
			}
			checkReaders(t, log, crc.HeaderSize)
			log[bit/8] ^= 1 << (bit % 8)
		}
		if _, err := crc.Verify(log, crc.HeaderSize, salt); err != nil {
			t.Fatalf("length %d: the undamaged record: %v", n, err)
		}
	}
}

// Goal: a record is valid at its offset in its file only. Method: copied to other offsets, and read with other salts.
func TestRelocated(t *testing.T) {
	log := sealed(0, payload(40))
	rec := bytes.Clone(log[crc.HeaderSize:])
	log = append(log, make([]byte, 1024)...)
	for off := crc.HeaderSize; off <= len(log)-len(rec); off += crc.Align {
		clear(log[crc.HeaderSize:])
		copy(log[off:], rec)
		_, err := crc.Verify(log, int64(off), salt)
		if original := off == crc.HeaderSize; original != (err == nil) || !original && !errors.Is(err, crc.ErrSum) {
			t.Errorf("at offset %d: %v", off, err)
		}
		if !crc.Plausible(log, int64(off)) {
			t.Errorf("at offset %d: not plausible", off)
		}
	}
	log = sealed(0, payload(40))
	for bit := range 64 {
		if _, err := crc.Verify(log, crc.HeaderSize, salt^1<<bit); !errors.Is(err, crc.ErrSum) {
			t.Errorf("bit %d of the salt flipped: %v", bit, err)
		}
	}
}

// Goal: from any place within a log the next record is found, and no false one. Method: step by Align from everywhere in a log of
// records whose payloads are records themselves, screen, then verify.
func TestResynchronise(t *testing.T) {
	inner := sealed(0, payload(10), payload(24))[crc.HeaderSize:]
	var payloads [][]byte
	starts := map[int64]bool{}
	for i, off := 0, int64(crc.HeaderSize); i < 20; i++ {
		p := append(payload(i*8), inner...)
		payloads = append(payloads, p)
		starts[off] = true
		off += crc.RecordSize(len(p))
	}
	log := sealed(0, payloads...)
	screened := 0
	for off := int64(crc.HeaderSize); off < int64(len(log)); off += crc.Align {
		_, err := crc.Verify(log, off, salt)
		if starts[off] != (err == nil) {
			t.Errorf("offset %d: %v", off, err)
		}
		if crc.Plausible(log, off) && !starts[off] {
			screened++
		}
	}
	if screened == 0 {
		t.Error("no false record got through the screen: the sum was not put to the test")
	}
}

// Goal: the hot paths leave the garbage collector alone, and so do the errors that a scan meets. Method: counted allocations.
func TestRecordAllocs(t *testing.T) {
	log := sealed(0, payload(130))
	bad := sealed(0, payload(130))
	bad[crc.HeaderSize+20]++
	for name, f := range map[string]func(){
		"Seal":            func() { crc.Seal(log[crc.HeaderSize:], 130, 0, salt, crc.HeaderSize) },
		"Read":            func() { crc.Read(log, crc.HeaderSize) },
		"Verify":          func() { crc.Verify(log, crc.HeaderSize, salt) },
		"Payload":         func() { crc.Payload(log, crc.HeaderSize) },
		"Plausible":       func() { crc.Plausible(log, crc.HeaderSize) },
		"Verify, damaged": func() { crc.Verify(bad, crc.HeaderSize, salt) },
		"Verify, the end": func() { crc.Verify(log, int64(len(log)), salt) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// FuzzVerify: no log and offset make a reader panic or disagree with the others, and what verifies is what Seal writes there.
func FuzzVerify(f *testing.F) {
	log := sealed(crc.FlagMore, payload(20), payload(8))[crc.HeaderSize:]
	f.Add(log, int64(crc.HeaderSize))
	f.Add(log, int64(crc.HeaderSize+40))
	f.Add(log[:39], int64(crc.HeaderSize))
	f.Add(make([]byte, 64), int64(crc.HeaderSize))
	f.Add(bytes.Repeat([]byte{0xff}, 64), int64(crc.HeaderSize))
	f.Add([]byte{}, int64(crc.HeaderSize))
	f.Add(log, int64(math.MaxInt64))
	f.Add(log, int64(math.MinInt64))
	f.Fuzz(func(t *testing.T, records []byte, off int64) {
		log := append(make([]byte, crc.HeaderSize), records...)
		checkReaders(t, log, off)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		rec, err := crc.Verify(log, off, salt)
		runtime.ReadMemStats(&after)
		// Nothing but an error is allocated, whatever length the record claims. The rest is for what else runs.
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<10 {
			t.Errorf("offset %d: %d bytes allocated for %d", off, n, len(log))
		}
		if err == nil {
			again := bytes.Clone(log)
			crc.Seal(again[off:], len(rec.Payload), rec.Flags, salt, off)
			if !bytes.Equal(again, log) {
				t.Errorf("offset %d: sealed again, the record differs", off)
			}
			return
		}
		// A sum is beyond the fuzzer: give it one, so that what comes after the sum is reached too.
		if _, err := crc.Read(log, off); err == nil || errors.Is(err, crc.ErrFlags) {
			resum(log, int(off))
			checkReaders(t, log, off)
			if _, err := crc.Verify(log, off, salt); (err == nil) != crc.Plausible(log, off) {
				t.Errorf("offset %d: with its sum put right: %v, plausible %v", off, err, crc.Plausible(log, off))
			}
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	rec := make([]byte, 200)
	for b.Loop() {
		crc.Seal(rec, 130, 0, salt, crc.HeaderSize)
	}
}

func BenchmarkVerify(b *testing.B) {
	log := sealed(0, payload(130))
	for b.Loop() {
		crc.Verify(log, crc.HeaderSize, salt)
	}
}

func BenchmarkPayload(b *testing.B) {
	log := sealed(0, payload(130))
	for b.Loop() {
		crc.Payload(log, crc.HeaderSize)
	}
}

// Goal: a gap is what lies between a record and the next page, all of it zero, and nothing else. Method: a table.
func TestGap(t *testing.T) {
	log := make([]byte, crc.HeaderSize+2*crc.Page)
	log[crc.HeaderSize+100] = 1
	for _, c := range []struct {
		name string
		log  []byte
		off  int64
		want int64 // 0: none
	}{
		{"behind the last byte", log, crc.HeaderSize + 104, crc.HeaderSize + crc.Page},
		{"the last word of a page", log, crc.HeaderSize + crc.Page - 8, crc.HeaderSize + crc.Page},
		{"with a byte in it", log, crc.HeaderSize + 96, 0},
		{"at a page", log, crc.HeaderSize + crc.Page, 0},
		{"in the header", log, crc.HeaderSize - 8, 0},
		{"negative", log, -8, 0},
		{"up to the end of the log", log, crc.HeaderSize + crc.Page + 8, crc.HeaderSize + 2*crc.Page},
		{"cut short by the end of the log", log[:len(log)-8], crc.HeaderSize + crc.Page + 8, 0},
		{"beyond the log", log, crc.HeaderSize + 9*crc.Page + 8, 0},
	} {
		next, ok := crc.Gap(c.log, c.off)
		if next != c.want || ok != (c.want != 0) {
			t.Errorf("%s: %d, %v, want %d", c.name, next, ok, c.want)
		}
	}
}
