package kv

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/mmapkv/mmapkv/mmapfile"
)

const (
	sectorSize = 512  // bytes: what a device writes whole
	pageSize   = 4096 // bytes: what a sync writes at least
)

// powerDisk is a disk in one directory that knows what a power cut would leave.
// Files are real and really mapped; but nothing is ever synced to the device
// below: what is durable is what powerDisk has noted.
//
// It is for one goroutine. call runs around each call that changes or syncs
// something, and may look at the disk as it is then.
type powerDisk struct {
	dir     string
	names   map[string]*inode // durable
	pending []nameOp          // since the last SyncDir, in order
	current map[string]*inode
	call    func(what string) // nil: nobody looks
	inodes  []*inode
	ids     int  // given so far
	spoils  bool // a cut may destroy the sectors of the pages that were written to
}

// nameOp is a change of the directory: name is node from then on, or, with a nil
// node, is no more; and gone, if there is one, is no more either.
type nameOp struct {
	name string
	node *inode
	gone string
}

func (op nameOp) apply(names map[string]*inode) {
	delete(names, op.gone)
	if op.node == nil {
		delete(names, op.name)
	} else {
		names[op.name] = op.node
	}
}

// inode is a file, whatever its names.
type inode struct {
	id      int      // ascends in the order of creation
	now     *os.File // shows what the mapping holds; nil: frozen does
	frozen  []byte
	durable []byte // its length is the durable length
	synced  bool   // as a whole, once at least
}

// content returns the file as the page cache has it.
func (n *inode) content() []byte {
	if n.now == nil {
		return n.frozen
	}
	st, err := n.now.Stat()
	if err != nil {
		panic(err)
	}
	b := make([]byte, st.Size())
	n.read(b, 0)
	return b
}

func (n *inode) read(b []byte, off int64) {
	if _, err := n.now.ReadAt(b, off); err != nil {
		panic(err)
	}
}

// syncRange makes the pages of [off, off+size) durable as they are, and with
// them the file's length, if it must be for that.
func (n *inode) syncRange(off, size int64, length bool) {
	st, err := n.now.Stat()
	if err != nil {
		panic(err)
	}
	if length && off+size > int64(len(n.durable)) {
		n.durable = slices.Grow(n.durable, int(st.Size())-len(n.durable))
		for int64(len(n.durable)) < st.Size() {
			n.durable = append(n.durable, 0)
		}
	}
	start := off &^ (pageSize - 1)
	end := min((off+size+pageSize-1)&^(pageSize-1), st.Size(), int64(len(n.durable)))
	if start < end {
		n.read(n.durable[start:end], start)
	}
}

// newPowerDisk is a disk on an empty directory that has files, all of them
// durable.
func newPowerDisk(dir string, files image) (*powerDisk, error) {
	d := &powerDisk{dir: dir, names: make(map[string]*inode), current: make(map[string]*inode)}
	if err := files.write(dir); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		n, err := d.adopt(name)
		if err != nil {
			return nil, err
		}
		n.durable, n.synced = slices.Clone(files[name]), true
		d.names[name] = n
	}
	return d, nil
}

// adopt makes an inode for the file that has appeared under name.
func (d *powerDisk) adopt(name string) (*inode, error) {
	f, err := os.Open(filepath.Join(d.dir, name))
	if err != nil {
		return nil, err
	}
	d.ids++
	n := &inode{id: d.ids, now: f}
	d.current[name] = n
	d.inodes = append(d.inodes, n)
	return n, nil
}

