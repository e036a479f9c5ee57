package crc

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// Version is the format version that this package writes, and the only one that it reads.
const Version uint32 = 1

// MaxOff is the limit of a file's bytes: every offset in a store, its tail included, is at most MaxOff.
const MaxOff int64 = 1 << 43

// le is the byte order of everything on disk, whatever the machine's own.
var le = binary.LittleEndian

// sum64 is the standard XXH64 with seed 0.
func sum64(b []byte) uint64 { return xxhash.Sum64(b) }
