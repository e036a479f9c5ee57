// Package crc holds the bytes that guard other bytes: the record frame and the file header. The sum is XXH64 (xxhash), not a CRC.
//
// The package is pure: it reads and writes slices, does no I/O, starts no goroutine, keeps no state and knows no payload. Every function
// may be called from any number of goroutines; what they share is only the memory that they are given. Nothing here allocates, except to
// word the details of some errors. Integers are little-endian. FORMAT.md is the normative text; its tables and its dump are compared with
// this package by a test.
//
//	file        0           4096  4224   4608   5120     7680   8192
//	            +-----------+-----+------+------+--------+------+--------+--------+- - -+
//	            | immutable |tail |holder|mark 0| mark 1 | copy | record | record |     |
//	            +-----------+-----+------+------+--------+------+--------+--------+- - -+
//
//	record      0       8        12      16             16+n    padded to 8
//	            +-------+--------+-------+--------------+---------+
//	            |  sum  | length | flags | payload      | zeros   |
//	            +-------+--------+-------+--------------+---------+
//
// Stores are plain, not atomic. That is right since a record or a mark is seen by others only after the tail word, which the caller stores
// atomically, and since after a crash nothing is believed without its sum.
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
