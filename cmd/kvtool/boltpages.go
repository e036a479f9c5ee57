package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"go.etcd.io/bbolt"
)

// boltPages checks of a bbolt file what bbolt takes for granted: that no page is reached twice,
// without which a walk over them need not end, and that what pages point at lies in them.
//
// A page begins with 8 bytes of its number, 2 of flags, 2 of the count of its elements, and 4 of
// how many pages more it has, all little-endian as on the machines that write it. An element of
// a branch has 4 bytes of the position of its key, from the element on, 4 of its length, and 8
// of the page below; that of a leaf 4 of flags, 4 of the position, and 4 each of the lengths of
// key and value, which lie together. The value of a bucket begins with 8 bytes of its page and 8
// of a counter; where the page is 0, it follows in the value.
type boltPages struct {
	f        io.ReaderAt
	pageSize int64
	seen     []bool
}

const (
	boltHead   = 16 // of a page, and of the value of a bucket; and the size of an element
	boltBranch = 1  // flags of a page
	boltLeaf   = 2
	boltBucket = 1 // flag of an element

	// maxBoltDepth is more than trees and buckets of maxNesting come to.
	maxBoltDepth = 4096
)

// checkBolt checks all pages that tx reaches, of the file at path.
func checkBolt(path string, tx *bbolt.Tx) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	p := boltPages{f: f, pageSize: int64(tx.DB().Info().PageSize)}
	p.seen = make([]bool, info.Size()/p.pageSize)
	return p.page(uint64(tx.Cursor().Bucket().RootPage()), 0)
}

// page checks a page and those below it.
func (p *boltPages) page(id uint64, depth int) error {
	if id >= uint64(len(p.seen)) {
		return fmt.Errorf("page %d is behind the end", id)
	}
	off := int64(id) * p.pageSize
	head, err := p.read(off, boltHead)
	if err != nil {
		return err
	}
	count := 1 + uint64(binary.LittleEndian.Uint32(head[12:]))
	if count > uint64(len(p.seen))-id {
		return fmt.Errorf("page %d ends behind the end", id)
	}
	for n := id; n < id+count; n++ {
		if p.seen[n] {
			return fmt.Errorf("page %d is reached twice", n)
		}
		p.seen[n] = true
	}
	return p.node(off, int64(count)*p.pageSize, depth)
}

// node checks the elements of a page, which begins at off, and what is below it.
func (p *boltPages) node(off, size int64, depth int) error {
	if depth > maxBoltDepth {
		return fmt.Errorf("offset %d: deeper than any tree of bbolt", off)
	}
	if size < boltHead {
		return fmt.Errorf("offset %d: no room for a page", off)
	}
	head, err := p.read(off, boltHead)
	if err != nil {
		return err
	}
	flags, count := binary.LittleEndian.Uint16(head[8:]), int64(binary.LittleEndian.Uint16(head[10:]))
	if flags != boltLeaf && (flags != boltBranch || count == 0) || count > size/boltHead-1 {
		return fmt.Errorf("offset %d: a page with flags %#x and %d elements", off, flags, count)
	}
	elements, err := p.read(off+boltHead, count*boltHead)
	for at := off + boltHead; err == nil && len(elements) > 0; at += boltHead {
		err = p.element(flags, elements[:boltHead], at, off+size, depth)
		elements = elements[boltHead:]
	}
	return err
}

// element checks the element at offset at, of a page that ends at end, and what is below it.
func (p *boltPages) element(flags uint16, b []byte, at, end int64, depth int) error {
	number := func(off int) int64 { return int64(binary.LittleEndian.Uint32(b[off:])) }
	if flags == boltBranch {
		if number(0)+number(4) > end-at {
			return fmt.Errorf("offset %d: a key outside of its page", at)
		}
		return p.page(binary.LittleEndian.Uint64(b[8:]), depth+1)
	}
	value, size := at+number(4)+number(8), number(12)
	if size > end-value {
		return fmt.Errorf("offset %d: an entry outside of its page", at)
	}
	if number(0)&boltBucket == 0 {
		return nil
	}
	if size < boltHead {
		return fmt.Errorf("offset %d: a bucket of %d bytes", at, size)
	}
	bucket, err := p.read(value, boltHead)
	if err != nil {
		return err
	}
	if root := binary.LittleEndian.Uint64(bucket); root != 0 {
		return p.page(root, depth+1)
	}
	return p.node(value+boltHead, size-boltHead, depth+1)
}

func (p *boltPages) read(off, n int64) ([]byte, error) {
	b := make([]byte, n)
	_, err := p.f.ReadAt(b, off)
	return b, err
}
