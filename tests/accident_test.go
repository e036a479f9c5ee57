package tests

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/kv"
)

var accidentsFlag = flag.Int("accidents", 100, "accidents to try in TestAccidents; -seed is the first seed")

// accidentsPerSeed are those that befall the stores of one seed.
const accidentsPerSeed = 20

// victim is the file of a store to which accidents happen.
type victim struct {
	name    string
	bytes   []byte
	header  crc.Header
	records []kv.Record // of its log, in order
	index   []byte      // its checkpoint; nil: there is none
}

// scene are the files of a seed: a store's newest, the same store's at an earlier
// time, of the same generation or of the one before, and another store's.
type scene struct {
	rng                  *rand.Rand
	newest, older, other *victim
	resumes              int // times that a checkpoint served to open a file
}

// victimOf takes the file of an open store as the death of its process would leave
// it, and what its log has.
func victimOf(name, path string, s *kv.Store) (*victim, error) {
	v := &victim{name: name}
	for r, err := range s.Records(context.Background()) {
		if err != nil {
			return nil, err
		}
		r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
		v.records = append(v.records, r)
	}
	return v, v.read(path)
}

func (v *victim) read(path string) (err error) {
	if v.index, err = os.ReadFile(path + indexSuffix); errors.Is(err, fs.ErrNotExist) {
		v.index, err = nil, nil
	}
	if err != nil {
		return err
	}
	if v.bytes, err = os.ReadFile(path); err == nil {
		clear(v.bytes[crc.HolderOff : crc.HolderOff+16]) // nobody who lives holds it
		v.header, err = crc.DecodeHeader(v.bytes)
	}
	return err
}

