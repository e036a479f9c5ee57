//go:build unix

package crc_test

import (
	"errors"
	"syscall"
	"testing"

	"github.com/mmapkv/mmapkv/crc"
)

// Goal: MaxPayload is a limit by itself, not only by the end of the log. Method: a log longer than it, of which only the frame and the end are touched.
func TestMaxPayload(t *testing.T) {
	// Not from the heap, which may clear, and so fill, memory that it has used before.
	size := crc.HeaderSize + crc.RecordSize(crc.MaxPayload) + 8
	log, err := syscall.Mmap(-1, 0, int(size), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Skipf("no %d bytes of address space: %v", size, err)
	}
	defer syscall.Munmap(log)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("Seal of MaxPayload+1 bytes does not panic")
			}
		}()
		crc.Seal(log[crc.HeaderSize:], crc.MaxPayload+1, 0, salt, crc.HeaderSize)
	}()
	for n, want := range map[uint32]error{crc.MaxPayload: nil, crc.MaxPayload + 1: crc.ErrBounds} {
		putWord(log, crc.HeaderSize, n, 0)
		if _, err := crc.Read(log, crc.HeaderSize); !errors.Is(err, want) {
			t.Errorf("length %d: Read: %v, want %v", n, err, want)
		}
		if _, ok := crc.Payload(log, crc.HeaderSize); ok != (want == nil) {
			t.Errorf("length %d: Payload: %v", n, ok)
		}
		if got := crc.Plausible(log, crc.HeaderSize); got != (want == nil) {
			t.Errorf("length %d: Plausible: %v", n, got)
		}
	}
}
