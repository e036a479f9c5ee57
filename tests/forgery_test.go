package tests

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/kv"
)

// A forgery is a file that a hostile hand made, with sums that are right. It is
// drawn from the bytes of a fuzzer in two ways: as a script that says what to put
// next, or as the bytes of a file, whose sums are then computed anew.

// longestForgery bounds the log of a forgery, in bytes.
const longestForgery = 256 << 10

// oneOf draws a value.
func oneOf[T any](src source, of ...T) T { return of[src.below(len(of))] }

// forger makes a file by a script.
type forger struct {
	src      source
	b        []byte
	h        crc.Header
	revision uint64
	ends     []int64 // of the records, and where else a log could end
	longer   []int64 // records that shall claim to be longer
}

// scripted returns the file that src describes. Where src ends it draws zeros, which
// are never the hostile choice. boot and pid are those of a holder that lives.
func scripted(src source, boot, pid uint64) []byte {
	f := &forger{src: src, b: make([]byte, crc.HeaderSize)}
	f.h = crc.Header{Version: crc.Version, Generation: 1, Salt: 0x5a17, HashSeed: 7, StoreID: [16]byte{1}}
	switch src.below(12) {
	case 1:
		f.h.Version = oneOf[uint32](src, 2, math.MaxUint32)
	case 2:
		f.h.Compatible = 1 << src.below(32)
	case 3:
		f.h.Incompatible = 1 << src.below(32)
	case 4, 5:
		f.h.BaseRevision = oneOf[uint64](src, 1, 100, math.MaxInt64-3, math.MaxInt64, 1<<63, math.MaxUint64)
	case 6:
		f.h.Generation = oneOf[uint64](src, 0, math.MaxUint64)
		f.h.Created, f.h.GenerationCreated = math.MinInt64, math.MaxInt64
	}
	crc.EncodeHeader(f.b, &f.h)
	f.revision = f.h.BaseRevision
	f.end()
	for range 100 {
		if src.empty() || len(f.b) > longestForgery {
			break
		}
		f.append()
	}
	for _, off := range f.longer {
		rec := f.b[off:]
		crc.Seal(rec, 1+src.below(len(rec)-crc.FrameSize), 0, f.h.Salt, off)
	}
	f.words(boot, pid)
	return f.b
}

func (f *forger) end() { f.ends = append(f.ends, int64(len(f.b))) }

// append puts something behind the log.
func (f *forger) append() {
	switch f.src.below(16) {
	case 1:
		payload := make([]byte, 1+f.src.below(40))
		for i := range payload {
			payload[i] = byte(f.src.below(256))
		}
		f.seal(payload)
	case 2:
		payload := f.entry()
		payload[f.src.below(len(payload))] = byte(f.src.below(256))
		f.seal(payload)
	case 3:
		f.b = append(f.b, make([]byte, 8*oneOf(f.src, 1, 2, 3, 512, 1024))...)
	case 4:
		f.b = append(f.b, valueOf(8*(1+f.src.below(200)), f.src.below(256))...)
	case 5: // a length that lies
		off := int64(len(f.b))
		f.seal(f.entry())
		if f.src.below(2) == 0 {
			f.longer = append(f.longer, off)
		} else {
			binary.LittleEndian.PutUint32(f.b[off+8:], oneOf[uint32](f.src, 0, 1, crc.MaxPayload, crc.MaxPayload+1, 1<<31, math.MaxUint32))
		}
	default:
		f.seal(f.entry())
	}
	f.end()
}

