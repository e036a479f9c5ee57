//go:build linux || darwin || freebsd

package mmapfile

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	children["account"] = accountChild
}

// Goal: a reservation leaves room for others; what is mapped is counted and given
// back; what cannot be had is refused. Method: want more than there is, in a child,
// for other tests' mappings are in this process's account.
func TestAccount(t *testing.T) {
	child, line := startChild(t, "account", t.TempDir())
	if line != "ok" {
		t.Fatal(line)
	}
	must(t, child.Wait())
}

func accountChild(dir string) error {
	f, err := Create(filepath.Join(dir, "f"), 0o600, 3*pageSize)
	if err != nil {
		return err
	}
	start := mapped.Load()
	if n := f.Mapping().span.size.Load(); n != start {
		return fmt.Errorf("%d bytes counted, %d mapped", start, n)
	}
	if err := accountReservations(f); err != nil {
		return err
	}
	if n := mapped.Load(); n != start {
		return fmt.Errorf("%d bytes counted after all is unmapped, want %d", n, start)
	}
	if s, err := mapSpan(f.fd, addressBudget+pageSize, unix.PROT_NONE, unix.MAP_SHARED); s != nil || err != unix.ENOMEM {
		return fmt.Errorf("more than the budget: %v", err)
	}
	_, err = newMapping(f.fd, f.prot(), maxReserveLen+1, maxReserveLen+1)
	if !errors.Is(err, ErrNoAddressSpace) || !errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("more than any file may be: %v", err)
	}
	for _, huge := range []bool{false, true} {
		r, err := NewRegion(1<<18+1, huge)
		if err != nil {
			return err
		}
		if n := mapped.Load() - start; n != pageCeil(8<<18+8) {
			return fmt.Errorf("%d bytes counted for a region, huge pages %v", n, huge)
		}
		runtime.KeepAlive(r)
		r = nil
		for i := 0; mapped.Load() != start; i++ {
			if i == 500 {
				return errors.New("the region stays mapped")
			}
			runtime.GC()
			time.Sleep(10 * time.Millisecond)
		}
	}
	runtime.KeepAlive(f)
	fmt.Println("ok")
	return nil
}

// accountReservations makes many, checks each, and unmaps them.
func accountReservations(f *File) error {
	const need = 3
	var last int64
	for range 100 {
		left := addressBudget/4*3 - mapped.Load()
		s, err := reserve(f.fd, maxReserveLen, need*pageSize)
		if err != nil {
			return err
		}
		defer s.unmap()
		last = s.size.Load()
		if last < 2*need*pageSize || last > max(left/2, 2*need*pageSize) {
			return fmt.Errorf("reserved %d bytes of %d left", last, left)
		}
	}
	if last != 2*need*pageSize || addressBudget-mapped.Load() < addressBudget/8 {
		return fmt.Errorf("the last reservation is %d bytes, %d are left", last, addressBudget-mapped.Load())
	}
	s, err := reserve(f.fd, 0, 9*pageSize)
	if err != nil {
		return err
	}
	defer s.unmap()
	before := mapped.Load()
	for _, c := range []struct{ trim, want int64 }{{10, 9}, {5, 5}, {7, 5}, {0, 1}} { // the first page stays
		s.trim(c.trim * pageSize)
		if n := s.size.Load(); n != c.want*pageSize || before-mapped.Load() != (9-c.want)*pageSize {
			return fmt.Errorf("trimmed to %d pages: %d bytes, %d given back", c.trim, n, before-mapped.Load())
		}
	}
	return nil
}

// Goal: a call that lacks address space is tried once more, after a collection;
// no other is. Method: a call that counts.
func TestReclaiming(t *testing.T) {
	for _, c := range []struct {
		name  string
		errs  []error
		calls int
		want  error
	}{
		{"at once", []error{nil}, 1, nil},
		{"after a collection", []error{unix.ENOMEM, nil}, 2, nil},
		{"never", []error{unix.ENOMEM, unix.ENOMEM}, 2, unix.ENOMEM},
		{"other error", []error{unix.EACCES}, 1, unix.EACCES},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			calls := 0
			err := reclaiming(func() error { calls++; return c.errs[calls-1] })
			runtime.ReadMemStats(&after)
			if err != c.want || calls != c.calls {
				t.Fatalf("%v after %d calls, want %v after %d", err, calls, c.want, c.calls)
			}
			if calls == 2 && after.NumGC == before.NumGC {
				t.Fatal("no collection between the calls")
			}
		})
	}
}
