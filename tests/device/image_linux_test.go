//go:build amd64 || arm64

package device

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const chunkSize = 16 << 10 // bytes; a multiple of every sector size

type chunk [chunkSize]byte

// image is the content of a disk. Images share the chunks in which they do not
// differ, so that one more of them costs little.
type image struct {
	size   int64
	chunks []*chunk // nil: zeros
	own    []bool   // nobody else has the chunk
}

func newImage(size int64) *image {
	n := (size + chunkSize - 1) / chunkSize
	return &image{size: size, chunks: make([]*chunk, n), own: make([]bool, n)}
}

// clone returns an image with the same content.
func (m *image) clone() *image {
	c := newImage(m.size)
	copy(c.chunks, m.chunks)
	clear(m.own)
	return c
}

// each calls fn for the part of each chunk that [off, off+n) touches: the bytes
// [from, to) of chunk i.
func (m *image) each(off, n int64, fn func(i, from, to int64)) {
	for n > 0 {
		i, from := off/chunkSize, off%chunkSize
		to := min(from+n, chunkSize)
		fn(i, from, to)
		off, n = off+to-from, n-(to-from)
	}
}

// inside tells whether the image has the bytes [off, off+n).
func (m *image) inside(off, n int64) bool {
	return off >= 0 && n >= 0 && n <= m.size && off <= m.size-n
}

func (m *image) read(p []byte, off int64) {
	m.each(off, int64(len(p)), func(i, from, to int64) {
		if c := m.chunks[i]; c != nil {
			copy(p[:to-from], c[from:to])
		} else {
			clear(p[:to-from])
		}
		p = p[to-from:]
	})
}

func (m *image) write(p []byte, off int64) {
	m.each(off, int64(len(p)), func(i, from, to int64) {
		copy(m.mine(i)[from:to], p)
		p = p[to-from:]
	})
}

func (m *image) zero(off, n int64) {
	m.each(off, n, func(i, from, to int64) {
		switch {
		case m.chunks[i] == nil:
		case to-from == chunkSize:
			m.chunks[i], m.own[i] = nil, false
		default:
			clear(m.mine(i)[from:to])
		}
	})
}

// mine returns a chunk that may be changed.
func (m *image) mine(i int64) *chunk {
	if !m.own[i] {
		c := new(chunk)
		if m.chunks[i] != nil {
			*c = *m.chunks[i]
		}
		m.chunks[i], m.own[i] = c, true
	}
	return m.chunks[i]
}

// find returns the offset of the first place that has pattern, or -1.
func (m *image) find(pattern []byte) int64 {
	window := make([]byte, chunkSize+len(pattern)-1)
	for i, c := range m.chunks {
		if c == nil && len(pattern) > 0 && pattern[0] == 0 {
			continue
		}
		off := int64(i) * chunkSize
		w := window[:min(int64(len(window)), m.size-off)]
		m.read(w, off)
		if at := bytes.Index(w, pattern); at >= 0 {
			return off + int64(at)
		}
	}
	return -1
}

var noBytes chunk

// save writes the image to a sparse file.
func (m *image) save(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = f.Truncate(m.size)
	for i, c := range m.chunks {
		if c == nil || *c == noBytes || err != nil {
			continue
		}
		off := int64(i) * chunkSize
		_, err = f.WriteAt(c[:min(chunkSize, m.size-off)], off)
	}
	return errors.Join(err, f.Close())
}

// loadImage reads what save, or a program that formats, has written.
func loadImage(path string) (*image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	m := newImage(fi.Size())
	var c chunk
	for off := int64(0); ; off += chunkSize {
		if off, err = unix.Seek(int(f.Fd()), off, unix.SEEK_DATA); err == unix.ENXIO {
			return m, nil // holes to the end
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		off -= off % chunkSize
		n, err := f.ReadAt(c[:], off)
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if clear(c[n:]); c != noBytes {
			m.write(c[:n], off)
		}
	}
}