// entry draws an entry, as a rule the next one.
func (f *forger) entry() []byte {
	f.revision++
	e := codec.Entry{Key: keyOf(f.src.below(keyIDs)), Revision: f.revision}
	if f.src.below(8) == 7 {
		e.Revision = oneOf(f.src, f.revision-1, f.revision+1000, 1, math.MaxInt64-1, math.MaxInt64, 1<<63, math.MaxUint64)
		f.revision = max(f.revision, e.Revision)
	}
	if f.src.below(6) == 5 {
		e.Written = oneOf[int64](f.src, 1, -1, math.MinInt64, math.MinInt64/1000-1, 1<<62, math.MaxInt64)
		e.Expiry = oneOf[int64](f.src, 0, 1, -1, 1<<50, math.MinInt64, math.MaxInt64)
	}
	if f.src.below(4) == 3 {
		e.Kind = codec.Delete
	} else {
		e.Value = valueOf(oneOf(f.src, 0, 1, 7, 8, 100, 4096, 20000), int(f.revision))
	}
	return codec.Append(nil, &e)
}

func (f *forger) seal(payload []byte) {
	flags := uint32(0)
	if f.src.below(4) == 3 {
		flags = oneOf(f.src, crc.FlagMore, crc.FlagMore, crc.FlagMore, 1<<3, 1<<20, math.MaxUint32)
	}
	f.b = forge(f.b, f.h, payload, flags)
}

// words sets the words of the header that change, its copy, and what is behind the
// log.
func (f *forger) words(boot, pid uint64) {
	src := f.src
	place := func() int64 {
		if src.below(2) == 0 {
			return f.ends[src.below(len(f.ends))]
		}
		return oneOf(src, 0, 1, crc.HeaderSize, int64(len(f.b)), int64(len(f.b))+8, int64(8*src.below(1<<16)), crc.MaxOff, crc.MaxOff+8, math.MaxInt64, -8)
	}
	for i := range uint64(2) {
		if src.below(2) == 1 {
			m := crc.Mark{Off: place(), Revision: oneOf(src, f.revision, 0, 1, math.MaxUint64), Stamp: oneOf[int64](src, 0, 1, -1, math.MinInt64, 1<<62, math.MaxInt64)}
			crc.EncodeMark(f.b[crc.MarkOff(i):], m, f.h.Salt)
		}
	}
	word := uint64(place())
	if src.below(6) == 5 {
		word |= crc.Superseded
	}
	binary.LittleEndian.PutUint64(f.b[crc.TailOff:], word)
	binary.LittleEndian.PutUint64(f.b[crc.HolderOff:], oneOf(src, 0, pid, 1, math.MaxUint64))
	binary.LittleEndian.PutUint64(f.b[crc.BootOff:], oneOf(src, boot, 0, 1))
	switch src.below(8) {
	case 1:
		clear(f.b[crc.CopyOff:crc.HeaderSize])
	case 2:
		clear(f.b[:crc.ImmutableSize])
	case 3:
		g, page := f.h, make([]byte, crc.HeaderSize)
		g.Salt++
		crc.EncodeHeader(page, &g)
		copy(f.b[crc.CopyOff:], page[crc.CopyOff:])
	case 4:
		f.b[src.below(len(f.b))] ^= 1
	}
	f.b = append(f.b, make([]byte, oneOf(src, 0, 0, 1, 8, 4096))...)
	f.b = f.b[:len(f.b)-min(oneOf(src, 0, 0, 0, 1, 8, 100), len(f.b)-crc.HeaderSize)]
	if src.below(2) == 1 {
		binary.LittleEndian.PutUint64(f.b[crc.WrittenOff:], uint64(place()))
		binary.LittleEndian.PutUint32(f.b[crc.TurnOff:], oneOf[uint32](src, 0, 1, 2, math.MaxUint32))
	}
}

// words of the header, in the order in which squeezed has them.
var squeezedWords = [][2]int64{
	{0, crc.ImmutableSize}, {crc.TailOff, 8}, {crc.HolderOff, 8}, {crc.BootOff, 8},
	{crc.MarkOff(0), crc.MarkSize}, {crc.MarkOff(1), crc.MarkSize},
}

