//go:build amd64 || arm64

package device

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Goal: what is written to the block device comes to the device under it as it is
// issued, and each flush does: no cache holds back, reorders or merges it.
// Method: direct writes, each looked for before the next; a flush; a discard and
// zeros; then what a file system makes of fsync and fdatasync.
func TestDevicePassesThrough(t *testing.T) {
	const size = 16 << 20
	m := newShelf(t).plug(t, newDevice(newImage(size), nil))
	loop, err := attachLoop(m.path)
	if err != nil {
		t.Skipf("SKIPPED: no loop device over FUSE: %v", err)
	}
	defer loop.Close()
	info, err := unix.IoctlLoopGetStatus64(int(loop.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if info.Flags&unix.LO_FLAGS_DIRECT_IO == 0 {
		t.Error("the loop device goes through the page cache")
	}
	direct, err := unix.Open(loop.Name(), unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(direct)
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	for i, off := range []int64{8192, 4096, 1 << 20, 4096, 512, 12288} {
		n := []int{4096, 4096, 4096, 512, 512, 4096}[i]
		page[0] = byte(i + 1)
		if _, err := unix.Pwrite(direct, page[:n], off); err != nil {
			t.Fatal(err)
		}
		m.mu.Lock()
		got := len(m.pending)
		last := m.pending[got-1]
		m.mu.Unlock()
		if got != i+1 || last.off != off || last.n != int64(n) || !bytes.Equal(last.data, page[:n]) {
			t.Fatalf("write %d: the device has %d, the last at %d of %d bytes", i, got, last.off, last.n)
		}
	}
	state := func() (pending, flushes, discards int) {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.pending), m.flushes, m.discards
	}
	_, before, _ := state()
	if err := unix.Fsync(direct); err != nil {
		t.Fatal(err)
	}
	if pending, flushes, _ := state(); flushes != before+1 || pending != 0 {
		t.Errorf("after a sync: %d flushes, %d writes pending", flushes-before, pending)
	}
	for name, request := range map[string]uintptr{"discard": unix.BLKDISCARD, "zeros": unix.BLKZEROOUT} {
		_, _, had := state()
		r := [2]uint64{4096, 8192}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(direct), request, uintptr(unsafe.Pointer(&r))); errno != 0 {
			t.Fatalf("%s: %v", name, errno)
		}
		m.mu.Lock()
		last := m.pending[len(m.pending)-1]
		var old, now [1]byte
		m.medium.read(old[:], 8192)
		m.now.read(now[:], 8192)
		m.mu.Unlock()
		if _, _, has := state(); has != had+1 || last.off != 4096 || last.n != 8192 || last.data != nil || old[0] != 1 || now[0] != 0 {
			t.Errorf("%s: %d requests, the last at %d of %d bytes; the medium has %d, reads %d", name, has-had, last.off, last.n, old[0], now[0])
		}
	}
	for i := range fileSystems {
		k := &fileSystems[i]
		t.Run(k.name, func(t *testing.T) { testSyncsReach(t, k) })
	}
}

// testSyncsReach sees that fsync and fdatasync return when what they are about is on the
// medium.
func testSyncsReach(t *testing.T, k *fileSystem) {
	m := newShelf(t).plug(t, newDevice(k.format(t), k.whole))
	if err := m.mount(k, ""); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(m.dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for round, sync := range []func() error{
		f.Sync,
		f.Sync,
		func() error { return unix.Fdatasync(int(f.Fd())) },
	} {
		pattern := bytes.Repeat([]byte{0xA0 + byte(round), 0x5C, byte(round)}, 3000)
		if _, err := f.WriteAt(pattern, int64(round)*10000); err != nil {
			t.Fatal(err)
		}
		if err := sync(); err != nil {
			t.Fatal(err)
		}
		if !m.onMedium(pattern[:4000]) {
			t.Errorf("round %d: it is not on the medium after it was synced", round)
		}
	}
}

// onMedium tells whether the medium has the bytes somewhere.
func (d *device) onMedium(p []byte) bool {
	d.mu.Lock()
	m := d.medium.clone()
	d.mu.Unlock()
	return m.find(p) >= 0
}
