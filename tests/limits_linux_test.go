package tests

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/mmapkv/mmapkv/kv"
)

func init() {
	roles["without descriptors"] = func(args []string) int { return report(runOutOfDescriptors(args[0])) }
	roles["with short files"] = func(args []string) int { return report(runIntoFileSize(args[0])) }
	roles["without areas"] = func(args []string) int { return report(runOutOfAreas(args[0])) }
}

// Goal: a process without a descriptor to spare gets an error that says so, from
// whatever needs one, and no harm is done: the same works once there is one again.
// Method: a child uses its limit up but for none, one, two ... and opens, compacts,
// clears and follows.
func TestNoDescriptors(t *testing.T) {
	t.Log(runChild(t, "without descriptors", t.TempDir()))
}

func runOutOfDescriptors(dir string) error {
	limit := syscall.Rlimit{Cur: 200, Max: 200}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	path, want := filepath.Join(dir, "store"), map[string]string{}
	s, err := kv.Open(path, nil)
	if err != nil {
		return err
	}
	for i := range 100 {
		k, v := fmt.Sprint(i), string(valueOf(1000, i))
		if err := s.Put([]byte(k), []byte(v)); err != nil {
			return err
		}
		want[k] = v
	}
	for spare := range 5 {
		follower, err := kv.Open(path, &kv.Options{ReadOnly: true})
		if err != nil {
			return err
		}
		if _, err = s.Compact(context.Background()); err != nil { // the follower is to switch
			return err
		}
		release, err := takeDescriptors(spare)
		if err != nil {
			return err
		}
		said := map[string]error{}
		fresh, err := kv.Open(filepath.Join(dir, fmt.Sprint("new ", spare)), nil)
		said["open a new store"] = err
		if err == nil {
			if err := errors.Join(fresh.PutDurable([]byte("k"), []byte("v")), fresh.Close()); err != nil {
				return err
			}
		}
		_, said["open to write"] = kv.Open(path, nil)
		if errors.Is(said["open to write"], kv.ErrLocked) {
			said["open to write"] = nil // there was a descriptor to find that out
		}
		_, said["inspect"] = kv.Inspect(path)
		_, said["follow"] = follower.Has([]byte("1"))
		for i := range 3 { // writes need none, also to grow
			k, v := fmt.Sprint("more ", i), string(valueOf(300_000, spare))
			if err := s.PutDurable([]byte(k), []byte(v)); err != nil {
				return err
			}
			want[k] = v
		}
		_, said["compact"] = s.Compact(context.Background())
		if said["clear"] = s.Clear(); said["clear"] == nil {
			want = map[string]string{}
		}
		text := fmt.Sprintf("%d to spare:", spare)
		failed := 0
		for _, what := range []string{"open a new store", "open to write", "inspect", "follow", "compact", "clear"} {
			var e *kv.Error
			switch err := said[what]; {
			case err == nil:
				continue
			case !errors.As(err, &e) || !errors.Is(err, syscall.EMFILE) || errors.Is(err, kv.ErrPoisoned) || errors.Is(err, kv.ErrFull):
				return fmt.Errorf("%d to spare: %s: %w", spare, what, err)
			}
			failed++
			text += " no " + what + ";"
		}
		fmt.Println(text, failed, "failed")
		if spare == 0 && failed != 6 || spare == 4 && failed != 0 {
			return fmt.Errorf("%d to spare: %d failed", spare, failed)
		}
		if d, err := compare(s, want); d != "" || err != nil {
			return fmt.Errorf("%d to spare: %s %v", spare, d, err)
		}
		release()
		if s.Stats().Poisoned != nil {
			return fmt.Errorf("%d to spare: %w", spare, s.Stats().Poisoned)
		}
		if _, err := s.Compact(context.Background()); err != nil {
			return fmt.Errorf("compact, with descriptors again: %w", err)
		}
		if err := s.PutDurable([]byte("again"), []byte("v")); err != nil {
			return err
		}
		want["again"] = "v"
		if d, err := compare(follower, want); d != "" || err != nil {
			return fmt.Errorf("the follower, with descriptors again: %s %v", d, err)
		}
		if err := follower.Close(); err != nil {
			return err
		}
	}
	return reopened(s, path, want)
}