// clone copies the disk to another, empty directory: what is left when all who
// have files open die now. What was not synced is there, and still not synced.
func (d *powerDisk) clone(dir string) (*powerDisk, error) {
	c := &powerDisk{dir: dir, names: make(map[string]*inode), current: make(map[string]*inode), spoils: d.spoils}
	twins := make(map[*inode]*inode)
	for _, name := range slices.Sorted(maps.Keys(d.current)) {
		n := d.current[name]
		if t := twins[n]; t != nil {
			if err := os.Link(filepath.Join(dir, c.nameOf(t)), filepath.Join(dir, name)); err != nil {
				return nil, err
			}
			c.current[name] = t
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), n.content(), 0o600); err != nil {
			return nil, err
		}
		t, err := c.adopt(name)
		if err != nil {
			return nil, err
		}
		t.id, t.durable, t.synced = n.id, slices.Clone(n.durable), n.synced
		twins[n] = t
	}
	c.ids = d.ids
	twin := func(n *inode) *inode {
		if n != nil && twins[n] == nil { // it has only a name that may come back
			twins[n] = &inode{id: n.id, frozen: n.content(), durable: n.durable, synced: n.synced}
		}
		return twins[n]
	}
	for name, n := range d.names {
		c.names[name] = twin(n)
	}
	for _, op := range d.pending {
		c.pending = append(c.pending, nameOp{op.name, twin(op.node), op.gone})
	}
	return c, nil
}

func (d *powerDisk) nameOf(n *inode) string {
	for name, m := range d.current {
		if m == n {
			return name
		}
	}
	return ""
}

// close lets go of what the disk itself has open.
func (d *powerDisk) close() {
	for _, n := range d.inodes {
		n.now.Close()
	}
}

// around runs do between two calls of d.call.
func (d *powerDisk) around(what string, do func() error) error {
	if d.call != nil {
		d.call("before " + what)
		defer d.call("after " + what)
	}
	return do()
}

// shortName is a name without what is random in it.
func shortName(name string) string {
	if before, _, ok := strings.Cut(name, newSuffix); ok {
		return before + newSuffix
	}
	return name
}

// byCreation returns the names in the order of their files' creation.
func byCreation(names map[string]*inode) []string {
	return slices.SortedFunc(maps.Keys(names), func(a, b string) int {
		return cmp.Or(cmp.Compare(names[a].id, names[b].id), strings.Compare(a, b))
	})
}

func (d *powerDisk) note(op nameOp) {
	op.apply(d.current)
	d.pending = append(d.pending, op)
}

func (d *powerDisk) Open(path string, mode mmapfile.Mode) (file, error) {
	f, err := osDisk{}.Open(path, mode)
	if err != nil {
		return f, err
	}
	return &powerFile{file: f, disk: d, node: d.current[filepath.Base(path)]}, nil
}

func (d *powerDisk) Create(path string, perm fs.FileMode, size int64) (f file, err error) {
	name := filepath.Base(path)
	err = d.around("Create "+shortName(name), func() error {
		real, err := osDisk{}.Create(path, perm, size)
		if err != nil {
			return err
		}
		n, err := d.adopt(name)
		d.note(nameOp{name: name, node: n})
		f = &powerFile{file: real, disk: d, node: n}
		return err
	})
	return f, err
}

func (d *powerDisk) Link(old, new string) error {
	return d.around("Link to "+filepath.Base(new), func() error {
		err := os.Link(old, new)
		if err == nil {
			d.note(nameOp{name: filepath.Base(new), node: d.current[filepath.Base(old)]})
		}
		return err
	})
}

func (d *powerDisk) Rename(old, new string) error {
	return d.around("Rename to "+filepath.Base(new), func() error {
		err := os.Rename(old, new)
		if err == nil {
			d.note(nameOp{filepath.Base(new), d.current[filepath.Base(old)], filepath.Base(old)})
		}
		return err
	})
}

func (d *powerDisk) Remove(path string) error {
	return d.around("Remove "+shortName(filepath.Base(path)), func() error {
		err := os.Remove(path)
		if err == nil {
			d.note(nameOp{name: filepath.Base(path)})
		}
		return err
	})
}

func (d *powerDisk) SyncDir(string) error {
	return d.around("SyncDir", func() error {
		d.names, d.pending = maps.Clone(d.current), nil
		return nil
	})
}

