//go:build linux || darwin || freebsd

package mmapfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"hash/maphash"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"
)

// truncate makes the file n pages long behind the mapping's back.
func truncate(t testing.TB, path string, n int64) {
	t.Helper()
	must(t, os.Truncate(path, n*pageSize))
}

// sink keeps what is read from being optimised away.
var sink atomic.Uint64

// accesses are ways to touch the bytes of a page, of which the first cannot be had.
var accesses = map[string]func(b []byte){
	"read a byte":    func(b []byte) { sink.Add(uint64(b[0])) },
	"write a byte":   func(b []byte) { b[0] = 1 },
	"copy from":      func(b []byte) { copy(make([]byte, len(b)), b) },
	"copy to":        func(b []byte) { copy(b, make([]byte, len(b))) },
	"copy few bytes": func(b []byte) { copy(make([]byte, 7), b) },
	"append":         func(b []byte) { sink.Add(uint64(len(append([]byte("x"), b...)))) },
	"convert":        func(b []byte) { sink.Add(uint64(len(strings.Clone(string(b))))) },
	"clear":          func(b []byte) { clear(b) },
	"range": func(b []byte) {
		for _, c := range b {
			sink.Add(uint64(c))
		}
	},
	"bytes.Equal":      func(b []byte) { bytes.Equal(b, make([]byte, len(b))) },
	"bytes.Compare":    func(b []byte) { sink.Add(uint64(bytes.Compare(b, make([]byte, len(b))))) },
	"bytes.IndexByte":  func(b []byte) { sink.Add(uint64(bytes.IndexByte(b, 99))) },
	"bytes.Count":      func(b []byte) { sink.Add(uint64(bytes.Count(b, []byte{99}))) },
	"slices.Reverse":   func(b []byte) { slices.Reverse(b) },
	"read a word":      func(b []byte) { sink.Add(binary.LittleEndian.Uint64(b)) },
	"write a word":     func(b []byte) { binary.LittleEndian.PutUint64(b, 1) },
	"map key":          func(b []byte) { sink.Add(uint64(len(map[string]int{string(b): 1}))) },
	"crc32":            func(b []byte) { sink.Add(uint64(crc32.ChecksumIEEE(b))) },
	"maphash":          func(b []byte) { sink.Add(maphash.Bytes(seed, b)) },
	"atomic load":      func(b []byte) { sink.Add(atomicWord(b).Load()) },
	"atomic store":     func(b []byte) { atomicWord(b).Store(1) },
	"atomic add":       func(b []byte) { atomicWord(b).Add(1) },
	"atomic swap":      func(b []byte) { atomicWord(b).Swap(1) },
	"compare and swap": func(b []byte) { atomicWord(b).CompareAndSwap(0, 1) },
	"atomic or":        func(b []byte) { atomicWord(b).Or(1) },
}

var seed = maphash.MakeSeed()

func atomicWord(b []byte) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&b[0])) }

// guarded runs do under a guard of f.
func guarded(f *File, do func()) (err error) {
	guard := EnterGuard()
	defer guard.Exit(f, &err)
	do()
	return nil
}

// Goal: whatever touches a page that cannot be had becomes an error that names the
// offset, again and again, and the program goes on. Method: every access to pages
// lost by a truncation of somebody else (SIGBUS) and of the File (SIGSEGV).
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name     string
		truncate func(f *File, path string) error
	}{
		{"by others", func(_ *File, path string) error { return os.Truncate(path, 2*pageSize) }},
		{"by the file", func(f *File, _ string) error { return f.Truncate(2 * pageSize) }},
	} {
		for name, access := range accesses {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				f, path := newTestFile(t, 6)
				b := f.Mapping().Bytes()
				fill(b, 0)
				must(t, c.truncate(f, path))
				for page := int64(2); page < 6; page++ {
					lost := b[page*pageSize:][:pageSize]
					err := guarded(f, func() { access(lost) })
					var fault *FaultError
					if !errors.As(err, &fault) {
						t.Fatalf("page %d: %v, want a fault", page, err)
					}
					if fault.Off < page*pageSize || fault.Off >= (page+1)*pageSize {
						t.Fatalf("page %d: fault at %d", page, fault.Off)
					}
				}
				if err := guarded(f, func() { checkFilled(t, b, 2) }); err != nil {
					t.Fatalf("page that is there: %v", err)
				}
			})
		}
	}
}

