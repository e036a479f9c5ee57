//go:build linux || darwin || freebsd

package mmapfile

import (
	"errors"
	"reflect"
	"testing"
)

// store stores to one byte and tells the fault, if there is one.
func store(f *File, m *Mapping, off int64) (err error) {
	guard := EnterGuard()
	defer guard.Exit(f, &err)
	m.Bytes()[off]++
	return nil
}

// writable tells for each page of the current mapping whether it takes a store.
func writable(t *testing.T, f *File) string {
	t.Helper()
	m := f.Mapping()
	pages := ""
	for off := int64(0); off < int64(len(m.Bytes())); off += pageSize {
		err := store(f, m, off)
		var fault *FaultError
		switch {
		case err == nil:
			pages += "w"
		case errors.As(err, &fault) && fault.Off == off:
			pages += "-"
		default:
			t.Fatalf("store at %d: %v", off, err)
		}
	}
	return pages
}

// Goal: exactly the whole pages inside of the range are protected; it survives
// growth and outgrowing, and ends with truncation. Method: tables of steps, and a
// store into every page.
func TestProtect(t *testing.T) {
	p := pageSize
	for _, c := range []struct {
		name string
		do   func(f *File) error
		want string
	}{
		{"nothing", func(f *File) error { return f.Protect(0, 0) }, "wwwwwwww"},
		{"whole pages", func(f *File) error { return f.Protect(p, 2*p) }, "w--wwwww"},
		{"rounded inwards", func(f *File) error { return f.Protect(1, 3*p) }, "w--wwwww"},
		{"less than a page", func(f *File) error { return f.Protect(1, 2*p-2) }, "wwwwwwww"},
		{"in steps", func(f *File) error {
			return errors.Join(f.Protect(p, p), f.Protect(p, 3*p), f.Protect(4*p, p))
		}, "w----www"},
		{"apart", func(f *File) error {
			return errors.Join(f.Protect(6*p, p), f.Protect(p, p))
		}, "w-wwww-w"},
		{"grown", func(f *File) error {
			return errors.Join(f.Protect(0, 2*p), f.Grow(10*p))
		}, "--wwwwwwww"},
		{"outgrown", func(f *File) error {
			return errors.Join(f.Protect(0, 2*p), f.Protect(4*p, p), f.Grow(18*p))
		}, "--ww-wwwwwwwwwwwww"},
		{"truncated into it and grown", func(f *File) error {
			return errors.Join(f.Protect(0, 6*p), f.Truncate(2*p+1), f.Grow(8*p))
		}, "--wwwwww"},
		{"truncated to its page", func(f *File) error {
			return errors.Join(f.Protect(0, 6*p), f.Truncate(2*p), f.Grow(4*p))
		}, "--ww"},
		{"truncated behind it", func(f *File) error {
			return errors.Join(f.Protect(0, 2*p), f.Truncate(3*p))
		}, "--w"},
		{"truncated into it, then outgrown", func(f *File) error {
			return errors.Join(f.Protect(0, 6*p), f.Truncate(2*p+1), f.Grow(17*p))
		}, "--wwwwwwwwwwwwwww"},
	} {
		t.Run(c.name, func(t *testing.T) {
			reserving(t, 16, 64)
			f, _ := newTestFile(t, 8)
			must(t, c.do(f))
			if got := writable(t, f); got != c.want {
				t.Fatalf("pages %s, want %s", got, c.want)
			}
			// pwrite is not the program's stray store.
			if _, err := f.WriteAt([]byte("x"), 0); err != nil || f.Mapping().Bytes()[0] != 'x' {
				t.Fatalf("WriteAt: %v", err)
			}
		})
	}
}

// Goal: the set of sealed intervals. Method: a table of what is added and cut.
func TestSealedIntervals(t *testing.T) {
	for _, c := range []struct {
		name string
		add  []interval
		want []interval
	}{
		{"one", []interval{{1, 2}}, []interval{{1, 2}}},
		{"apart", []interval{{1, 2}, {5, 6}, {3, 4}}, []interval{{1, 2}, {3, 4}, {5, 6}}},
		{"touching", []interval{{1, 2}, {3, 4}, {2, 3}}, []interval{{1, 4}}},
		{"same", []interval{{1, 4}, {1, 4}}, []interval{{1, 4}}},
		{"over several", []interval{{1, 2}, {3, 4}, {8, 9}, {2, 7}}, []interval{{1, 7}, {8, 9}}},
		{"inside", []interval{{1, 9}, {3, 4}}, []interval{{1, 9}}},
	} {
		f := &File{}
		for _, s := range c.add {
			f.seal(s)
		}
		if !reflect.DeepEqual(f.sealed, c.want) {
			t.Errorf("%s: %v, want %v", c.name, f.sealed, c.want)
		}
	}
	for _, c := range []struct {
		off  int64
		was  bool
		want []interval
	}{
		{0, false, nil}, {1, true, nil}, {2, true, []interval{{1, 2}}}, {3, false, []interval{{1, 3}}},
		{5, true, []interval{{1, 3}}}, {6, false, []interval{{1, 3}, {5, 6}}}, {9, false, []interval{{1, 3}, {5, 6}}},
	} {
		f := &File{sealed: []interval{{1, 3}, {5, 6}}}
		if was := f.unseal(c.off); was != c.was || !reflect.DeepEqual(f.sealed, c.want) {
			t.Errorf("cut at %d: %v %v, want %v %v", c.off, was, f.sealed, c.was, c.want)
		}
	}
}

// Goal: populating changes no byte, takes what cannot be had, and does not unseal.
// Method: both ways of it, over good, sealed and lost pages.
func TestPopulate(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(f *File)
	}{
		{"Populate", func(f *File) { f.Populate(1, f.Size()) }},
		{"touch", func(f *File) { f.touch(f.Mapping().pages(0, f.Size())) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, path := newTestFile(t, 9)
			truncate(t, path, 8)
			fill(f.Mapping().Bytes()[:8*pageSize], 0)
			c.do(f) // the last page is lost
			must(t, f.Truncate(8*pageSize))
			checkFilled(t, f.Mapping().Bytes(), 8)
			must(t, f.Protect(pageSize, pageSize))
			if c.name == "touch" && raceDetector {
				return // see Guard
			}
			c.do(f)
			checkFilled(t, f.Mapping().Bytes(), 8)
			if got := writable(t, f); got != "w-wwwwww" {
				t.Fatalf("pages %s", got)
			}
		})
	}
}
