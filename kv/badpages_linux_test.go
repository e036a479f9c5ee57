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
}

func (d badPages) Open(path string, mode mmapfile.Mode) (file, error) {
	f, err := d.osDisk.Open(path, mode)
	if err != nil {
		return f, err
	}
	b := f.Mapping().Bytes()
	for _, page := range d.pages {
		whole := b[page:min(page+int64(os.Getpagesize()), int64(len(b)))]
		if err := syscall.Mprotect(whole, syscall.PROT_NONE); err != nil {
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
