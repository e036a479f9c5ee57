package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Goal: each figure is there, above zero, beside that of the machine, and nothing is left behind.
// Method: a short run, as an object and as a table.
func TestBench(t *testing.T) {
	dir := t.TempDir()
	out, err := exec.Command("kvtool", "bench", "--keys", "500", "--time", "2ms", "--json", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	var result benchJSON
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range result.Rows {
		names = append(names, r.Name)
		if r.NS <= 0 || r.BesideNS <= 0 && r.Name != "open" {
			t.Errorf("%s: %v ns, beside %v ns", r.Name, r.NS, r.BesideNS)
		}
	}
	if got := strings.Join(names, " "); got != "fill get iterate overwrite durable open" {
		t.Errorf("rows %s", got)
	}
	out, err = exec.Command("kvtool", "bench", "--keys", "1", "--value-size", "8", "--time", "1ns", dir).Output()
	if err != nil || !strings.Contains(string(out), "1 keys of 16 bytes, values of 8 B") {
		t.Errorf("%v, %s", err, out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Goal: an interrupt ends a run at once and in order, and nothing is left behind.
// Method: a signal in the middle of a run that would take minutes.
func TestInterruptedBench(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("kvtool", "bench", "--keys", "1000", "--time", "10m", dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 10000 {
		if found, _ := filepath.Glob(filepath.Join(dir, ".kvtool-bench-*", "bench.mmkv")); len(found) > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitError || stderr.String() != "kvtool: interrupted\n" {
		t.Errorf("exit code %d, stderr %q", code, stderr.String())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Goal: a time has three digits, and the unit that fits.
func TestNanoseconds(t *testing.T) {
	for ns, want := range map[float64]string{0: "0.00 ns", 0.5: "0.50 ns", 12.34: "12.3 ns", 999: "999 ns", 1234: "1.23 µs", 56789: "56.8 µs", 2.5e6: "2.50 ms", 3e9: "3.00 s"} {
		if got := nanoseconds(ns); got != want {
			t.Errorf("%v: %s, want %s", ns, got, want)
		}
	}
}
