package kvtest

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/mmapkv/mmapkv/internal/faults"
)

const (
	sectorSize = 512  // bytes: what a device writes whole
	pageSize   = 4096 // bytes: what a sync writes at least
)

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
	now     *os.File // shows what the mapping holds
	durable []byte
	synced  bool // as a whole, once at least
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
	case faults.Sync:
		err = c.File.Node.(*node).sync(c.Off, c.Len)
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
		err = n.sync(0, -1)
	}
	if err == nil {
		p.names[name], p.durable[name] = n, n
	}
	return n, err
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

// sync makes the pages of size bytes at off durable, and as much of the length as these need;
// with size -1, all.
func (n *node) sync(off, size int64) error {
	if size < 0 {
		b, err := n.content()
		if err == nil {
			n.durable, n.synced = b, true
		}
		return err
	}
	st, err := n.now.Stat()
	if err != nil || size == 0 {
		return err
	}
	if off+size > int64(len(n.durable)) {
		n.durable = resized(n.durable, int(st.Size()))
	}
	start := off &^ (pageSize - 1)
	end := min((off+size+pageSize-1)&^(pageSize-1), st.Size(), int64(len(n.durable)))
	if start >= end {
		return nil
	}
	_, err = n.now.ReadAt(n.durable[start:end], start)
	return err
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
