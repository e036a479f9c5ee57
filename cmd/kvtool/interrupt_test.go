package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

// Goal: SIGINT ends the tool in order, also while it waits for its input: a line on
// stderr, exit code 1, and a store that is whole. Method: an import from a pipe
// that says nothing; the signal comes once the store is there.
func TestInterrupt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.mmkv")
	cmd := exec.Command("kvtool", "import", "--create", path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitFile(t, path)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitError || !bytes.Contains(stderr.Bytes(), []byte("kvtool: interrupted\n")) {
		t.Errorf("exit code %d, stderr %q", code, stderr.String())
	}
	s, err := kv.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// awaitFile waits until a file is there.
func awaitFile(t *testing.T, path string) {
	t.Helper()
	for range 10000 {
		if _, err := os.Stat(path); err == nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("%s does not come", path)
}

// runInterrupted runs a verb whose context is over already, and which must say so.
func runInterrupted(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	root := (&tool{in: null, out: null, err: null}).root()
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); !errors.Is(err, context.Canceled) || exitCode(err) != exitError {
		t.Errorf("%q: error %v", args, err)
	}
}

// Goal: a repair that is interrupted leaves nothing behind, of a sound store and of a
// damaged one. Method: a context that is over already.
func TestInterruptedRepair(t *testing.T) {
	for _, damaged := range []bool{false, true} {
		dir := t.TempDir()
		path := filepath.Join(dir, "s.mmkv")
		s, err := kv.Open(path, nil)
		if err == nil {
			err = errors.Join(s.Put([]byte("a"), []byte("1")), s.Put([]byte("b"), []byte("a text")), s.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if damaged {
			b[bytes.Index(b, []byte("a text"))] ^= 1
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		runInterrupted(t, "repair", path, "--output", filepath.Join(dir, "new.mmkv"))
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, b) {
			t.Errorf("damaged %v: the store has changed, %v", damaged, err)
		}
		if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
			t.Errorf("damaged %v: left behind: %v, %v", damaged, names, err)
		}
	}
}

// Goal: a compaction that is interrupted leaves the store as it was and nothing
// beside it. Method: a context that is over already.
func TestInterruptedCompaction(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s.mmkv")
	s, err := kv.Open(path, nil)
	if err == nil {
		err = errors.Join(s.Put([]byte("a"), []byte("1")), s.Put([]byte("a"), []byte("2")), s.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	runInterrupted(t, "compact", path)
	if info, err := kv.Inspect(path); err != nil || info.Generation != 1 {
		t.Errorf("generation %d, %v", info.Generation, err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}

// Goal: a backup and a restore that are interrupted leave nothing behind, and what was
// there as it was. Method: a context that is over already.
func TestInterruptedBackup(t *testing.T) {
	dir := t.TempDir()
	path, backup := filepath.Join(dir, "s.mmkv"), filepath.Join(dir, "backup")
	s, err := kv.Open(path, nil)
	if err == nil {
		err = errors.Join(s.Put([]byte("a"), []byte("1")), s.Close(), os.WriteFile(backup, []byte("old"), 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	runInterrupted(t, "backup", path, "--force", backup)
	runInterrupted(t, "backup", path, "-")
	runInterrupted(t, "restore", path, filepath.Join(dir, "new.mmkv"))
	if b, err := os.ReadFile(backup); err != nil || string(b) != "old" {
		t.Errorf("the earlier backup is %q, %v", b, err)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, before) {
		t.Errorf("the store has changed, %v", err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 2 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}