// Goal: a fault is the file's wherever in its reservations it is. Method: faults
// in each of several mappings, by stores that are not allowed, and after Close.
func TestFaultsOfAllMappings(t *testing.T) {
	reserving(t, 4, 8)
	f, path := newTestFile(t, 4)
	held := []*Mapping{f.Mapping()}
	for _, n := range []int64{10, 30} {
		must(t, f.Grow(n*pageSize))
		held = append(held, f.Mapping())
	}
	reader := openTest(t, path, ReadOnly)
	truncate(t, path, 3)
	runtime.GC() // finds none of them unreachable
	check := func(when string, f *File, m *Mapping, off int64) {
		t.Helper()
		var fault *FaultError
		if err := store(f, m, off); !errors.As(err, &fault) || fault.Off != off {
			t.Errorf("%s: %v, want a fault at %d", when, err, off)
		}
	}
	for i, m := range held {
		if i > 0 && m == held[i-1] {
			t.Fatal("reservation not outgrown")
		}
		check("truncated", f, m, 3*pageSize+5)
	}
	check("store into a read-only mapping", reader, reader.Mapping(), 17)
	must(t, f.Close())
	for _, m := range held {
		check("closed", f, m, 3*pageSize+5)
	}
	runtime.KeepAlive(held)
}

// Goal: what is not a fault of the file goes on, with its value. Method: panics of
// each kind under a guard.
func TestForeignPanics(t *testing.T) {
	f, _ := newTestFile(t, 1)
	other, path := newTestFile(t, 2)
	truncate(t, path, 1)
	lost := other.Mapping().Bytes()[pageSize:]
	myErr := errors.New("mine")
	var nilPointer *[8]byte
	var nilMap map[int]int
	isFault := func(r any) bool {
		_, ok := r.(interface{ Addr() uintptr })
		return ok
	}
	isRuntime := func(r any) bool {
		_, ok := r.(runtime.Error)
		return ok && !isFault(r)
	}
	for _, c := range []struct {
		name string
		file *File
		do   func()
		want func(r any) bool
	}{
		{"string", f, func() { panic("x") }, func(r any) bool { return r == "x" }},
		{"error", f, func() { panic(myErr) }, func(r any) bool { return r == any(myErr) }},
		{"nil pointer", f, func() { nilPointer[3] = 1 }, isRuntime},
		{"nil map", f, func() { nilMap[1] = 1 }, isRuntime},
		{"index", f, func() { _ = f.Mapping().Bytes()[len(lost)+int(pageSize)] }, isRuntime},
		{"fault of another file", f, func() { lost[0] = 1 }, isFault},
		{"fault without a file", nil, func() { lost[0] = 1 }, isFault},
		{"string without a file", nil, func() { panic("x") }, func(r any) bool { return r == "x" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var err error
			defer func() {
				if r := recover(); !c.want(r) || err != nil {
					t.Fatalf("panicked with %v (%T), error %v", r, r, err)
				}
			}()
			err = guarded(c.file, c.do)
			t.Fatalf("did not panic, but returned %v", err)
		})
	}
	// The inner guard passes the fault on to the one that it concerns.
	var fault *FaultError
	err := guarded(other, func() { _ = guarded(f, func() { lost[7] = 1 }) })
	if !errors.As(err, &fault) || fault.Off != pageSize+7 {
		t.Fatalf("nested: %v", err)
	}
}

// Goal: the guard leaves the goroutine as it found it, the error as it was, and a
// Goexit alone.
func TestGuardRestores(t *testing.T) {
	f, path := newTestFile(t, 2)
	lost := f.Mapping().Bytes()[pageSize:]
	truncate(t, path, 1)
	for _, before := range []bool{false, true} {
		old := debug.SetPanicOnFault(before)
		_ = guarded(f, func() {})
		_ = guarded(f, func() { lost[0] = 1 })
		_ = guarded(nil, func() {})
		if got := debug.SetPanicOnFault(old); got != before {
			t.Errorf("setting %v became %v", before, got)
		}
	}
	mine := errors.New("mine")
	if err := func() (err error) {
		guard := EnterGuard()
		defer guard.Exit(f, &err)
		return mine
	}(); err != mine {
		t.Errorf("error became %v", err)
	}
	exited := make(chan bool)
	go func() {
		returned := false
		defer func() { exited <- !returned }()
		_ = guarded(f, runtime.Goexit)
		returned = true
	}()
	if !<-exited {
		t.Error("Goexit was stopped")
	}
}

func TestErrorTexts(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&LockedError{PID: 1234}, "locked by process 1234"},
		{&LockedError{}, "locked by another process"},
		{wordError(4), "mmapfile: no aligned word of the mapping at offset 4"},
		{&FaultError{Off: 4096}, "memory fault in the mapping at file offset 4096"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func BenchmarkGuard(b *testing.B) {
	f, _ := newTestFile(b, 1)
	do := func() {}
	for b.Loop() {
		_ = guarded(f, do)
	}
}

func BenchmarkMappingBytes(b *testing.B) {
	f, _ := newTestFile(b, 1)
	var n int
	for b.Loop() {
		m := f.Mapping()
		n += int(m.Bytes()[64])
		runtime.KeepAlive(m)
	}
	sink.Add(uint64(n))
}
