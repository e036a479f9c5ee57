package tests

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/kv"
)

// damages are accidents that befall a part of a file. Each changes bytes of b at or
// beyond from and says what it did.
var damages = []func(r *rand.Rand, b []byte, from int) string{
	func(r *rand.Rand, b []byte, from int) string {
		at, bit := from+r.IntN(len(b)-from), r.IntN(8)
		b[at] ^= 1 << bit
		return fmt.Sprintf("bit %d of byte %d flipped", bit, at)
	},
	func(r *rand.Rand, b []byte, from int) string {
		unit := []int{8, 512, 4096}[r.IntN(3)]
		at := max(from, r.IntN(len(b))/unit*unit)
		n := min(unit, len(b)-at)
		clear(b[at : at+n])
		return fmt.Sprintf("%d bytes at %d zeroed", n, at)
	},
	func(r *rand.Rand, b []byte, from int) string {
		unit := []int{8, 512, 4096}[r.IntN(3)]
		at := max(from, r.IntN(len(b))/unit*unit)
		n := min(unit, len(b)-at)
		copy(b[at:at+n], valueOf(n, r.IntN(1000)))
		return fmt.Sprintf("%d bytes at %d overwritten", n, at)
	},
	func(r *rand.Rand, b []byte, from int) string {
		unit := []int{8, 512, 4096}[r.IntN(3)]
		to := max(from, r.IntN(len(b))/unit*unit)
		at := max(from, r.IntN(len(b))/unit*unit)
		n := min(unit, len(b)-at, len(b)-to)
		copy(b[to:to+n], bytes.Clone(b[at:at+n]))
		return fmt.Sprintf("%d bytes at %d repeated at %d", n, at, to)
	},
	func(r *rand.Rand, b []byte, from int) string {
		at := from + r.IntN(len(b)-from)
		clear(b[at:])
		return fmt.Sprintf("zeroed from %d on", at)
	},
}

// randomFile is a store of random records that was closed, with at most n writes.
func randomFile(t *testing.T, r *rand.Rand, n int) *closedStore {
	t.Helper()
	path := storePath(t)
	s := open(t, path, &kv.Options{CompactAt: -1, Durability: kv.SyncManual})
	key := func() []byte { return fmt.Append(nil, "key", r.IntN(n)) }
	value := func() []byte { return valueOf([]int{0, 10, 100, 1000, 9000}[r.IntN(5)], r.IntN(1000)) }
	for range 1 + r.IntN(n) {
		var err error
		switch r.IntN(6) {
		case 0:
			err = s.Delete(key())
		case 1:
			err = s.Update(func(tx *kv.Tx) (err error) {
				for range r.IntN(5) {
					err = errors.Join(err, tx.Put(key(), value()))
				}
				return errors.Join(err, tx.Delete(key()))
			})
		default:
			err = s.Put(key(), value())
		}
		must(t, err)
	}
	must(t, s.Put([]byte("last"), nil))
	c := &closedStore{}
	for rec, err := range s.Records(t.Context()) {
		must(t, err)
		rec.Key, rec.Value = bytes.Clone(rec.Key), bytes.Clone(rec.Value)
		c.records = append(c.records, rec)
	}
	closeSound(t, s)
	var err error
	c.bytes, err = os.ReadFile(path)
	must(t, err)
	return c
}

// Goal: whatever is damaged, any other Open refuses it or shows all of it, and
// salvage gets back exactly the records of which no byte has changed, says of the
// others that they are missing, and leaves the file as it is.
// Method: random stores, each with several accidents at random; the records from
// before tell what is to be found. -scale turns the count up, -seed replays one.
func TestSalvageRandom(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	images := 0
	path := storePath(t)
	for _, seed := range seeds(rounds) {
		r := rand.New(rand.NewPCG(uint64(seed), 17))
		c := randomFile(t, r, 120)
		for range 20 {
			b := bytes.Clone(c.bytes)
			var done []string
			for range 1 + r.IntN(4) {
				done = append(done, damages[r.IntN(len(damages))](r, b, crc.HeaderSize))
			}
			images++
			if err := salvageOne(t, c, b, path); err != nil {
				t.Fatalf("seed %d: %v\ndamage: %q\nimage: %s", seed, err, done, keep(t, path))
			}
		}
	}
	t.Logf("%d images", images)
}

// salvageOne returns what is wrong with the salvage of b, at path, which was c before
// its records were damaged.
func salvageOne(t *testing.T, c *closedStore, b []byte, path string) error {
	must(t, os.WriteFile(path, b, 0o600))
	damaged := func(r *kv.Record) bool { return !bytes.Equal(b[r.Off:r.Off+r.Len], c.bytes[r.Off:r.Off+r.Len]) }
	any := false
	for i := range c.records {
		any = any || damaged(&c.records[i])
	}
	if s, err := kv.Open(path, &kv.Options{ReadOnly: true}); err == nil {
		s.Close()
		if any {
			return errors.New("opened")
		}
	} else if !any || !errors.Is(err, kv.ErrCorrupt) {
		return fmt.Errorf("damage %v: %w", any, err)
	}
	s, err := kv.Open(path, &kv.Options{Salvage: true})
	if err != nil {
		return err
	}
	defer s.Close()
	want := map[string]string{}
	missing := s.Stats().Missing
	for i := range c.records {
		r := &c.records[i]
		if damaged(r) != covers(missing, r.Off) || damaged(r) != covers(missing, r.Off+r.Len-1) {
			return fmt.Errorf("the record at %d of %d bytes: damaged %v, missing %v", r.Off, r.Len, damaged(r), missing)
		}
		switch {
		case damaged(r):
		case r.Deleted:
			delete(want, string(r.Key))
		default:
			want[string(r.Key)] = string(r.Value)
		}
	}
	if d, err := compare(s, want); d != "" || err != nil {
		return fmt.Errorf("other contents: %s %w", d, err)
	}
	for f, err := range s.Suspects(t.Context()) {
		if err != nil || !covers(missing, f.Off) {
			return fmt.Errorf("suspect at %d, %w; missing %v", f.Off, err, missing)
		}
	}
	after, err := os.ReadFile(path)
	if err == nil && !bytes.Equal(after, b) {
		err = errors.New("the file has changed")
	}
	return err
}