// takeDescriptors takes all of the process's descriptors but for spare, until
// release is called.
func takeDescriptors(spare int) (release func(), err error) {
	var taken []int
	release = func() {
		for _, fd := range taken {
			syscall.Close(fd)
		}
	}
	for {
		fd, err := syscall.Dup(0)
		if err == syscall.EMFILE {
			break
		}
		if err != nil {
			return release, err
		}
		taken = append(taken, fd)
	}
	for range spare {
		last := len(taken) - 1
		syscall.Close(taken[last])
		taken = taken[:last]
	}
	return release, nil
}

// reopened closes s, and opens the store again, which must have what is wanted and
// nothing beside it.
func reopened(s *kv.Store, path string, want map[string]string) error {
	if err := s.Close(); err != nil {
		return err
	}
	s, err := kv.Open(path, nil)
	if err != nil {
		return err
	}
	if d, err := compare(s, want); d != "" || err != nil {
		return fmt.Errorf("after reopening: %s %v", d, err)
	}
	if r, err := s.Verify(context.Background()); err != nil || len(r.Violations) > 0 {
		return fmt.Errorf("verify: %v, %v", r.Violations, err)
	}
	if left := filesAt(path + ".*"); len(left) > 0 {
		return fmt.Errorf("left behind: %v", left)
	}
	return s.Close()
}

// Goal: a store that comes to the largest size that the process may give a file is
// full, and the process lives: the kernel sends it a signal then. Method: a child
// that lowers the limit opens, fills, compacts and opens again; and then without it.
func TestFileSizeLimit(t *testing.T) {
	t.Log(runChild(t, "with short files", t.TempDir()))
}

func runIntoFileSize(dir string) error {
	limitFiles := func(n uint64) error {
		var limit syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			return err
		}
		limit.Cur = min(n, limit.Max)
		return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit)
	}
	for _, n := range []uint64{0, 1, 100, 4096, 32<<10 - 1, 32 << 10, 32<<10 + 1, 100_000, 1 << 20, 5_000_000} {
		path, want := filepath.Join(dir, fmt.Sprint("store ", n)), map[string]string{}
		if err := limitFiles(n); err != nil {
			return err
		}
		s, err := kv.Open(path, nil)
		if err == nil {
			err = fillLimited(s, int64(n), want)
		} else if !errors.Is(err, kv.ErrFull) || !errors.Is(err, syscall.EFBIG) || n >= 32<<10 {
			return fmt.Errorf("limit %d: open: %w", n, err)
		} else if left := filesAt(path + "*"); len(left) > 0 {
			return fmt.Errorf("limit %d: left behind: %v", n, left)
		} else if err = limitFiles(1 << 62); err == nil {
			s, err = kv.Open(path, nil)
		}
		if err != nil {
			return fmt.Errorf("limit %d: %w", n, err)
		}
		if err := limitFiles(1 << 62); err != nil {
			return err
		}
		for i := range 50 {
			k, v := fmt.Sprint("beyond ", i), string(valueOf(20_000, i))
			if err := s.Put([]byte(k), []byte(v)); err != nil {
				return fmt.Errorf("limit %d, lifted: %w", n, err)
			}
			want[k] = v
		}
		if err := reopened(s, path, want); err != nil {
			return fmt.Errorf("limit %d: %w", n, err)
		}
		// A file that is larger than it may be: what needs no more works.
		if err := limitFiles(n); err != nil {
			return err
		}
		s, err = kv.Open(path, nil)
		if err != nil && (!errors.Is(err, kv.ErrFull) || n > 4096) {
			return fmt.Errorf("limit %d below the file: open: %w", n, err)
		}
		if err == nil {
			if err := s.Put([]byte("large"), make([]byte, 6_000_000)); !errors.Is(err, kv.ErrFull) {
				return fmt.Errorf("limit %d below the file: put: %w", n, err)
			}
			if _, err := s.Compact(context.Background()); err != nil && !errors.Is(err, kv.ErrFull) {
				return fmt.Errorf("limit %d below the file: compact: %w", n, err)
			}
			if d, err := compare(s, want); d != "" || err != nil {
				return fmt.Errorf("limit %d below the file: %s %v", n, d, err)
			}
			if err := s.Close(); err != nil {
				return fmt.Errorf("limit %d below the file: close: %w", n, err)
			}
		}
		if err := limitFiles(1 << 62); err != nil {
			return err
		}
		if s, err = kv.Open(path, nil); err != nil {
			return err
		}
		if err := reopened(s, path, want); err != nil {
			return fmt.Errorf("limit %d: %w", n, err)
		}
		fmt.Printf("limit %d: %d keys\n", n, len(want))
	}
	return nil
}