func (d *powerDisk) OpenName(path string) (nameLock, error) { return osDisk{}.OpenName(path) }

func (d *powerDisk) OpenDir(path string) (directory, error) {
	return heldDir{func() error { return d.SyncDir(path) }}, nil
}

// heldDir is a directory that is synced by a function.
type heldDir struct{ sync func() error }

func (d heldDir) Sync() error { return d.sync() }
func (d heldDir) Close()      {}

// powerFile is an open file of a powerDisk.
type powerFile struct {
	file
	disk *powerDisk
	node *inode
}

func (f *powerFile) Grow(size int64) error {
	return f.disk.around(fmt.Sprintf("Grow to %d", size), func() error { return f.file.Grow(size) })
}

func (f *powerFile) Truncate(size int64) error {
	return f.disk.around(fmt.Sprintf("Truncate to %d", size), func() error { return f.file.Truncate(size) })
}

func (f *powerFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.disk.around(fmt.Sprintf("WriteAt %d, %d bytes", off, len(p)), func() (err error) {
		n, err = f.file.WriteAt(p, off)
		return err
	})
	return n, err
}

func (f *powerFile) Sync(off, n int64) error { return f.syncRange(off, n, true) }

// syncRange is Sync, which can be told to forget the length.
func (f *powerFile) syncRange(off, n int64, length bool) error {
	if off < 0 || n < 0 || off > f.Size() || n > f.Size()-off {
		return f.file.Sync(off, n) // says what is wrong
	}
	if n == 0 {
		return nil
	}
	return f.disk.around(fmt.Sprintf("Sync %d, %d bytes", off, n), func() error {
		f.node.syncRange(off, n, length)
		return nil
	})
}

func (f *powerFile) SyncFile() error {
	return f.disk.around("SyncFile", func() error {
		f.node.durable, f.node.synced = f.node.content(), true
		return nil
	})
}

// Identity is that of a file that keeps its number across the copies of a disk, and
// notes each change.
func (f *powerFile) Identity() (mmapfile.Identity, error) { return identityOf(f.node.content()), nil }

func identityOf(b []byte) mmapfile.Identity {
	return mmapfile.Identity{Inode: 1, Length: int64(len(b)), Modified: int64(xxhash.Sum64(b))}
}

// wrapDisk is a disk whose files are wrapped.
type wrapDisk struct {
	disk
	wrap func(path string, f file) file
}

func (d wrapDisk) Open(path string, mode mmapfile.Mode) (file, error) {
	f, err := d.disk.Open(path, mode)
	return d.wrap(path, f), err
}

func (d wrapDisk) Create(path string, perm fs.FileMode, size int64) (file, error) {
	f, err := d.disk.Create(path, perm, size)
	return d.wrap(path, f), err
}

// imageDisk is the operating system's, with files that are those of a powerDisk.
var imageDisk = wrapDisk{osDisk{}, func(_ string, f file) file { return imageFile{f} }}

type imageFile struct{ file }

func (f imageFile) Identity() (mmapfile.Identity, error) { return identityOf(f.Mapping().Bytes()), nil }

// image is what a power cut left: the directory's files.
type image map[string][]byte

