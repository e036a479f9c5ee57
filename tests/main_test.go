package tests

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

var (
	seedFlag  = flag.Int64("seed", 0, "replay this seed only; 0: the fixed ones")
	scaleFlag = flag.Int("scale", 1, "multiply the rounds of tests that draw at random")
)

// roleEnv makes the test binary a child of a test instead of running tests: the
// value names an entry of roles.
const roleEnv = "MMAPKV_TEST_ROLE"

// roles are what a child process can be. Its arguments are the command line's;
// what it returns is its exit code.
var roles = map[string]func(args []string) int{}

func TestMain(m *testing.M) {
	if name := os.Getenv(roleEnv); name != "" {
		role, ok := roles[name]
		if !ok {
			fmt.Fprintln(os.Stderr, "no such role:", name)
			os.Exit(2)
		}
		os.Exit(role(os.Args[1:]))
	}
	flag.Parse()
	os.Exit(m.Run())
}

// child is the command that runs role in another process. The race detector
// shall not make it sleep a second before it ends.
func child(role string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), roleEnv+"="+role, "GORACE=atexit_sleep_ms=0")
	return cmd
}

// report ends a child's role: it prints err for the parent.
func report(err error) int {
	if err != nil {
		fmt.Println("FAILED:", err)
		return 1
	}
	return 0
}

// runChild runs role to its end and fails the test with what it printed unless it ends well.
func runChild(t *testing.T, role string, args ...string) string {
	t.Helper()
	out, err := tryChild(t, role, args...)
	if err != nil {
		t.Fatalf("child %s: %v\n%.1200s", role, err, out)
	}
	return out
}

// tryChild runs role within a minute and returns what it printed, and how it ended.
func tryChild(t *testing.T, role string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), roleEnv+"="+role, "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// seeds are those to run: n fixed ones, or the one that -seed names. Under the race detector,
// where each takes some five times as long, they are a third of n.
func seeds(n int) []int64 {
	if *seedFlag != 0 {
		return []int64{*seedFlag}
	}
	if raceDetector {
		n = (n + 2) / 3
	}
	all := make([]int64, n**scaleFlag)
	for i := range all {
		all[i] = int64(i + 1)
	}
	return all
}

// storePath names a store in a directory of the test's own.
func storePath(t testing.TB) string { return filepath.Join(t.TempDir(), "store") }

// open opens the store at path. When the test ends it is verified, if it is
// still open, and closed.
func open(t testing.TB, path string, opts *kv.Options) *kv.Store {
	t.Helper()
	s, err := kv.Open(path, opts)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if _, err := s.Has(nil); !errors.Is(err, kv.ErrClosed) {
			verify(t, s)
		}
		// A test that wants to know what Close says has closed it already.
		s.Close()
	})
	return s
}

// verify fails the test unless the store is sound.
func verify(t testing.TB, s *kv.Store) {
	t.Helper()
	r, err := s.Verify(context.Background())
	if err != nil {
		t.Errorf("verify: %v", err)
	}
	for _, v := range r.Violations {
		t.Errorf("verify: %v", v)
	}
}

// closeSound verifies the store, closes it, and fails the test where either fails.
func closeSound(t testing.TB, s *kv.Store) {
	t.Helper()
	verify(t, s)
	must(t, s.Close())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantErr fails the test unless err is target, wrapped in an *kv.Error.
func wantErr(t testing.TB, err, target error) {
	t.Helper()
	var e *kv.Error
	if !errors.Is(err, target) || target != kv.ErrNotFound && !errors.As(err, &e) {
		t.Fatalf("error is %v, want *kv.Error with %v", err, target)
	}
}

// wantGet fails the test unless key has value.
func wantGet(t testing.TB, s *kv.Store, key, value string) {
	t.Helper()
	got, err := s.Get([]byte(key))
	if err != nil || string(got) != value {
		t.Fatalf("get %.40q: %.40q, %v; want %.40q", key, got, err, value)
	}
}

// contents reads all entries by iteration.
func contents(s *kv.Store) (map[string]string, error) {
	all := make(map[string]string)
	it := s.Iter(nil)
	for k, v := range it.All() {
		if _, twice := all[string(k)]; twice {
			return nil, fmt.Errorf("iteration yields %q twice", k)
		}
		all[string(k)] = string(v)
	}
	return all, it.Err()
}

// differs tells in what got is not want, or returns "".
func differs(got, want map[string]string) string {
	for k, v := range want {
		if w, ok := got[k]; !ok {
			return fmt.Sprintf("key %.40q (%d bytes) is missing", k, len(k))
		} else if v != w {
			return fmt.Sprintf("key %.40q has %.40q (%d bytes), want %.40q (%d bytes)", k, w, len(w), v, len(v))
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			return fmt.Sprintf("key %.40q should not be there", k)
		}
	}
	return ""
}

// wantContents fails the test unless the store has exactly want, by iteration
// and by Get.
func wantContents(t testing.TB, s *kv.Store, want map[string]string) {
	t.Helper()
	if d, err := compare(s, want); err != nil || d != "" {
		t.Fatalf("contents: %s %v", d, err)
	}
}

// compare tells in what the contents of s, by iteration and by Get, differ from
// want.
func compare(s *kv.Store, want map[string]string) (string, error) {
	got, err := contents(s)
	if err != nil {
		return "", err
	}
	if d := differs(got, want); d != "" {
		return d, nil
	}
	for k, v := range want {
		w, err := s.Get([]byte(k))
		if err != nil {
			return "", fmt.Errorf("get %.40q: %w", k, err)
		}
		if string(w) != v {
			return fmt.Sprintf("get %.40q: %.40q, want %.40q", k, w, v), nil
		}
	}
	return "", nil
}

// copyFile copies the bytes of a file to a new one: of a store that is open and
// quiet, the image that a death of its process would leave.
func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, b, 0o600))
}

// indexSuffix is what the name of a checkpoint has behind that of its store.
const indexSuffix = ".mmapkv-index"

// copyCheckpoint is copyFile of the checkpoint of the store at from; where there is
// none, there will be none.
func copyCheckpoint(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from + indexSuffix)
	if err == nil {
		err = os.WriteFile(to+indexSuffix, b, 0o600)
	} else if err = os.Remove(to + indexSuffix); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	must(t, err)
}

// poll waits until ok, at most for what no working machine needs.
func poll(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in 10 s not seen: %s", what)
		}
	}
}

// copyOf returns what WriteTo writes.
func copyOf(s *kv.Store) ([]byte, error) {
	var b bytes.Buffer
	n, err := s.WriteTo(&b)
	if err == nil && n != int64(b.Len()) {
		err = fmt.Errorf("WriteTo says %d bytes and wrote %d", n, b.Len())
	}
	return b.Bytes(), err
}

// filesAt returns the files that match pattern, but for checkpoints, which may lie
// beside any store.
func filesAt(pattern string) []string {
	names, err := filepath.Glob(pattern)
	if err != nil {
		panic(err)
	}
	return slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, indexSuffix) })
}
