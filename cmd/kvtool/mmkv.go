package main

import (
	"cmp"
	"crypto/aes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"time"
	"unicode/utf8"
)

// An instance of MMKV (github.com/Tencent/MMKV) is two files. All numbers are little-endian.
// The data file begins with the size of what follows:
//
//	| 0 | 4 | size; of meta version 3 and above the meta file has it, and this may be an older one
//	| 4 | . | a varint without meaning, and then entries: varint length and bytes of the key,
//	|   |   | varint length and bytes of the value
//
// A later entry replaces those of its key before it, and one with an empty value removes them;
// behind an empty key there is no value. Behind size bytes the file is slack. Where it is
// encrypted, all but the size is: AES-CFB of 128 bits, as one stream.
//
// The meta file, whose name has .crc behind that of the data file:
//
//	|   0 |  4 | CRC-32 (IEEE) of the size bytes, as they lie in the file
//	|   4 |  4 | version
//	|   8 |  4 | number of full rewrites
//	|  12 | 16 | version 2 and above: initial vector; before it was the key
//	|  28 |  4 | version 3 and above: size
//	|  32 |  4 | ... size at the last full rewrite, which was synced
//	|  36 |  4 | ... CRC-32 then
//	| 104 |  8 | version 4 and above: flags; 1: each value ends with the second since 1970, 4
//	|     |    | bytes, at which the entry expires, 0 for never
const (
	mmkvMetaSize    = 112
	mmkvLeastMeta   = 32
	mmkvLastVersion = 5
	mmkvHeadSize    = 4
	mmkvBlock       = aes.BlockSize
	mmkvExpiry      = 1 // flag
	mmkvExpirySize  = 4
)

// maxMMKV bounds a data file, in bytes: what MMKV has it keeps in memory.
const maxMMKV = 256 << 20

// mmkvMeta is what a meta file says.
type mmkvMeta struct {
	sum, version      uint32
	vector            [mmkvBlock]byte
	size              uint32
	lastSize, lastSum uint32
	flags             uint64
}

func parseMMKVMeta(b []byte) (m mmkvMeta, err error) {
	if len(b) < mmkvLeastMeta {
		return m, fmt.Errorf("%d bytes are too few for the meta file of MMKV", len(b))
	}
	var whole [mmkvMetaSize]byte // the fields of later versions are zero in a shorter file
	copy(whole[:], b)
	number := binary.LittleEndian.Uint32
	m = mmkvMeta{
		sum: number(whole[0:]), version: number(whole[4:]), size: number(whole[28:]),
		lastSize: number(whole[32:]), lastSum: number(whole[36:]),
	}
	copy(m.vector[:], whole[12:])
	if m.version > mmkvLastVersion {
		return m, fmt.Errorf("version %d of MMKV's files is not known", m.version)
	}
	if m.version >= 4 {
		m.flags = binary.LittleEndian.Uint64(whole[104:])
	}
	return m, nil
}

// mmkvEntry is an entry as it is at the end. Key and value alias the data, or what of it was
// decrypted.
type mmkvEntry struct {
	key, value []byte
	off        int // in the data file
	expires    time.Time
}

// mmkvData is what a data file has.
type mmkvData struct {
	entries []mmkvEntry // in the order of writing
	stale   bool        // what was written since the last full rewrite is damaged, and left out
}

// parseMMKV reads the data file of an instance; with key it is encrypted.
func parseMMKV(data []byte, m mmkvMeta, key []byte) (d mmkvData, err error) {
	body, stale, err := m.body(data)
	if err != nil {
		return d, err
	}
	d.stale = stale
	if len(key) == 0 {
		if d.entries, err = mmkvEntries(body); err != nil {
			return d, fmt.Errorf("%w; if it is encrypted, give its key: --key-file", err)
		}
	} else if d.entries, err = mmkvDecrypted(body, m, key); err != nil {
		return d, fmt.Errorf("%w; is it another key, or is it not encrypted?", err)
	}
	if m.flags&mmkvExpiry != 0 {
		err = takeExpiries(d.entries)
	}
	return d, err
}

// body returns the bytes of the data file that the meta file vouches for.
func (m *mmkvMeta) body(data []byte) (body []byte, stale bool, err error) {
	if len(data) < mmkvHeadSize {
		return nil, false, fmt.Errorf("%d bytes are too few for a data file of MMKV", len(data))
	}
	whole := data[mmkvHeadSize:]
	holds := func(size, sum uint32) bool {
		return uint64(size) <= uint64(len(whole)) && crc32.ChecksumIEEE(whole[:size]) == sum
	}
	head := binary.LittleEndian.Uint32(data)
	switch {
	case m.version >= 3 && holds(m.size, m.sum):
		return whole[:m.size], false, nil
	case holds(head, m.sum):
		return whole[:head], false, nil
	case m.version >= 3 && m.lastSize > 0 && holds(m.lastSize, m.lastSum):
		return whole[:m.lastSize], true, nil
	}
	size := head
	if m.version >= 3 {
		size = m.size
	}
	if uint64(size) > uint64(len(whole)) {
		return nil, false, fmt.Errorf("cut short: of %d bytes there are %d; nothing of it is imported", size, len(whole))
	}
	return nil, false, fmt.Errorf("damaged: the CRC of its %d bytes is not what the .crc file says (were both copied at one time?); nothing of it is imported", size)
}

