package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/kv"
)

// Goal: whatever the words of the header say by which Shared handles go, nothing of the log is
// lost, nothing hangs, and what cannot be is ErrCorrupt. Method: two handles and a follower are
// open, and others come; each value is written over the word, beneath all of them; each then
// works, or says why not, and does again when the word is what it was.
func TestHostileSharedWords(t *testing.T) {
	path := storePath(t)
	opts := &kv.Options{Shared: true, CompactAt: -1, LockTimeout: 5 * time.Second}
	handles := []*kv.Store{open(t, path, opts), open(t, path, opts)}
	follower := open(t, path, &kv.Options{ReadOnly: true})
	want := map[string]string{}
	put := func(s *kv.Store) error {
		k := fmt.Sprint(len(want))
		err := s.Put([]byte(k), valueOf(100, len(want)))
		if err == nil {
			want[k] = string(valueOf(100, len(want)))
		}
		return err
	}
	for range 20 {
		must(t, put(handles[0]))
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	values := func() []uint64 {
		st := handles[0].Stats()
		tail, size := uint64(st.Tail), uint64(st.FileBytes)
		return []uint64{
			0, 1, crc.HeaderSize - 1, crc.HeaderSize, tail - 8, tail + 1, tail + 8, size - 1, size, size + 1, size + 1<<30,
			uint64(crc.MaxOff), 1 << 62, math.MaxInt64, 1 << 63, crc.Superseded | tail, math.MaxUint64 - 7, math.MaxUint64,
		}
	}
	for _, word := range []struct {
		name    string
		off     int64
		size    int  // bytes
		refuses bool // a value that cannot be is ErrCorrupt, at most; else it is nobody's concern
	}{
		{"written", crc.WrittenOff, 8, false},
		{"turn", crc.TurnOff, 4, false},
		{"holder", crc.HolderOff, 8, false},
		{"tail", crc.TailOff, 8, true},
	} {
		for i := range values() {
			v := values()[i]
			at := fmt.Sprintf("%s %#x", word.name, v)
			before := make([]byte, word.size)
			_, err := f.ReadAt(before, word.off)
			must(t, err)
			_, err = f.WriteAt(binary.LittleEndian.AppendUint64(nil, v)[:word.size], word.off)
			must(t, err)
			used := func(err error) {
				t.Helper()
				if err != nil && !(word.refuses && errors.Is(err, kv.ErrCorrupt)) {
					t.Fatalf("%s: %v", at, err)
				}
			}
			if word.refuses {
				_, err := handles[1].Get([]byte("0"))
				used(err)
			}
			had := len(want)
			for _, s := range handles {
				used(put(s))
			}
			_, err = follower.Get([]byte("0"))
			used(err)
			for _, opts := range []*kv.Options{opts, {ReadOnly: true}} {
				if word.refuses && opts.Shared {
					continue // who has seen no other tail takes it for that of the log
				}
				s, err := kv.Open(path, opts)
				used(err)
				if err == nil {
					must(t, s.Close())
				}
			}
			if word.refuses && len(want) == had { // else it has been put right
				_, err = f.WriteAt(before, word.off)
				must(t, err)
			}
			for _, s := range append(handles, follower) {
				wantContents(t, s, want)
			}
		}
	}
	for _, s := range handles {
		must(t, put(s))
		closeSound(t, s)
	}
	s := open(t, path, nil)
	wantContents(t, s, want)
	closeSound(t, s)
}
