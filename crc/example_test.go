package crc_test

import (
	"fmt"

	"github.com/mmapkv/mmapkv/crc"
)

func ExampleHeader() {
	file := make([]byte, crc.HeaderSize)
	crc.EncodeHeader(file, &crc.Header{Generation: 7, Salt: 42, BaseRevision: 1000})
	h, err := crc.DecodeHeader(file)
	fmt.Println(h.Version, h.Generation, err)
	file[24]++ // the generation
	_, err = crc.DecodeHeader(file)
	fmt.Println(err != nil)
	// Output:
	// 1 7 <nil>
	// true
}

func ExampleMark() {
	h := crc.Header{Salt: 42, BaseRevision: 1000}
	file := make([]byte, crc.HeaderSize)
	crc.EncodeHeader(file, &h)
	fmt.Println(crc.DecodeMark(file, &h))
	crc.EncodeMark(file[crc.MarkOff(0):], crc.Mark{Off: 16384, Revision: 1020, Stamp: 1_700_000_000}, h.Salt)
	fmt.Println(crc.DecodeMark(file, &h))
	// Output:
	// {8192 1000 0}
	// {16384 1020 1700000000}
}

func ExampleVerify() {
	const salt, off = 42, crc.HeaderSize
	payload := "payload"
	log := make([]byte, off+crc.RecordSize(len(payload)))
	copy(log[off+crc.FrameSize:], payload)
	crc.Seal(log[off:], len(payload), 0, salt, off)
	rec, err := crc.Verify(log, off, salt)
	fmt.Println(string(rec.Payload), rec.Size, err)
	_, err = crc.Verify(log, off, salt+1)
	fmt.Println(err)
	// Output:
	// payload 24 <nil>
	// record sum mismatch
}
