// Package crc holds the bytes that guard other bytes: the file header, the record frame and the checkpoint. The sum is XXH64 (xxhash), not
// a CRC.
//
// It is for package kv, and for tools that look at a store's bytes. Who wants what is in a store opens it with package kv, which verifies on
// the way: package crc knows no payload, no key and no protocol.
//
// It is pure: it reads and writes slices, does no I/O, starts no goroutine and keeps no state. Every function may be called from any number
// of goroutines; what they share is only the memory that they are given. A reader that is given as many bytes as
// it asks for does not panic, whatever is in them. Only checkpoints, and the details of some errors, are allocated. Integers are little-endian. FORMAT.md is the normative text; its tables and its dump are compared with this
// package by a test.
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
// # Header
//
// A file begins with [HeaderSize] bytes. The immutable part, a [Header], is written once, in two places, by [EncodeHeader]; [DecodeHeader]
// reads it, and [DecodeCopy] its copy where the first was lost. The words behind it change while the store is in use: the tail, which publishes
// records, and two slots for a [Mark], which says how much of the log is durable. [DecodeMark] finds the one that counts.
//
// # Records
//
// [Seal] makes a record of a payload. Its sum covers the length, the flags, the payload, the salt of the file and the offset: a record that
// is copied elsewhere does not verify. [Verify] checks it in full, and is what a scan calls, from record to record, until there is none.
// [Read] and [Payload] check the bounds only, for a record that has been verified before, and [Plausible] looks for the next one after damage.
//
// Stores are plain, not atomic. That is right since a record or a mark is seen by others only after the tail word, which the caller stores
// atomically, and since after a crash nothing is believed without its sum.
//
// # Checkpoint
//
// A [Checkpoint] is a file beside the store with a copy of the index, in segments of slots, each with a sum of its own ([SegmentSum]).
// [DecodeCheckpoint] checks what is before the slots. That it is of this very log the caller sees by [TailSum], and that a segment is whole
// when it reads that. A bad one is [ErrCheckpoint], which is no damage to the store: it costs the time of reading the log. A [CloseMark] in
// it says what the log's file was like when the store was closed.
package crc
