package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/mmapkv/mmapkv/kv"
)

// Goal: the verbs that read a store show all of it, of one moment, while another process
// writes at full speed and compacts over and over.
// Method: a writer that keeps a hundred keys, and compacts after each thousand of puts, alone
// or as one of two that share the store; each verb by turns. What they write must be a store as well.
func TestBesideWriter(t *testing.T) {
	t.Run("alone", func(t *testing.T) { besideWriters(t, "kvstorm") })
	t.Run("shared", func(t *testing.T) {
		if runtime.GOOS != "linux" {
			t.Skip("kv.Options.Shared is there on Linux alone")
		}
		besideWriters(t, "kvcrowd", "kvcrowd")
	})
}

func besideWriters(t *testing.T, writers ...string) {
	const keys, rounds = 100, 3
	t.Setenv("GORACE", "atexit_sleep_ms=10") // else the race detector makes each process wait for a second when it ends
	dir := t.TempDir()
	path, copied := filepath.Join(dir, "s.mmkv"), filepath.Join(dir, "s.backup")
	for i, name := range writers {
		ready := filepath.Join(dir, fmt.Sprint("ready", i))
		writer := exec.Command(name, path, ready)
		writer.Stderr = os.Stderr
		if err := writer.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			writer.Process.Signal(os.Interrupt)
			if err := writer.Wait(); err != nil {
				t.Errorf("the writer: %v", err)
			}
		}()
		awaitFile(t, ready)
	}
	generation := func() uint64 {
		info, err := kv.Inspect(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Generation
	}
	first := generation()
	for round := range rounds {
		for _, verb := range []struct {
			args  string
			count string // what the output has
			times int
		}{
			{"get STORE key07", "value ", 1},
			{"scan STORE", "\tvalue ", keys},
			{"export STORE", `"value":"value `, keys},
			{"check STORE", " 100 keys, ", 1},
			{"info --json STORE", `"keys": 100,`, 1},
			{"inspect --json STORE", `"live_records": 100,`, 1},
			{"inspect --json STORE", `"gap_bytes": 0,`, 1},
			{"backup --force STORE COPY", "", 1},
			{"check COPY", " 100 keys, ", 1},
			{"repair STORE --output NEW", "nothing missing", 1},
		} {
			args := strings.Fields(strings.NewReplacer("STORE", path, "COPY", copied, "NEW", filepath.Join(t.TempDir(), "new")).Replace(verb.args))
			var stderr bytes.Buffer
			cmd := exec.Command("kvtool", args...)
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if n := bytes.Count(out, []byte(verb.count)); err != nil || verb.count != "" && n != verb.times {
				t.Fatalf("round %d: %s: %v, %q %d times, want %d; stderr %q", round, verb.args, err, verb.count, n, verb.times, stderr.String())
			}
		}
	}
	if n := generation() - first; n < rounds {
		t.Errorf("the writer compacted %d times meanwhile", n)
	}
}