// write writes the files into an empty directory.
func (m image) write(dir string) error {
	for name, b := range m {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// cutModes are the ways to choose which of n unsynced units, in the order of the
// file, reached the device.
var cutModes = []struct {
	name   string
	choose func(r *rand.Rand, n int) func(i int) bool
}{
	{"none", func(*rand.Rand, int) func(int) bool { return func(int) bool { return false } }},
	{"all", func(*rand.Rand, int) func(int) bool { return func(int) bool { return true } }},
	{"any", func(r *rand.Rand, _ int) func(int) bool { return func(int) bool { return r.IntN(2) == 0 } }},
	{"most", func(r *rand.Rand, _ int) func(int) bool { return func(int) bool { return r.IntN(8) > 0 } }},
	{"the first", func(r *rand.Rand, n int) func(int) bool { k := r.IntN(n); return func(i int) bool { return i <= k } }},
	{"the last", func(r *rand.Rand, n int) func(int) bool { k := r.IntN(n); return func(i int) bool { return i >= k } }},
	{"all but one", func(r *rand.Rand, n int) func(int) bool { k := r.IntN(n); return func(i int) bool { return i != k } }},
	{"one", func(r *rand.Rand, n int) func(int) bool { k := r.IntN(n); return func(i int) bool { return i == k } }},
}

// cut returns what a power cut at this moment may leave, and how it was drawn.
// The disk goes on.
func (d *powerDisk) cut(r *rand.Rand) (image, string) {
	names, how := d.cutNames(r)
	mode := cutModes[r.IntN(len(cutModes))]
	unit := int64(sectorSize)
	if r.IntN(4) == 0 {
		unit = pageSize
	}
	how += fmt.Sprintf("; %s of the units of %d bytes", mode.name, unit)
	files, img := make(map[*inode][]byte), make(image)
	for _, name := range byCreation(names) {
		n := names[name]
		if files[n] == nil {
			var what string
			files[n], what = n.cut(r, mode.choose, unit)
			how += fmt.Sprintf("; %s has %s", shortName(name), what)
			if d.spoils && r.IntN(2) == 0 {
				how += fmt.Sprintf(", destroyed %d", n.spoil(r, files[n]))
			}
		}
		img[name] = files[n]
	}
	return img, how
}

// cutNames draws which changes of names lasted: those up to some moment, as
// journals have it, or any.
func (d *powerDisk) cutNames(r *rand.Rand) (map[string]*inode, string) {
	names := maps.Clone(d.names)
	kept := make([]bool, len(d.pending))
	if r.IntN(3) > 0 {
		for i := range r.IntN(len(kept) + 1) {
			kept[i] = true
		}
	} else {
		for i := range kept {
			kept[i] = r.IntN(2) == 0
		}
	}
	for i, op := range d.pending {
		if kept[i] {
			op.apply(names)
		}
	}
	return names, fmt.Sprintf("names changed: %v", kept)
}

func (n *inode) cut(r *rand.Rand, choose func(*rand.Rand, int) func(int) bool, unit int64) (b []byte, length string) {
	now, old := n.content(), n.durable
	size := []int{len(old), len(now)}[r.IntN(2)]
	if !n.synced && r.IntN(2) == 0 {
		size = r.IntN(max(len(old), len(now)) + 1)
	}
	length = fmt.Sprintf("length %d of %d durable, %d now", size, len(old), len(now))
	b, old, now = resized(old, size), resized(old, size), resized(now, size)
	var units []int64 // that differ
	for off := int64(0); off < int64(size); off += unit {
		if end := min(off+unit, int64(size)); string(now[off:end]) != string(old[off:end]) {
			units = append(units, off)
		}
	}
	if len(units) == 0 {
		return b, length
	}
	lasted := choose(r, len(units))
	for i, off := range units {
		if lasted(i) {
			copy(b[off:min(off+unit, int64(size))], now[off:])
		}
	}
	return b, length
}

// spoil destroys some sectors of the pages of b, an image of n, that were written to
// since they were synced: the kernel writes pages, so that all of such a page may have
// been in flight. It returns their offsets.
func (n *inode) spoil(r *rand.Rand, b []byte) (sectors []int) {
	now := n.content()
	pages := max(len(now), len(n.durable))/pageSize + 1
	now, old := resized(now, pages*pageSize), resized(n.durable, pages*pageSize)
	for off := 0; off < len(b); off += sectorSize {
		page := off &^ (pageSize - 1)
		if string(now[page:page+pageSize]) == string(old[page:page+pageSize]) || r.IntN(4) > 0 {
			continue
		}
		sectors = append(sectors, off)
		sector := b[off:min(off+sectorSize, len(b))]
		switch clear(sector); r.IntN(3) {
		case 0:
			for i := range sector {
				sector[i] = byte(r.Uint32())
			}
		case 1:
			for i := range sector {
				sector[i] = 0xff
			}
		}
	}
	return sectors
}

// resized returns a copy of b of another length, filled up with zeros.
func resized(b []byte, size int) []byte {
	c := make([]byte, size)
	copy(c, b)
	return c
}

// Goal: the disk that the power is cut of is itself right. Method: a file, step by
// step, and all that many cuts leave of it.
func TestPowerDisk(t *testing.T) {
	dir := t.TempDir()
	d, err := newPowerDisk(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	path := filepath.Join(dir, "f")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// left draws many cuts and collects, of a file of two sectors at offset 0 and
	// one at 4096, the first letters of each, by name; "-": beyond the end.
	left := func() map[string]bool {
		seen := make(map[string]bool)
		r := rand.New(rand.NewPCG(1, 2))
		for range 2000 {
			img, _ := d.cut(r)
			s := ""
			for _, name := range slices.Sorted(maps.Keys(img)) {
				s += name + ":"
				for _, off := range []int{0, sectorSize, pageSize} {
					switch b := img[name]; {
					case off >= len(b):
						s += "-"
					case b[off] == 0:
						s += "0"
					default:
						s += string(b[off])
					}
				}
			}
			seen[s] = true
		}
		return seen
	}
	is := func(step string, want ...string) {
		t.Helper()
		if got := slices.Sorted(maps.Keys(left())); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
			t.Errorf("%s: cuts leave %q, want %q", step, got, want)
		}
	}
	f, err := d.Create(path, 0o600, pageSize)
	must(err)
	defer f.Close()
	is("created", "", "f:---", "f:0--", "f:00-")
	must(d.SyncDir(dir))
	must(f.SyncFile())
	is("synced", "f:00-")
	_, err = f.WriteAt([]byte("a"), 0)
	must(err)
	f.Mapping().Bytes()[sectorSize] = 'b'
	is("written, by call and by store", "f:00-", "f:a0-", "f:0b-", "f:ab-")
	must(f.Grow(2 * pageSize))
	must(f.Sync(0, 1))
	is("a page synced, and not the length", "f:ab-", "f:ab0")
	f.Mapping().Bytes()[pageSize] = 'c'
	is("written behind the durable length", "f:ab-", "f:ab0", "f:abc")
	must(f.Sync(pageSize, 1))
	is("and synced", "f:abc")
	must(f.Truncate(pageSize))
	must(f.Grow(2 * pageSize))
	is("cut and grown", "f:abc", "f:ab0")
	must(f.Sync(pageSize, 1))
	is("cut and grown and synced", "f:ab0")
	must(f.Truncate(pageSize))
	is("cut", "f:ab0", "f:ab-")
	must(f.SyncFile())
	is("cut and synced", "f:ab-")
	must(d.Link(path, filepath.Join(dir, "l")))
	must(d.Remove(path))
	is("renamed in two steps", "f:ab-", "f:ab-l:ab-", "l:ab-", "")
	must(d.SyncDir(dir))
	is("renamed durably", "l:ab-")
	g, err := d.Create(path, 0o600, pageSize)
	must(err)
	defer g.Close()
	g.Mapping().Bytes()[0] = 'x'
	must(g.SyncFile())
	must(d.Rename(path, filepath.Join(dir, "l")))
	is("another renamed over it", "l:ab-", "f:x0-l:ab-", "l:x0-")
	c, err := d.clone(t.TempDir())
	must(err)
	defer c.close()
	must(d.SyncDir(dir))
	is("durably", "l:x0-")
	d = c
	is("the clone does not know", "l:ab-", "f:x0-l:ab-", "l:x0-")
}
