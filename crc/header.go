package crc

import (
	"errors"
	"fmt"
)

// Sizes and offsets in bytes from the start of the file. The mutable words have a cache line of their own each, and lie in another page than
// the immutable part: once a file has its name, that page is never written to again, so that no write that is cut off can reach it. A copy of the
// immutable part ends the mutable page, for the day on which the medium loses the first.
const (
	HeaderSize = 8192 // the first record begins here
	TailOff    = 4096 // u64, atomic: one past the last published record, and Superseded
	EventOff   = 4104 // u32, atomic: who publishes the tail wakes by it whoever waits
	WrittenOff = 4112 // u64, atomic: one past the last byte that was about to be written by a store that several processes write
	HolderOff  = 4224 // u64: process id of the holder of the write lock, or of the last one
	BootOff    = 4232 // u64: identifies the boot of the machine that the holder lives in; 0: not known
	TurnOff    = 4352 // u32, atomic: by which those wait who want the write lock of a store that several processes write
	CopyOff    = 7680 // the copy of the immutable part

	ImmutableSize = 512 // of the immutable part, and of its copy

	// Page is the unit in which a file is written to a device, whatever the machine's pages are.
	Page = 4096
)

// Superseded is the bit of the tail word that says that this file has been replaced at its path by the next generation: reopen the path.
const Superseded uint64 = 1 << 63

// magic begins a store. The first byte is no ASCII and no UTF-8, and CR LF and ^Z show the damage of a transfer as text.
const magic = "\x8dmmkv\r\n\x1a"

// Offsets within the immutable part.
const (
	magicOff             = 0
	versionOff           = 8
	headerSizeOff        = 12
	compatibleOff        = 16
	incompatibleOff      = 20
	generationOff        = 24
	saltOff              = 32
	storeIDOff           = 40
	hashSeedOff          = 56
	createdOff           = 64
	generationCreatedOff = 72
	baseRevisionOff      = 80
	baseEndOff           = 88
	reservedOff          = 96
	headerSumOff         = 504
)

// knownIncompatible are the incompatible flags of a file that this version knows: none yet.
const knownIncompatible uint32 = 0

// Why bytes are not the header of a store that this version reads, in the order of the checks.
var (
	ErrEmpty        = errors.New("empty file")
	ErrMagic        = errors.New("the first bytes are not those of a store")
	ErrShort        = errors.New("file header cut short")
	ErrVersion      = errors.New("format version not known")
	ErrIncompatible = errors.New("file has incompatible flags of a later version")
	ErrHeaderSum    = errors.New("file header sum mismatch")
	ErrReserved     = errors.New("reserved bytes of the file header are not zero")
	ErrHeaderField  = errors.New("file header field out of range")
)

// Header is the immutable part of a file header: written once, before the file gets its name.
type Header struct {
	Version           uint32   // EncodeHeader writes Version for 0
	Compatible        uint32   // flags; a reader ignores those that it does not know
	Incompatible      uint32   // flags; a reader refuses a file with one that it does not know
	Generation        uint64   // counts the compactions of the store
	Salt              uint64   // random, of this file: is part of the sum of its records and marks
	StoreID           [16]byte // random, kept across generations
	HashSeed          uint64   // seed of the index's hash; secret while the file is
	Created           int64    // the store, unix nanoseconds
	GenerationCreated int64    // this generation, unix nanoseconds
	BaseRevision      uint64   // revision of the store when this generation began
	BaseEnd           int64    // offset at which the records end that a compaction copied; 0: it copied none
}

// EncodeHeader writes h and its sum to dst[:HeaderSize], twice, and zeroes all else there: the tail word, the holder and both marks too, so it is
// only for a file that nobody else has open. It panics if dst is shorter than HeaderSize.
func EncodeHeader(dst []byte, h *Header) {
	dst = dst[:HeaderSize]
	clear(dst)
	version := h.Version
	if version == 0 {
		version = Version
	}
	copy(dst[magicOff:], magic)
	le.PutUint32(dst[versionOff:], version)
	le.PutUint32(dst[headerSizeOff:], HeaderSize)
	le.PutUint32(dst[compatibleOff:], h.Compatible)
	le.PutUint32(dst[incompatibleOff:], h.Incompatible)
	le.PutUint64(dst[generationOff:], h.Generation)
	le.PutUint64(dst[saltOff:], h.Salt)
	copy(dst[storeIDOff:], h.StoreID[:])
	le.PutUint64(dst[hashSeedOff:], h.HashSeed)
	le.PutUint64(dst[createdOff:], uint64(h.Created))
	le.PutUint64(dst[generationCreatedOff:], uint64(h.GenerationCreated))
	le.PutUint64(dst[baseRevisionOff:], h.BaseRevision)
	le.PutUint64(dst[baseEndOff:], uint64(h.BaseEnd))
	le.PutUint64(dst[headerSumOff:], sum64(dst[:headerSumOff]))
	copy(dst[CopyOff:], dst[:ImmutableSize])
}