// squeezed returns a file's bytes without those of the header that say nothing.
func squeezed(file []byte) (b []byte) {
	for _, w := range squeezedWords {
		b = append(b, file[w[0]:w[0]+w[1]]...)
	}
	return append(b, file[crc.HeaderSize:]...)
}

// resummed is squeezed undone, with all sums computed anew that how asks for.
func resummed(how byte, b []byte) []byte {
	file := make([]byte, crc.HeaderSize)
	for _, w := range squeezedWords {
		b = b[copy(file[w[0]:w[0]+w[1]], b):]
	}
	file = append(file, b[:min(len(b), longestForgery)]...)
	if how&1 != 0 {
		const sumOff = crc.ImmutableSize - 8
		binary.LittleEndian.PutUint64(file[sumOff:], xxhash.Sum64(file[:sumOff]))
	}
	if how&2 != 0 {
		copy(file[crc.CopyOff:], file[:crc.ImmutableSize])
	}
	h, err := crc.DecodeHeader(file)
	if err != nil {
		return file
	}
	if how&4 != 0 {
		for i := range uint64(2) {
			m := file[crc.MarkOff(i):]
			crc.EncodeMark(m, crc.Mark{
				Off: int64(binary.LittleEndian.Uint64(m)), Revision: binary.LittleEndian.Uint64(m[8:]), Stamp: int64(binary.LittleEndian.Uint64(m[16:])),
			}, h.Salt)
		}
	}
	if how&8 != 0 {
		for off := int64(crc.HeaderSize); ; {
			r, err := crc.Read(file, off)
			if err != nil {
				break
			}
			crc.Seal(file[off:], len(r.Payload), r.Flags, h.Salt, off)
			off += r.Size
		}
	}
	return file
}

// examine opens a forgery in every way and uses it. Whatever it is, what is read in
// one way is read in every other, and by whoever opens it next.
func examine(path string, b []byte) (opens bool, err error) {
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return false, err
	}
	read, _, readErr := examineRead(path, kv.Options{ReadOnly: true})
	again, _, againErr := examineRead(path, kv.Options{ReadOnly: true, VerifyReads: true})
	if d := differs(read, again); d != "" || (readErr == nil) != (againErr == nil) {
		return false, fmt.Errorf("read twice: %s %v %v", d, readErr, againErr)
	}
	salvaged, missing, salvageErr := examineRead(path, kv.Options{Salvage: true})
	if d := differs(read, salvaged); readErr == nil && (salvageErr != nil || d != "" && len(missing) == 0) {
		return false, fmt.Errorf("what opens is salvaged as something else: %s %w", d, salvageErr)
	}
	for _, err := range []error{readErr, againErr, salvageErr} {
		if err != nil && !errors.Is(err, kv.ErrCorrupt) && !errors.Is(err, kv.ErrFormat) && !errors.Is(err, kv.ErrVersion) {
			return false, err
		}
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, b) {
		return false, fmt.Errorf("reading has changed the file (%v)", err)
	}
	s, err := openBounded(path, kv.Options{Durability: kv.SyncManual, CompactAt: -1})
	if err != nil {
		if !errors.Is(err, kv.ErrCorrupt) && !errors.Is(err, kv.ErrFormat) && !errors.Is(err, kv.ErrVersion) {
			return false, err
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, b) {
			return false, fmt.Errorf("a refusal has changed the file (%v)", err)
		}
		return false, examineShared(path+".shared", b, nil, err)
	}
	defer s.Close()
	// Beside a holder that lives, who reads believes the tail word.
	holder := binary.LittleEndian.Uint64(b[crc.HolderOff:])
	lives := holder == 1 || holder == uint64(os.Getpid())
	if !lives && readErr != nil {
		return false, fmt.Errorf("opens for writing, and not to read: %w", readErr)
	}
	want, err := contents(s)
	if err != nil {
		return false, err
	}
	if d := differs(read, want); d != "" && !lives {
		return false, fmt.Errorf("read otherwise than written: %s", d)
	}
	return true, errors.Join(examineShared(path+".shared", b, want, nil), examineWrite(s, path, want), s.Close())
}