// mmkvDecrypted is mmkvEntries of an encrypted body. A key is of 16 bytes, or, of AES-256, of
// 32, a shorter one with zeros behind it; which of them nothing says but that the entries are some.
func mmkvDecrypted(body []byte, m mmkvMeta, key []byte) (entries []mmkvEntry, err error) {
	for _, size := range []int{16, 32} {
		padded := make([]byte, size)
		copy(padded, key)
		vector := m.vector
		if m.version < 2 {
			copy(vector[:], padded)
		}
		plain, cipherErr := decryptCFB(body, padded, vector)
		if cipherErr != nil {
			return nil, cipherErr
		}
		entries, entriesErr := mmkvEntries(plain)
		if entriesErr == nil {
			return entries, nil
		}
		err = cmp.Or(err, entriesErr)
	}
	return nil, err
}

// decryptCFB returns the plain bytes of an AES-CFB stream of 128 bits. That crypto/cipher
// advises against CFB in new designs does not help with data that has it.
func decryptCFB(b, key []byte, vector [mmkvBlock]byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, len(b))
	var mask [mmkvBlock]byte
	previous := vector[:]
	for off := 0; off < len(b); off += mmkvBlock {
		block.Encrypt(mask[:], previous)
		part := b[off:min(off+mmkvBlock, len(b))]
		for i, c := range part {
			plain[off+i] = c ^ mask[i]
		}
		previous = part // a shorter one is the last
	}
	return plain, nil
}

// mmkvEntries reads the entries of a body, and returns those that are there at its end.
func mmkvEntries(body []byte) ([]mmkvEntry, error) {
	if len(body) == 0 {
		return nil, nil
	}
	r := mmkvReader{rest: body, size: len(body)}
	if _, err := r.number(); err != nil {
		return nil, err
	}
	there := map[string]mmkvEntry{}
	for len(r.rest) > 0 {
		off := r.off()
		key, err := r.bytes("key")
		if err != nil {
			return nil, err
		}
		if len(key) == 0 {
			continue
		}
		if !utf8.Valid(key) {
			return nil, fmt.Errorf("offset %d: a key that is no UTF-8", off)
		}
		value, err := r.bytes("value")
		switch {
		case err != nil:
			return nil, err
		case len(value) == 0:
			delete(there, string(key))
		default:
			there[string(key)] = mmkvEntry{key: key, value: value, off: off}
		}
	}
	entries := make([]mmkvEntry, 0, len(there))
	for _, e := range there {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b mmkvEntry) int { return cmp.Compare(a.off, b.off) })
	return entries, nil
}

// mmkvReader reads a body from its beginning on.
type mmkvReader struct {
	rest []byte
	size int // of the body
}

// off returns where in the data file the rest begins.
func (r *mmkvReader) off() int { return mmkvHeadSize + r.size - len(r.rest) }

func (r *mmkvReader) number() (uint64, error) {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		return 0, fmt.Errorf("offset %d: not a length", r.off())
	}
	r.rest = r.rest[n:]
	return v, nil
}

func (r *mmkvReader) bytes(what string) ([]byte, error) {
	off := r.off()
	n, err := r.number()
	if err != nil {
		return nil, err
	}
	if n > uint64(len(r.rest)) {
		return nil, fmt.Errorf("offset %d: a %s of %d bytes, where %d are left", off, what, n, len(r.rest))
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b, nil
}

// takeExpiries takes off the deadline that each value ends with.
func takeExpiries(entries []mmkvEntry) error {
	for i := range entries {
		e := &entries[i]
		at := len(e.value) - mmkvExpirySize
		if at < 0 {
			return fmt.Errorf("offset %d: the value of %q is too short for a deadline", e.off, e.key)
		}
		if second := binary.LittleEndian.Uint32(e.value[at:]); second != 0 {
			e.expires = time.Unix(int64(second), 0)
		}
		e.value = e.value[:at]
	}
	return nil
}

// mmkvString returns the text or the bytes of a value, if it can be one: MMKV puts their length
// before them. An integer, a number or true may look the same.
func mmkvString(value []byte) (text []byte, ok bool) {
	n, size := binary.Uvarint(value)
	if size <= 0 || n > math.MaxUint32 || n != uint64(len(value)-size) {
		return value, false
	}
	return value[size:], true
}