// DecodeHeader reads the immutable part from b, the first bytes of a file: HeaderSize of them, or all that there are. Each way to fail has its own
// error, wrapped with what was found and what is known, and the first that applies in this order is returned: ErrEmpty, ErrMagic, ErrShort,
// ErrVersion, ErrIncompatible, ErrHeaderSum, ErrReserved, ErrHeaderField. The version and the flags come before the sum, since a later
// version may lay out, and sum, the rest in another way. The copy is not looked at.
func DecodeHeader(b []byte) (Header, error) {
	if err := checkHeader(b); err != nil {
		return Header{}, err
	}
	return decodeImmutable(b), nil
}

// DecodeCopy is DecodeHeader of the copy.
func DecodeCopy(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("%w: %d bytes of %d", ErrShort, len(b), HeaderSize)
	}
	b = b[CopyOff:HeaderSize]
	if err := checkImmutable(b); err != nil {
		return Header{}, err
	}
	return decodeImmutable(b), nil
}

// decodeImmutable reads an immutable part that has passed the checks.
func decodeImmutable(b []byte) Header {
	h := Header{
		Version:           le.Uint32(b[versionOff:]),
		Compatible:        le.Uint32(b[compatibleOff:]),
		Incompatible:      le.Uint32(b[incompatibleOff:]),
		Generation:        le.Uint64(b[generationOff:]),
		Salt:              le.Uint64(b[saltOff:]),
		HashSeed:          le.Uint64(b[hashSeedOff:]),
		Created:           int64(le.Uint64(b[createdOff:])),
		GenerationCreated: int64(le.Uint64(b[generationCreatedOff:])),
		BaseRevision:      le.Uint64(b[baseRevisionOff:]),
		BaseEnd:           int64(le.Uint64(b[baseEndOff:])),
	}
	copy(h.StoreID[:], b[storeIDOff:])
	return h
}

// checkHeader is the order of the checks of DecodeHeader.
func checkHeader(b []byte) error {
	if len(b) == 0 {
		return ErrEmpty
	}
	if err := checkMagic(b); err != nil {
		return err
	}
	if len(b) < HeaderSize {
		return fmt.Errorf("%w: %d bytes of %d", ErrShort, len(b), HeaderSize)
	}
	return checkImmutable(b)
}

// checkMagic looks at as much of the magic as there is.
func checkMagic(b []byte) error {
	if have := b[:min(len(b), len(magic))]; string(have) != magic[:len(have)] {
		return fmt.Errorf("%w: found %q", ErrMagic, have)
	}
	return nil
}

// checkImmutable checks an immutable part, or its copy, that is there in full.
func checkImmutable(b []byte) error {
	if err := checkMagic(b); err != nil {
		return err
	}
	if v := le.Uint32(b[versionOff:]); v != Version {
		return fmt.Errorf("%w: found %d, known %d", ErrVersion, v, Version)
	}
	if unknown := le.Uint32(b[incompatibleOff:]) &^ knownIncompatible; unknown != 0 {
		return fmt.Errorf("%w: unknown %#x, known %#x", ErrIncompatible, unknown, knownIncompatible)
	}
	if found, want := le.Uint64(b[headerSumOff:]), sum64(b[:headerSumOff]); found != want {
		return fmt.Errorf("%w: found %#016x, computed %#016x", ErrHeaderSum, found, want)
	}
	for i, c := range b[reservedOff:headerSumOff] {
		if c != 0 {
			return fmt.Errorf("%w: %#x at offset %d", ErrReserved, c, reservedOff+i)
		}
	}
	if size := le.Uint32(b[headerSizeOff:]); size != HeaderSize {
		return fmt.Errorf("%w: header size %d, known %d", ErrHeaderField, size, HeaderSize)
	}
	return nil
}