// examineShared opens a forgery by handles that share it. What they have is want, unless one
// that is alone was refused.
func examineShared(path string, b []byte, want map[string]string, refused error) error {
	if runtime.GOOS != "linux" {
		return nil
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	defer os.Remove(path)
	var handles []*kv.Store
	for range 2 {
		s, err := openBounded(path, kv.Options{Shared: true, Durability: kv.SyncManual, CompactAt: -1})
		if (err == nil) != (refused == nil) {
			return fmt.Errorf("shared: %v; alone: %v", err, refused)
		}
		if err != nil {
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, b) {
				return fmt.Errorf("a refusal to share has changed the file (%v)", err)
			}
			return nil
		}
		defer s.Close()
		handles = append(handles, s)
	}
	want = maps.Clone(want)
	for i, s := range handles {
		k := fmt.Sprintf("shared-%d", i)
		if err := s.Put([]byte(k), []byte(k)); err == nil {
			want[k] = k
		} else if !errors.Is(err, kv.ErrFull) {
			return fmt.Errorf("shared: put: %w", err)
		}
	}
	for _, s := range handles {
		if d, err := compare(s, want); d != "" || err != nil {
			return fmt.Errorf("shared: %s %w", d, err)
		}
	}
	return nil
}

// examineRead returns what a store has that is opened to read, and checks that all
// ways of reading agree.
func examineRead(path string, opts kv.Options) (all map[string]string, missing []kv.Range, err error) {
	s, err := openBounded(path, opts)
	if err != nil {
		return nil, nil, err
	}
	defer s.Close()
	if all, err = contents(s); err != nil {
		return nil, nil, fmt.Errorf("%+v: iteration: %v", opts, err)
	}
	if d, err := compare(s, all); d != "" || err != nil {
		return nil, nil, fmt.Errorf("%+v: %s %v", opts, d, err)
	}
	if _, err := s.Verify(context.Background()); err != nil {
		return nil, nil, fmt.Errorf("%+v: verify: %v", opts, err)
	}
	return all, s.Stats().Missing, nil
}

// examineWrite uses a store, which has want, in all ways.
func examineWrite(s *kv.Store, path string, want map[string]string) error {
	same := func(when string, s *kv.Store) error {
		d, err := compare(s, want)
		if err = errors.Join(err, sound(s)); d != "" || err != nil {
			return fmt.Errorf("%s: %s %w", when, d, err)
		}
		return nil
	}
	reopened := func(when, path string) error {
		r, err := openBounded(path, kv.Options{Durability: kv.SyncManual})
		if err != nil {
			return fmt.Errorf("%s: %w", when, err)
		}
		return errors.Join(same(when, r), r.Close())
	}
	if err := same("opened", s); err != nil {
		return err
	}
	b, err := copyOf(s)
	if err == nil {
		err = os.WriteFile(path+".copy", b, 0o600)
	}
	if err = errors.Join(err, reopened("the copy", path+".copy"), os.Remove(path+".copy")); err != nil {
		return err
	}
	// A store whose revisions are used up takes no more writes.
	put := func(k string) error {
		err := s.Put([]byte(k), []byte(k))
		if err == nil {
			want[k] = k
		} else if errors.Is(err, kv.ErrFull) {
			return nil
		}
		return err
	}
	if err := errors.Join(put("written on"), same("written on", s)); err != nil {
		return err
	}
	b, err = os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path+".copy", b, 0o600)
	}
	if err = errors.Join(err, reopened("killed", path+".copy"), os.Remove(path+".copy")); err != nil {
		return err
	}
	if _, err := s.Compact(context.Background()); err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	if err := errors.Join(same("compacted", s), put("after it"), s.Close()); err != nil {
		return err
	}
	return reopened("closed", path)
}

