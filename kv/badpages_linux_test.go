package kv

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// badPages is a disk of which some pages of each file cannot be read.
type badPages struct {
	osDisk
	pages []int64 // offsets
	prot  int     // what can be done with them: nothing if it is 0
}

func (d badPages) Open(path string, mode mmapfile.Mode) (file, error) {
	f, err := d.osDisk.Open(path, mode)
	if err != nil {
		return f, err
	}
	b := f.Mapping().Bytes()
	for _, page := range d.pages {
		whole := b[page:min(page+int64(os.Getpagesize()), int64(len(b)))]
		if err := syscall.Mprotect(whole, d.prot); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, nil
}

// Goal: a page that cannot be read is a damaged range for a salvage, which gets
// back every record that does not touch it, be it durable or not; any other Open
// refuses, above all to cut off what it cannot read, and the file stays as it is.
// Method: each page of the log in turn made unreadable in the mapping, pairs of them,
// and all from one on; with durable marks and without.
func TestSalvageBadPages(t *testing.T) {
	size := int64(os.Getpagesize())
	for _, marked := range []bool{true, false} {
		path := filepath.Join(t.TempDir(), "store")
		records, b := closedFile(t, path, 60, rand.New(rand.NewPCG(1, 2)))
		if !marked {
			for i := range uint64(2) {
				clear(b[crc.MarkOff(i):][:crc.MarkSize])
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var all []int64
		for page := (crc.HeaderSize + size - 1) / size * size; page < int64(len(b)); page += size {
			all = append(all, page)
		}
		if len(all) < 10 {
			t.Fatalf("%d pages only", len(all))
		}
		for i, page := range all {
			for _, pages := range [][]int64{{page}, {page, all[(i*7+3)%len(all)]}, all[i:]} {
				salvageBadPages(t, path, records, pages)
				after, err := os.ReadFile(path)
				if err != nil || !bytes.Equal(after, b) {
					t.Errorf("the file has changed, %v", err)
				}
				if t.Failed() {
					t.Fatalf("marked %v, pages %v", marked, pages)
				}
			}
		}
	}
}

func salvageBadPages(t *testing.T, path string, records []Record, pages []int64) {
	d := badPages{pages: pages}
	for _, opts := range []*Options{nil, {ReadOnly: true}} {
		if s, err := openOn(d, path, opts); err == nil {
			s.Close()
			t.Error("opened")
		} else if !errors.Is(err, ErrFault) {
			t.Error(err)
		}
	}
	s, err := openOn(d, path, &Options{Salvage: true})
	if err != nil {
		t.Error(err)
		return
	}
	defer s.Close()
	mustSalvage(t, s, records, func(r *Record) bool {
		return slices.ContainsFunc(pages, func(page int64) bool { return page < r.Off+r.Len && r.Off < page+int64(os.Getpagesize()) })
	})
	for _, err := range s.Suspects(t.Context()) {
		if err != nil {
			t.Error(err)
		}
	}
}

// Goal: neither page of the header is needed to salvage a store. Method: each in turn
// made unreadable, and with it, or without it, the last page of the file; all records
// that are left are shown, and nobody else opens it.
func TestSalvageBadHeader(t *testing.T) {
	if os.Getpagesize() != crc.Page {
		t.Skip("SKIPPED: here both lie in one page")
	}
	path := filepath.Join(t.TempDir(), "store")
	records, b := closedFile(t, path, 30, rand.New(rand.NewPCG(1, 2)))
	last := int64(len(b)-1) &^ (crc.Page - 1)
	for _, pages := range [][]int64{{0}, {crc.Page}, {0, last}, {crc.Page, last}} {
		d := badPages{pages: pages}
		for _, opts := range []*Options{nil, {ReadOnly: true}} {
			if s, err := openOn(d, path, opts); !errors.Is(err, ErrFault) {
				t.Fatalf("pages %v: opened %v, %v", pages, s, err)
			}
		}
		s, err := openOn(d, path, &Options{Salvage: true})
		if err != nil {
			t.Fatalf("pages %v: %v", pages, err)
		}
		want := make(map[string]string)
		for _, r := range records {
			switch {
			case len(pages) > 1 && r.Off+r.Len > last:
			case r.Deleted:
				delete(want, string(r.Key))
			default:
				want[string(r.Key)] = string(r.Value)
			}
		}
		for key, value := range want {
			if got, err := s.Get([]byte(key)); err != nil || string(got) != value {
				t.Errorf("pages %v: %q: %d bytes, %v", pages, key, len(got), err)
			}
		}
		missing := s.Stats().Missing
		if s.Len() != len(want) || len(missing) != len(pages) || missing[0].Off != pages[0] {
			t.Errorf("pages %v: %d keys, want %d; missing %v", pages, s.Len(), len(want), missing)
		}
		for _, err := range s.Suspects(t.Context()) {
			if err != nil {
				t.Error(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Goal: with SyncAligned recovery stores into no page that has durable records, as far
// as it can know. Method: a page with a durable record and one without, of a writer that
// died, opened with the first made read-only in the mapping: in the same boot, and as
// after a start of the machine, where the mark may be an older one.
func TestRecoveryLeavesSealedPages(t *testing.T) {
	if os.Getpagesize() != crc.Page {
		t.Skip("SKIPPED: here the header lies in the same page")
	}
	dir := t.TempDir()
	opts := &Options{SyncAligned: true, Durability: SyncManual}
	s := openTestAt(t, filepath.Join(dir, "store"), opts)
	for _, key := range []string{"first", "second"} {
		if err := s.PutDurable([]byte(key), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Put([]byte("third"), nil); err != nil {
		t.Fatal(err)
	}
	dead, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, rebooted := range []bool{false, true} {
		b := bytes.Clone(dead)
		if rebooted {
			clear(b[crc.BootOff : crc.BootOff+8])
			clear(b[crc.MarkOff(s.gen.Load().marks.Load()+1):][:crc.MarkSize]) // the newest
		}
		path := filepath.Join(t.TempDir(), "store")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		d := badPages{pages: []int64{crc.HeaderSize, crc.HeaderSize + crc.Page}, prot: syscall.PROT_READ}
		r, err := openOn(d, path, opts)
		if err != nil {
			t.Fatalf("rebooted %v: %v", rebooted, err)
		}
		if r.Len() != 3 {
			t.Errorf("rebooted %v: %d keys", rebooted, r.Len())
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Goal: a page that cannot be read is met by the entering of notes as by any other read: what
// needs it has an error, all else goes on, and the notes are still there when it can be read.
// Method: the page of a record behind the checkpoint, and that of one which such a record
// replaces, made unreadable in an open store that has loaded nothing; everything is read, by
// single reads and by the pass in the background, before and after it can be read again.
func TestNotesBadPages(t *testing.T) {
	a, k, into, _ := oneNoted(t, 30_000)
	for _, replaced := range []bool{false, true} {
		s := k.open(t, k.copyTo(t, nil), false)
		g := s.gen.Load()
		off := g.index.saved.notes[into][10].off
		if replaced {
			was := a.open(t, a.copyTo(t, nil), true)
			key, _ := g.log.key(off)
			off = was.gen.Load().find(was.gen.Load().index.hash.sum(key), key)
		}
		size := int64(os.Getpagesize())
		page := g.bytes()[off&^(size-1):]
		page = page[:min(size, int64(len(page)))]
		if err := syscall.Mprotect(page, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
		s.loadRest(t.Context(), g)
		failed := 0
		for key, value := range k.want {
			v, err := s.Get([]byte(key))
			switch bad := errors.Is(err, ErrCorrupt) || errors.Is(err, ErrFault); {
			case bad:
				failed++
			case err != nil || string(v) != value:
				t.Fatalf("%q is %q, %v, want %q", key, v, err, value)
			}
			if k.segmentOf(key) == into && !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%q of the segment is %q, %v", key, v, err)
			}
		}
		if n, of := loaded(s); n != of-1 || failed > 2*len(k.want)/of {
			t.Errorf("%d segments of %d are loaded, %d keys of %d fail", n, of, failed, len(k.want))
		}
		if err := syscall.Mprotect(page, syscall.PROT_READ|syscall.PROT_WRITE); err != nil {
			t.Fatal(err)
		}
		k.want.must(t, s)
	}
}
