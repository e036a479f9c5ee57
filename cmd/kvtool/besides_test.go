package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mmapkv/mmapkv/kv"
)

// Goal: the verbs that read a store show all of it, of one moment, while another process
// writes at full speed and compacts over and over.
// Method: a writer that keeps a hundred keys, and compacts after each thousand of puts;
// each verb by turns. What they write must be a store as well.
func TestBesideWriter(t *testing.T) {
	const keys, rounds = 100, 3
	dir := t.TempDir()
	path, ready, copied := filepath.Join(dir, "s.mmkv"), filepath.Join(dir, "ready"), filepath.Join(dir, "s.backup")
	writer := exec.Command("kvstorm", path, ready)
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