// fillAtRandom writes until the log has n bytes more.
func fillAtRandom(s *kv.Store, rng *rand.Rand, n int64) error {
	key := func() []byte { return fmt.Append(nil, "key ", rng.IntN(150)) }
	value := func() []byte {
		size := rng.IntN(300)
		switch rng.IntN(12) {
		case 0:
			size = 0
		case 1, 2:
			size = rng.IntN(8 << 10)
		case 3:
			size = rng.IntN(120 << 10)
		}
		return valueOf(size, rng.Int())
	}
	for end := s.Stats().Tail + n; s.Stats().Tail < end; {
		var err error
		switch rng.IntN(10) {
		case 0:
			err = s.Delete(key())
		case 1:
			err = s.Update(func(tx *kv.Tx) error {
				var err error
				for range 2 + rng.IntN(5) {
					err = errors.Join(err, tx.Put(key(), value()))
				}
				return errors.Join(err, tx.Delete(key()))
			})
		default:
			err = s.Put(key(), value())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func newScene(dir string, seed int64) (sc *scene, err error) {
	sc = &scene{rng: rand.New(rand.NewPCG(uint64(seed), 6))}
	rng := sc.rng
	part := func() int64 { return int64(rng.IntN(1 << 20)) }
	for i, v := range []**victim{&sc.other, &sc.newest} {
		path := filepath.Join(dir, fmt.Sprint("store ", i))
		// Close takes checkpoints, and nothing else does: so they are drawn too.
		opts := &kv.Options{Durability: kv.SyncManual, CompactAt: -1, CheckpointBytes: 8 << 20}
		s, err := kv.Open(path, opts)
		if err != nil {
			return nil, err
		}
		if err = errors.Join(fillAtRandom(s, rng, part()), s.Sync()); err != nil {
			return nil, err
		}
		if sc.older, err = victimOf("the older copy", path, s); err != nil {
			return nil, err
		}
		if err = s.Close(); err != nil {
			return nil, err
		}
		if sc.older.index, err = os.ReadFile(path + indexSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if s, err = kv.Open(path, opts); err != nil {
			return nil, err
		}
		if rng.IntN(3) == 0 {
			if _, err = s.Compact(context.Background()); err != nil {
				return nil, err
			}
		}
		// The last part is not synced.
		if err = errors.Join(fillAtRandom(s, rng, part()), s.Sync(), fillAtRandom(s, rng, part())); err != nil {
			return nil, err
		}
		if *v, err = victimOf("the killed store", path, s); err != nil {
			return nil, err
		}
		if err = s.Close(); err != nil {
			return nil, err
		}
		if rng.IntN(2) == 0 {
			(*v).name = "the closed store"
			if err = (*v).read(path); err != nil {
				return nil, err
			}
		}
	}
	return sc, nil
}

// draw lets one to three accidents happen to a file, or to what lies beside it, and
// tells which.
func (sc *scene) draw() (b []byte, beside checkpoint, what string) {
	rng := sc.rng
	v, stale := sc.newest, sc.older
	if rng.IntN(6) == 0 {
		v, stale = sc.older, sc.newest // an older copy of the whole file
	}
	b, what = bytes.Clone(v.bytes), v.name
	beside = sc.drawCheckpoint(v)
	for range 1 + rng.IntN(3) {
		var did string
		if beside.bytes != nil && rng.IntN(3) == 0 {
			beside.bytes, did = sc.befall(beside.bytes, sc.other.bytes)
			beside.harmed = true
			did = "of the checkpoint, " + did
		} else {
			b, did = sc.befall(b, stale.bytes)
		}
		what += "; " + did
	}
	return b, beside, what + "; " + beside.what
}

// checkpoint is what lies beside a victim.
type checkpoint struct {
	what   string
	bytes  []byte // nil: nothing
	mark   string // what it says of when the log's file was closed: nothing, true, or untrue
	harmed bool   // it is not as it was written
}

// drawCheckpoint draws which checkpoint lies beside v: as a rule its own.
func (sc *scene) drawCheckpoint(v *victim) (c checkpoint) {
	from := v
	switch sc.rng.IntN(8) {
	case 0, 1:
		return checkpoint{what: "no checkpoint"}
	case 2:
		from = sc.older
	case 3:
		from = sc.newest
	case 4:
		from = sc.other
	}
	c.mark = []string{"nothing", "true", "true", "untrue"}[sc.rng.IntN(4)]
	c.bytes, c.what = bytes.Clone(from.index), "the checkpoint of "+from.name
	if from == sc.other {
		c.what += " elsewhere"
	}
	if c.bytes == nil {
		return checkpoint{what: c.what + ", which has none"}
	}
	c.what += ", its close mark: " + c.mark
	return c
}

// lay writes b and what lies beside it to path. A checkpoint is that of the file of
// that inode, and its close mark is that of the file as it is now, or is not.
func (c checkpoint) lay(path string, b []byte) error {
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	if err := os.Remove(path + indexSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) || c.bytes == nil {
		if c.bytes == nil {
			err = nil
		}
		return err
	}
	index := bytes.Clone(c.bytes)
	if head, err := crc.DecodeCheckpoint(index); err == nil {
		fi, err := os.Stat(path)
		if err != nil {
			return err
		}
		head.File = uint64(fi.Sys().(*syscall.Stat_t).Ino)
		copy(index, crc.EncodeCheckpoint(&head))
		if mark := (crc.CloseMark{Length: fi.Size(), Modified: fi.ModTime().UnixNano()}); c.mark != "nothing" {
			if c.mark == "untrue" {
				mark.Modified--
			}
			crc.EncodeCloseMark(index[crc.CloseMarkOff:], mark, head.Salt)
		}
	}
	return os.WriteFile(path+indexSuffix, index, 0o600)
}

// befall lets one accident happen to b. Stale bytes are those of another time.
func (sc *scene) befall(b, stale []byte) (_ []byte, what string) {
	rng := sc.rng
	unit := []int{512, 4096}[rng.IntN(2)]
	if len(b) < 4*unit {
		return b, "nothing"
	}
	// place draws where a unit lies, at times in the header.
	place := func() int {
		at := rng.IntN(len(b)/unit) * unit
		if rng.IntN(5) == 0 {
			at = rng.IntN(crc.HeaderSize/unit) * unit
		}
		return min(at, len(b)/unit*unit-unit)
	}
	at, to := place(), place()
	u := b[at : at+unit]
	name := fmt.Sprintf("%d bytes at %d", unit, at)
	switch rng.IntN(13) {
	case 0, 1:
		n := 1 + rng.IntN(8)
		for range n {
			at := rng.IntN(len(b))
			if rng.IntN(8) == 0 {
				at = rng.IntN(crc.HeaderSize)
			}
			b[at] ^= 1 << rng.IntN(8)
		}
		return b, fmt.Sprintf("%d bits flipped", n)
	case 2:
		clear(u)
		return b, name + " zeroed"
	case 3:
		copy(u, bytes.Repeat([]byte{0xff}, unit))
		return b, name + " filled with ff"
	case 4:
		first := bytes.Clone(u)
		copy(u, b[to:to+unit])
		copy(b[to:], first)
		return b, fmt.Sprintf("%s swapped with those at %d", name, to)
	case 5:
		copy(b[to:to+unit], u)
		return b, fmt.Sprintf("%s repeated at %d", name, to)
	case 6:
		return slices.Delete(b, at, at+unit), name + " dropped, all behind shifted"
	case 7:
		return slices.Insert(b, at, make([]byte, unit)...), fmt.Sprintf("%d zeros shifted in at %d", unit, at)
	case 8:
		clear(u)
		copy(u, stale[min(at, len(stale)):])
		return b, name + " stale"
	case 9:
		n := rng.IntN(len(b))
		return b[:n], fmt.Sprintf("cut short to %d", n)
	case 10:
		n := 1 + rng.IntN(100<<10)
		return append(b, valueOf(n, rng.Int())...), fmt.Sprintf("%d bytes of garbage behind", n)
	case 11:
		copy(u, sc.other.bytes[min(at, len(sc.other.bytes)):])
		return b, name + " of another store"
	}
	r := sc.newest.records[rng.IntN(len(sc.newest.records))]
	from, moved := min(int(r.Off), len(b)), min(int(r.Off+r.Len), len(b))
	copy(b[to:], b[from:moved])
	return b, fmt.Sprintf("the record at %d moved to %d", from, to)
}

// outlook is what is to be seen of a damaged file.
type outlook struct {
	noStore bool              // header and copy are both gone
	refused []kv.Range        // by a plain Open, unless nil: then
	shown   map[string]string // is what it has
	salvage map[string]string // by Options.Salvage
	missing []kv.Range        // as salvage reports it
}

// outlook tells what is to be seen of b, without reading a record of it: those are
// in it whose bytes are where they were in the file that the header is of.
func (sc *scene) outlook(b []byte) (o outlook) {
	head := b[:min(len(b), crc.HeaderSize)]
	h, err := crc.DecodeHeader(head)
	copied, copyErr := crc.DecodeCopy(head)
	var first []kv.Range // what is wrong with the header
	switch {
	case err != nil && copyErr != nil:
		return outlook{noStore: true}
	case err != nil || copyErr == nil && copied != h && sc.firstIntact(b, copied) < sc.firstIntact(b, h):
		h = copied
		first = []kv.Range{{Off: 0, Len: crc.ImmutableSize}}
	case copyErr == nil && copied != h:
		first = []kv.Range{{Off: crc.CopyOff, Len: crc.ImmutableSize}}
	}
	promised := crc.DecodeMark(head, &h).Off
	if promised == crc.HeaderSize && (copyErr != nil || copied != h) {
		// The mutable page is lost: whatever was written may have been synced.
		promised = min(int64(len(bytes.TrimRight(b, "\x00"))+crc.Align-1)&^(crc.Align-1), int64(len(b)))
		promised = max(promised, crc.HeaderSize+crc.Align)
	}
	records := sc.intact(b, h)

	// A plain Open shows the runs up to the first gap.
	end, at := int64(crc.HeaderSize), int64(crc.HeaderSize)
	whole := 0
	for i, r := range records {
		if r.Off != at {
			break
		}
		if at += r.Len; !r.More {
			end, whole = at, i+1
		}
	}
	if end < promised {
		promised = max(promised, at+crc.Align)
	}
	o.shown = stateOf(records[:whole])

	// Salvage shows all, but for a run at the end that never was complete.
	last := int64(crc.HeaderSize)
	gaps := []kv.Range(nil)
	for _, r := range records {
		if r.Off > last {
			gaps = append(gaps, kv.Range{Off: last, Len: r.Off - last})
		}
		last = r.Off + r.Len
	}
	if last < promised {
		gaps = append(gaps, kv.Range{Off: last, Len: promised - last})
	} else {
		for n := len(records); n > 0 && records[n-1].More && records[n-1].Off+records[n-1].Len == last; n-- {
			last = records[n-1].Off
			records = records[:n-1]
		}
	}
	o.salvage = stateOf(records)
	o.missing = slices.Concat(first, gaps)
	if first != nil {
		o.refused = first // the log is not looked at
	} else if end < promised {
		o.refused = gaps
	}
	return o
}

// intact returns the records of the file with header h that are unchanged in b.
func (sc *scene) intact(b []byte, h crc.Header) (records []kv.Record) {
	for _, v := range []*victim{sc.newest, sc.older, sc.other} {
		if v.header != h {
			continue
		}
		for _, r := range v.records {
			if end := r.Off + r.Len; end <= int64(len(b)) && bytes.Equal(b[r.Off:end], v.bytes[r.Off:end]) {
				records = append(records, r)
			}
		}
		break // the newest of a generation has what the older one has
	}
	return records
}

func (sc *scene) firstIntact(b []byte, h crc.Header) int64 {
	if records := sc.intact(b, h); len(records) > 0 {
		return records[0].Off
	}
	return int64(len(b))
}

func stateOf(records []kv.Record) map[string]string {
	state := map[string]string{}
	for _, r := range records {
		if r.Deleted {
			delete(state, string(r.Key))
		} else {
			state[string(r.Key)] = string(r.Value)
		}
	}
	return state
}

// openBounded opens the store at path. It may allocate so much, by its length and that
// of its checkpoint, and no more.
func openBounded(path string, opts kv.Options) (*kv.Store, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	size := fi.Size()
	if beside, err := os.Stat(path + indexSuffix); err == nil {
		size += beside.Size()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s, err := kv.Open(path, &opts)
	runtime.ReadMemStats(&after)
	bound := allocBound(size)
	if n := int64(after.TotalAlloc - before.TotalAlloc); n > bound {
		return s, fmt.Errorf("%w: to open %d bytes, %d were allocated (%v)", errGreedy, size, n, err)
	}
	if err == nil && s.Stats().IndexBytes > bound {
		return s, fmt.Errorf("%w: the index of %d bytes takes %d", errGreedy, size, s.Stats().IndexBytes)
	}
	return s, err
}

var errGreedy = errors.New("allocates too much")

// allocBound is what the opening of a file of so many bytes may allocate.
func allocBound(size int64) int64 { return 4*size + 4<<20 }

// check opens b, a file at path, in all ways, with the checkpoint beside it.
func (sc *scene) check(o *outlook, path string, b []byte, beside checkpoint) error {
	for _, opts := range []kv.Options{
		{ReadOnly: true}, {Salvage: true}, {Salvage: true, VerifyReads: true}, {ReadOnly: true, VerifyReads: true}, {Durability: kv.SyncManual},
	} {
		if err := beside.lay(path, b); err != nil {
			return err
		}
		if err := sc.checkOpen(o, path, b, beside, opts); err != nil {
			return fmt.Errorf("%+v: %w", opts, err)
		}
	}
	return nil
}

// resumed is what is to be seen of b where the index came from a checkpoint that covers
// the log up to end: all that was there, or damage.
type resumed struct {
	want    map[string]string
	corrupt map[string]bool // keys whose record has changed
	damaged bool            // some record before the end has changed
	harmed  bool            // so has the checkpoint: what cannot be made anew is damage too
}

func (sc *scene) resumed(b []byte, end int64) (r resumed, err error) {
	h, err := crc.DecodeHeader(b)
	if err != nil {
		return r, fmt.Errorf("opened by a checkpoint, without a header: %w", err)
	}
	r.corrupt = map[string]bool{}
	var records []kv.Record
	for _, v := range []*victim{sc.newest, sc.older, sc.other} {
		if v.header != h {
			continue
		}
		whole := 0
		for _, rec := range v.records {
			to := rec.Off + rec.Len
			intact := to <= int64(len(b)) && bytes.Equal(b[rec.Off:to], v.bytes[rec.Off:to])
			if to > end && !intact {
				break
			}
			r.damaged = r.damaged || !intact
			r.corrupt[string(rec.Key)] = !intact
			if records = append(records, rec); !rec.More {
				whole = len(records)
			}
		}
		r.want = stateOf(records[:whole])
		return r, nil
	}
	return r, errors.New("opened by a checkpoint, and nobody knows the log")
}

// check compares s, which was opened by a checkpoint, with r.
func (r *resumed) check(s *kv.Store) error {
	for key, value := range r.want {
		v, err := s.Get([]byte(key))
		if r.damaged && r.harmed && errors.Is(err, kv.ErrCorrupt) {
			continue
		}
		if r.corrupt[key] && !errors.Is(err, kv.ErrCorrupt) || !r.corrupt[key] && (err != nil || string(v) != value) {
			return fmt.Errorf("key %q, damaged: %v: %.20q (%d bytes), %v; want %.20q (%d bytes)", key, r.corrupt[key], v, len(v), err, value, len(value))
		}
	}
	mustMeet := false
	for key := range r.want {
		mustMeet = mustMeet || r.corrupt[key]
	}
	got, err := contents(s)
	met := errors.Is(err, kv.ErrCorrupt) && s.Stats().Corruptions > 0
	switch {
	case mustMeet && !met:
		return fmt.Errorf("iteration by damage: %v; damage met: %d", err, s.Stats().Corruptions)
	case r.damaged && met: // it may come by a dead record that is damaged
	case err != nil || differs(got, r.want) != "":
		return fmt.Errorf("iteration: %s, %w", differs(got, r.want), err)
	}
	return nil
}

func (sc *scene) checkOpen(o *outlook, path string, b []byte, beside checkpoint, opts kv.Options) error {
	s, err := openBounded(path, opts)
	if s != nil {
		defer s.Close()
	}
	if errors.Is(err, errGreedy) {
		return err
	}
	refused, want := o.refused, o.shown
	if s != nil && s.Stats().Checkpoint > 0 {
		sc.resumes++
		if opts.Salvage || beside.mark == "untrue" && !beside.harmed {
			return errors.New("opened by a checkpoint, though somebody has written to the log")
		}
		r, err := sc.resumed(b, s.Stats().Checkpoint)
		r.harmed = beside.harmed
		if err == nil {
			err = r.check(s)
		}
		if err != nil {
			return fmt.Errorf("by a checkpoint: %w", err)
		}
		if r.damaged {
			return r.checkKnown(s, path, b, opts)
		}
		refused, want = nil, r.want
	}
	if opts.Salvage {
		refused, want = nil, o.salvage
	}
	var corrupt *kv.CorruptError
	switch {
	case o.noStore:
		if !errors.Is(err, kv.ErrCorrupt) && !errors.Is(err, kv.ErrFormat) && !errors.Is(err, kv.ErrVersion) {
			return fmt.Errorf("without a header: %v", err)
		}
	case refused != nil:
		if !errors.As(err, &corrupt) || !slices.Equal(corrupt.Ranges, refused) {
			return fmt.Errorf("open: %v; to be refused for %v", err, refused)
		}
	case err != nil:
		return fmt.Errorf("open: %w", err)
	default:
		if d, err := compare(s, want); d != "" || err != nil {
			return fmt.Errorf("contents: %s %w", d, err)
		}
	}
	if opts.Salvage && s != nil {
		if m := s.Stats().Missing; !slices.Equal(m, o.missing) {
			return fmt.Errorf("missing are %v, want %v", m, o.missing)
		}
	}
	return useOpened(s, path, b, opts, want)
}

// checkKnown checks that s, which was opened by a checkpoint of a damaged log, goes on with
// all else, and that, if it has met the damage, nobody opens it again as if nothing were.
func (r *resumed) checkKnown(s *kv.Store, path string, b []byte, opts kv.Options) error {
	if opts.ReadOnly {
		return useOpened(s, path, b, opts, nil)
	}
	if err := s.Put([]byte("new"), []byte("value")); err == nil {
		if v, err := s.Get([]byte("new")); err != nil || string(v) != "value" {
			return fmt.Errorf("put beside damage, and got %q, %w", v, err)
		}
	} else if !r.harmed || !errors.Is(err, kv.ErrCorrupt) || s.Stats().Poisoned != nil {
		return fmt.Errorf("put beside damage: %w", err)
	}
	met := s.Stats().Corruptions > 0
	if err := s.Close(); err != nil {
		return err
	}
	again, err := kv.Open(path, &kv.Options{ReadOnly: true})
	if err == nil {
		again.Close()
	}
	if err != nil && !errors.Is(err, kv.ErrCorrupt) {
		return fmt.Errorf("opened again: %w", err)
	}
	if met && err == nil {
		return fmt.Errorf("with damage that was met, it opens again: %v", err)
	}
	return nil
}

// useOpened sees that who reads changes nothing, and that who writes can.
func useOpened(s *kv.Store, path string, b []byte, opts kv.Options, want map[string]string) error {
	if opts.ReadOnly || opts.Salvage || s == nil {
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, b) {
			return fmt.Errorf("the file has changed (%v)", err)
		}
		return nil
	}
	// What was mended stays, and can be written on.
	want = maps.Clone(want)
	want["new"] = "value"
	if err := errors.Join(sound(s), s.Put([]byte("new"), []byte("value")), sound(s), s.Close()); err != nil {
		return err
	}
	again, err := kv.Open(path, &kv.Options{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("opened again: %w", err)
	}
	defer again.Close()
	if d, err := compare(again, want); d != "" || err != nil {
		return fmt.Errorf("contents of the second opening: %s %w", d, err)
	}
	return sound(again)
}

func init() {
	roles["accidents"] = func(args []string) int {
		seed, _ := strconv.ParseInt(args[1], 10, 64)
		n, _ := strconv.Atoi(args[2])
		return report(haveAccidents(args[0], seed, n))
	}
}

// haveAccidents lets n accidents happen to the stores of a seed. The image of the
// one that it is at lies in dir, for whoever outlives it.
func haveAccidents(dir string, seed int64, n int) error {
	sc, err := newScene(dir, seed)
	if err != nil {
		return err
	}
	for i := range n {
		b, beside, what := sc.draw()
		o := sc.outlook(b)
		how := "opens"
		switch {
		case o.noStore:
			how = "no store"
		case o.refused != nil:
			how = "refused"
		}
		fmt.Printf("accident %d of seed %d: %s: %s\n", i, seed, how, what)
		path := filepath.Join(dir, "damaged")
		if err := beside.lay(filepath.Join(dir, "image"), b); err != nil {
			return err
		}
		if err := sc.check(&o, path, b, beside); err != nil {
			return err
		}
	}
	fmt.Printf("by a checkpoint: opened: %d\n", sc.resumes)
	return nil
}

// Goal: whatever happens to a file of some megabytes, no wrong value is ever shown:
// Open shows exactly what is whole, or refuses and names every damaged byte below
// the durable mark; Salvage shows every record that is where it was and names the
// rest; nobody changes the file; and what that costs is bounded by its length.
// Method: a child draws the stores and their accidents from a seed; a model that
// knows where the records were says what is to be seen. Beside the file lies, as a
// rule, a checkpoint, which may be damaged too; where it says that nobody has written to
// the file since Close, or says nothing, damage below it may be met by a read: then that
// is ErrCorrupt, all else is right, and who opens it next is told. A child that dies or hangs
// is a failure too.
func TestAccidents(t *testing.T) {
	accidents := *accidentsFlag
	if raceDetector && *seedFlag == 0 {
		accidents = (accidents + 1) / 2
	}
	first := seeds(1)[0]
	counts, resumes := map[string]int{}, 0
	for done := 0; done < accidents; done += accidentsPerSeed {
		seed := first + int64(done/accidentsPerSeed)
		dir := t.TempDir()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		cmd := child("accidents", dir, strconv.FormatInt(seed, 10), strconv.Itoa(min(accidentsPerSeed, accidents-done)))
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		must(t, cmd.Start())
		stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
		err := cmd.Wait()
		stop()
		cancel()
		if err != nil {
			text := out.Bytes()
			t.Fatalf("%v; replay with -run TestAccidents -seed %d -accidents %d; the image is kept at %s\n%s",
				err, seed, accidentsPerSeed, keep(t, filepath.Join(dir, "image")), text[max(0, len(text)-4000):])
		}
		for line := range strings.Lines(out.String()) {
			part := strings.Split(strings.TrimSpace(line), ": ")
			if part[0] == "by a checkpoint" {
				n, _ := strconv.Atoi(part[2])
				resumes += n
			} else if len(part) > 1 {
				counts[part[1]]++
			}
		}
		must(t, os.RemoveAll(dir))
	}
	t.Logf("%d accidents: %v; opened %d times by a checkpoint", accidents, counts, resumes)
	if resumes == 0 && *seedFlag == 0 {
		t.Error("no file was opened by a checkpoint")
	}
}
