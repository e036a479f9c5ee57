package kvtest

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/mmapkv/mmapkv/internal/faults"
)

const sectorSize = 512 // bytes: what a device writes whole

// power is what a power cut would leave of a disk: of each file what it held when it was last
// synced, and the names as they were when the directory was.
type power struct {
	names   map[string]*node // now
	durable map[string]*node
	pending []func(names map[string]*node) // changes of names since the last SyncDir, in order
	nodes   []*node
}

// node is a file, whatever its names.
type node struct {
	now     *os.File // shows what the mapping holds; nil: no name leads to it any more
	durable []byte
	synced  bool       // as a whole, once at least
	syncing sync.Mutex // held during a sync, before Disk.mu
}

// Cut returns a disk with what is left on this one if the power fails at this moment: what is
// durable, and of the rest, sector by sector and name by name, what r draws; nothing with a nil
// r. It is a new directory, in which all is durable; this disk, and the stores on it, go on as if
// nothing had happened. What counts is what stores opened on the disk by this process did: files
// that were there before, and those of others, are left out if no store opened them, and durable
// as they were when one did.
//
// A store copied so is recovered from its log: the checkpoint beside it is that of another file,
// and is not used.
func (d *Disk) Cut(r *rand.Rand) *Disk {
	d.t.Helper()
	after := NewDisk(d.t)
	d.mu.Lock()
	defer d.mu.Unlock()
	names := d.power.cutNames(r)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		b, err := names[name].cut(r)
		if err == nil {
			err = os.WriteFile(after.Path(name), b, 0o600)
		}
		if err != nil {
			d.t.Fatal(err)
		}
	}
	return after
}

// made notes what a call has done.
func (p *power) made(c faults.Call) (err error) {
	name := filepath.Base(c.Path)
	switch c.Op {
	case faults.Open:
		c.File.Node, err = p.opened(c.Path)
	case faults.Create:
		var n *node
		if n, err = p.adopt(c.Path); err == nil {
			c.File.Node = n
			p.change(func(names map[string]*node) { names[name] = n })
		}
	case faults.Link:
		n := p.names[filepath.Base(c.From)]
		p.change(func(names map[string]*node) { names[name] = n })
	case faults.Rename:
		old := filepath.Base(c.From)
		n := p.names[old]
		p.change(func(names map[string]*node) { delete(names, old); names[name] = n })
	case faults.Remove:
		p.change(func(names map[string]*node) { delete(names, name) })
	case faults.SyncDir:
		p.durable, p.pending = maps.Clone(p.names), nil
		p.forget()
	}
	return err
}

func (p *power) change(op func(names map[string]*node)) {
	op(p.names)
	p.pending = append(p.pending, op)
}

// adopt returns a node for the file at path.
func (p *power) adopt(path string) (*node, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	n := &node{now: f}
	p.nodes = append(p.nodes, n)
	return n, nil
}

// opened returns the node of the file at path. One that has come there by itself is durable.
func (p *power) opened(path string) (*node, error) {
	name := filepath.Base(path)
	if n := p.names[name]; n != nil {
		is, err := n.now.Stat()
		if err != nil {
			return nil, err
		}
		at, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if os.SameFile(is, at) {
			return n, nil
		}
	}
	n, err := p.adopt(path)
	if err == nil {
		err = n.sync(0, -1, func() error { return nil })
	}
	if err == nil {
		p.names[name], p.durable[name] = n, n
	}
	return n, err
}

// forget drops the files that have no name any more, be they open or not.
func (p *power) forget() {
	p.nodes = slices.DeleteFunc(p.nodes, func(n *node) bool {
		for _, named := range p.names {
			if named == n {
				return false
			}
		}
		n.now.Close()
		n.now, n.durable = nil, nil
		return true
	})
}

func (p *power) close() {
	for _, n := range p.nodes {
		n.now.Close()
	}
}

// content returns the file as it is now.
func (n *node) content() ([]byte, error) {
	st, err := n.now.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, st.Size())
	_, err = n.now.ReadAt(b, 0)
	return b, err
}

// sync makes size bytes at off durable, as they are now, and as much of the length as these need;
// with size -1, all. do is what makes them so, and takes its time: what is stored meanwhile is
// not synced, and neither is what else lies in their pages, though a device may keep it.
func (n *node) sync(off, size int64, do func() error) error {
	if n.now == nil {
		return do()
	}
	st, err := n.now.Stat()
	if err != nil {
		return err
	}
	start, end := int64(0), st.Size()
	if size >= 0 {
		start, end = min(off, end), min(off+size, end)
	}
	b := make([]byte, end-start)
	if _, err := n.now.ReadAt(b, start); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	if size < 0 {
		n.durable, n.synced = b, true
		return nil
	}
	if off+size > int64(len(n.durable)) {
		n.durable = resized(n.durable, int(st.Size()))
	}
	copy(n.durable[min(start, int64(len(n.durable))):], b)
	return nil
}

// cutNames draws which changes of names lasted: those up to some moment, as journals have it,
// or, now and then, any.
func (p *power) cutNames(r *rand.Rand) map[string]*node {
	names := maps.Clone(p.durable)
	if r == nil {
		return names
	}
	any, upTo := r.IntN(3) == 0, r.IntN(len(p.pending)+1)
	for i, op := range p.pending {
		if any && r.IntN(2) == 0 || !any && i < upTo {
			op(names)
		}
	}
	return names
}

// cut draws what is left of the file.
func (n *node) cut(r *rand.Rand) ([]byte, error) {
	if r == nil {
		return n.durable, nil
	}
	now, err := n.content()
	if err != nil {
		return nil, err
	}
	size := []int{len(n.durable), len(now)}[r.IntN(2)]
	if !n.synced && r.IntN(2) == 0 {
		size = r.IntN(max(len(n.durable), len(now)) + 1)
	}
	b, now := resized(n.durable, size), resized(now, size)
	lasts := r.IntN(9) // of 8: none, all, and all between
	for off := 0; off < size; off += sectorSize {
		if r.IntN(8) < lasts {
			end := min(off+sectorSize, size)
			copy(b[off:end], now[off:end])
		}
	}
	return b, nil
}

// resized returns a copy of b of another length, filled up with zeros.
func resized(b []byte, size int) []byte {
	c := make([]byte, size)
	copy(c, b)
	return c
}
