package processes

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/mmapkv/mmapkv/kv"
)

var (
	roundsFlag = flag.Int("rounds", 0, "rounds of the tests that draw at random; 0: some")
	seedFlag   = flag.Uint64("seed", 1, "what the first round is drawn from")
	scaleFlag  = flag.Int("scale", 1, "multiply the length of each round")
)

// roleEnv makes the test binary a child of a test instead of running tests: the
// value names an entry of roles.
const roleEnv = "MMAPKV_TEST_ROLE"

// roles are what a child process can be. What it returns is why it failed.
var roles = map[string]func(p *plan) error{}

func TestMain(m *testing.M) {
	if name := os.Getenv(roleEnv); name != "" {
		os.Exit(beChild(name))
	}
	flag.Parse()
	os.Exit(m.Run())
}

// beChild plays a role, and returns the exit code.
func beChild(name string) int {
	role, ok := roles[name]
	p, err := parsePlan(os.Args[1])
	if !ok {
		err = fmt.Errorf("no such role: %q", name)
	}
	if err == nil {
		err = role(p)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAILED:", err)
		return 1
	}
	return 0
}

// rounds are how many to run: what -rounds says, or else n, and a part of it under
// the race detector.
func rounds(n int) int {
	switch {
	case *roundsFlag > 0:
		return *roundsFlag
	case raceDetector || testing.Short():
		return (n + 2) / 3
	}
	return n
}

// storePath names a store in a directory of the test's own.
func storePath(t testing.TB) string { return filepath.Join(t.TempDir(), "store") }

// open opens the store at path, and closes it when the test ends.
func open(t testing.TB, path string, opts *kv.Options) *kv.Store {
	t.Helper()
	s, err := kv.Open(path, opts)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sound returns what is wrong with a store.
func sound(s *kv.Store) error {
	r, err := s.Verify(context.Background())
	for _, v := range r.Violations {
		err = errors.Join(err, fmt.Errorf("verify: %v", v))
	}
	return err
}

// wantGet fails the test unless key has value; "" stands for absent.
func wantGet(t testing.TB, s *kv.Store, key, value string) {
	t.Helper()
	got, err := s.Get([]byte(key))
	if err != nil && (value != "" || err != kv.ErrNotFound) || string(got) != value {
		t.Fatalf("get %q: %.40q, %v; want %.40q", key, got, err, value)
	}
}

// wantLocked fails the test unless err is ErrLocked and names pid.
func wantLocked(t testing.TB, err error, pid int) {
	t.Helper()
	if !errors.Is(err, kv.ErrLocked) || !names(err.Error(), pid) {
		t.Fatalf("error is %v, want ErrLocked that names process %d", err, pid)
	}
}