// fillLimited fills the store up to a limit, notes what is in it, and sees what works
// then.
func fillLimited(s *kv.Store, limit int64, want map[string]string) error {
	for i := 0; ; i++ {
		k, v := fmt.Sprint(i), string(valueOf(3000, i))
		err := s.Put([]byte(k), []byte(v))
		if errors.Is(err, kv.ErrFull) && errors.Is(err, syscall.EFBIG) {
			break
		}
		if err != nil {
			return err
		}
		want[k] = v
	}
	stats := s.Stats()
	if stats.FileBytes > limit || limit-stats.Tail > 3200+4096 || stats.Poisoned != nil {
		return fmt.Errorf("full with %d of %d bytes, poisoned: %w", stats.Tail, limit, stats.Poisoned)
	}
	if err := s.Sync(); err != nil {
		return err
	}
	for i := range len(want) / 2 {
		if err := s.Delete(fmt.Append(nil, i)); err != nil && !errors.Is(err, kv.ErrFull) {
			return err
		} else if err == nil {
			delete(want, fmt.Sprint(i))
		}
	}
	if d, err := compare(s, want); d != "" || err != nil {
		return fmt.Errorf("%s %w", d, err)
	}
	if _, err := s.Compact(context.Background()); err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	if err := s.Put([]byte("small"), []byte("v")); err != nil {
		return fmt.Errorf("after the compaction: %w", err)
	}
	want["small"] = "v"
	return nil
}

// Goal: a process that has as many areas of memory as the kernel grants it gets
// ErrFull from what needs one more, and the same works once there are some again.
// Method: a child maps pages until it gets no more, gives back one, two ... of them,
// and opens, writes, compacts. Go's collector needs areas too: 1.26 uses the memory of its queues
// without looking whether it got any (newSpanSPMC), and faults then; and without any for its lists
// of spans it ends the process. Such a child says nothing, and there is another.
func TestNoAreas(t *testing.T) {
	if raceDetector {
		t.Skip("SKIPPED: the race detector's own memory ends the process where no area is left")
	}
	b, err := os.ReadFile("/proc/sys/vm/max_map_count")
	must(t, err)
	var n int
	if _, err := fmt.Sscan(string(b), &n); err != nil || n > 300_000 {
		t.Skipf("SKIPPED: %d areas are too many to use up", n)
	}
	for range 20 {
		out, err := tryChild(t, "without areas", t.TempDir())
		if err != nil && (strings.Contains(out, "SIGSEGV") && strings.Contains(out, "runtime.(*spanQueue)") ||
			strings.Contains(out, "fatal error: runtime: cannot allocate memory") && strings.Contains(out, "runtime.(*spanSet)")) {
			continue
		}
		if err != nil {
			t.Fatalf("%v\n%.1200s", err, out)
		}
		t.Log(out)
		return
	}
	t.Skip("SKIPPED: Go's collector ended each of 20 children")
}