// boot is what a store that is open notes of this boot of the machine.
func bootWord(t testing.TB) uint64 {
	path := storePath(t)
	s, err := kv.Open(path, nil)
	must(t, err)
	b, err := os.ReadFile(path)
	must(t, errors.Join(err, s.Close()))
	return binary.LittleEndian.Uint64(b[crc.BootOff:])
}

// Goal: no file, be it made to verify, makes anything panic, hang, or allocate more
// than a multiple of its length; and whatever is shown of it is shown by every way of
// reading, and again after all that can be done to a store.
// Method: forgeries that the fuzzer draws; the seeds are scripts, and small stores.
func FuzzOpen(f *testing.F) {
	for seed := range 12 {
		f.Add(byte(0), valueOf(40+20*seed, seed))
	}
	for n := range 3 {
		f.Add(byte(0xf0+n), squeezed(smallStore(f, n, 3).bytes))
		f.Add(byte(0xff), squeezed(smallStore(f, n, 3).bytes))
	}
	image, _, _ := tornStore(f)
	f.Add(byte(0xff), squeezed(image[:crc.HeaderSize+1024]))
	boot := bootWord(f)
	f.Fuzz(func(t *testing.T, how byte, b []byte) {
		hung := time.AfterFunc(time.Minute, func() { panic("a forgery hangs") })
		defer hung.Stop()
		var file []byte
		if how>>4 == 0 {
			src := byteSource(b)
			file = scripted(&src, boot, uint64(os.Getpid()))
		} else {
			file = resummed(how, b)
		}
		if _, err := examine(filepath.Join(t.TempDir(), "forgery"), file); err != nil {
			t.Error(err)
		}
	})
}

// Goal and method: as FuzzOpen, in every run of the tests, with scripts that a seed
// draws.
func TestForgeries(t *testing.T) {
	boot := bootWord(t)
	opened, refused := 0, 0
	for _, seed := range seeds(60) {
		src := byteSource(valueOf(10+int(seed*7%150), int(seed)))
		file := scripted(&src, boot, uint64(os.Getpid()))
		path := storePath(t)
		opens, err := examine(path, file)
		if err != nil {
			must(t, os.WriteFile(path, file, 0o600))
			t.Fatalf("seed %d: %v; the file is kept at %s", seed, err, keep(t, path))
		}
		if opens {
			opened++
		} else {
			refused++
		}
	}
	t.Logf("%d forgeries opened, %d were refused", opened, refused)
	if *seedFlag == 0 && (opened == 0 || refused == 0) {
		t.Error("one of the two was not tested")
	}
}

// Goal: where no revision is left, nothing is acknowledged that the next Open would
// refuse.
// Method: a store whose last but one revision is the last that there may be; every
// kind of mutation.
func TestRevisionsUsedUp(t *testing.T) {
	c := smallStore(t, 3, 10)
	b := forge(c.bytes, c.header, codec.Append(nil, &codec.Entry{Key: []byte("k"), Revision: math.MaxInt64 - 1, Value: []byte("v")}), 0)
	path := storePath(t)
	must(t, os.WriteFile(path, b, 0o600))
	s := open(t, path, nil)
	must(t, s.Put([]byte("last"), []byte("w")))
	wantErr(t, s.Put([]byte("k"), nil), kv.ErrFull)
	wantErr(t, s.Delete([]byte("k")), kv.ErrFull)
	wantErr(t, s.Update(func(tx *kv.Tx) error { return tx.Put([]byte("k"), nil) }), kv.ErrFull)
	wantErr(t, s.Clear(), kv.ErrFull)
	c.want["k"], c.want["last"] = "v", "w"
	wantContents(t, s, c.want)
	_, err := s.Compact(t.Context())
	must(t, err)
	closeSound(t, s)
	s = open(t, path, nil)
	wantContents(t, s, c.want)
	wantErr(t, s.Put([]byte("k"), nil), kv.ErrFull)
}