func runOutOfAreas(dir string) error {
	// As for openCramped: the runtime gets its share before, for it ends the process
	// where it gets no memory.
	ballast := make([]byte, 256<<20)
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	runtime.KeepAlive(ballast)
	ballast = nil
	runtime.GC()
	path, want := filepath.Join(dir, "store"), map[string]string{}
	s, err := kv.Open(path, nil)
	if err != nil {
		return err
	}
	for i := range 200 {
		k, v := fmt.Sprint(i), string(valueOf(1000, i))
		if err := s.Put([]byte(k), []byte(v)); err != nil {
			return err
		}
		want[k] = v
	}
	if err := s.Close(); err != nil {
		return err
	}
	// Most are taken for good, so that each round takes few.
	if _, err := takeAreas(1000); err != nil {
		return err
	}
	failures := 0
	for _, spare := range []int{0, 1, 2, 3, 4, 5, 6, 8, 12, 20} {
		release, err := takeAreas(spare)
		if err != nil {
			return err
		}
		text, err := writeCramped(path, spare, want)
		release()
		if err != nil {
			return fmt.Errorf("%d areas to spare: %w", spare, err)
		}
		if text != "" {
			failures++
		}
		fmt.Printf("%d to spare: %s\n", spare, text)
		s, err := kv.Open(path, nil)
		if err != nil {
			return fmt.Errorf("with areas again: %w", err)
		}
		if _, err := s.Compact(context.Background()); err != nil {
			return fmt.Errorf("with areas again: %w", err)
		}
		if err := reopened(s, path, want); err != nil {
			return fmt.Errorf("%d areas to spare: %w", spare, err)
		}
	}
	if failures == 0 {
		return errors.New("nothing failed")
	}
	return nil
}

// writeCramped opens the store and writes, as far as that works, and tells what did
// not; an error that is not ErrFull it returns.
func writeCramped(path string, spare int, want map[string]string) (text string, err error) {
	full := func(what string, err error) error {
		if err == nil || !errors.Is(err, kv.ErrFull) || !errors.Is(err, syscall.ENOMEM) || errors.Is(err, kv.ErrPoisoned) {
			return err
		}
		text += what + ": " + err.Error()[strings.LastIndex(err.Error(), ": ")+2:] + "; "
		return nil
	}
	s, err := kv.Open(path, nil)
	if err != nil {
		return text, full("open", err)
	}
	for i := range 30 {
		k, v := fmt.Sprint("spare ", spare, " ", i), string(valueOf(50_000, i))
		if err = s.Put([]byte(k), []byte(v)); err != nil {
			break
		}
		want[k] = v
	}
	if err := full("put", err); err != nil {
		return text, err
	}
	_, err = s.Compact(context.Background())
	if err := full("compact", err); err != nil {
		return text, err
	}
	if d, err := compare(s, want); d != "" || err != nil {
		return text, fmt.Errorf("%s %v", d, err)
	}
	return text, s.Close()
}

// takeAreas takes all areas that the process may have but for spare, until release is
// called.
func takeAreas(spare int) (release func(), err error) {
	var taken [][]byte
	release = func() {
		for _, b := range taken {
			syscall.Munmap(b)
		}
	}
	for prot := syscall.PROT_READ; ; prot ^= syscall.PROT_READ { // neighbours alike would be one area
		b, err := syscall.Mmap(-1, 0, os.Getpagesize(), prot, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err == syscall.ENOMEM {
			break
		}
		if err != nil {
			return release, err
		}
		taken = append(taken, b)
	}
	for range spare {
		last := len(taken) - 1
		if err := syscall.Munmap(taken[last]); err != nil {
			return release, err
		}
		taken = taken[:last]
	}
	return release, nil
}
