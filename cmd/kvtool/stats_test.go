package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Goal: what stats --prom prints is what Prometheus reads: each metric once, with its type
// and help, and the figures of each store under its path, whatever that is.
// Method: the parser of Prometheus itself, on two stores of which one has a hostile name;
// the names against the rules that promtool checks.
func TestProm(t *testing.T) {
	plain := storeOf(t, "a", "b", "c")
	hostile := filepath.Join(filepath.Dir(plain), "a \"quoted\" \\n back\\slash\nline \xff.mmkv")
	if err := os.Link(plain, hostile); err != nil {
		t.Fatal(err)
	}
	out := new(strings.Builder)
	runTool(t, out, "stats", "--prom", plain, hostile, plain)
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(out.String()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	info, err := (&tool{err: os.Stderr}).storeInfo(plain)
	if err != nil {
		t.Fatal(err)
	}
	figures := info.figures()
	if len(families) != len(figures) {
		t.Errorf("%d metrics of %d", len(families), len(figures))
	}
	paths := []string{resolved(t, plain), strings.ToValidUTF8(resolved(t, hostile), "\uFFFD")}
	for _, f := range figures {
		family := families["mmapkv_"+f.Name]
		if family == nil || len(family.Metric) != len(paths) || family.GetHelp() != f.Help {
			t.Errorf("%s: %v", f.Name, family)
			continue
		}
		if counts := family.GetType().String() == "COUNTER"; counts != f.Counter {
			t.Errorf("%s is a %v", f.Name, family.GetType())
		}
		for i, m := range family.Metric {
			if labels := m.GetLabel(); len(labels) != 1 || labels[0].GetName() != "store" || labels[0].GetValue() != paths[i] {
				t.Errorf("%s has the labels %v, want store %q", f.Name, labels, paths[i])
			}
		}
	}
	if m := families["mmapkv_keys"].Metric; m[0].GetGauge().GetValue() != 3 {
		t.Errorf("keys: %v, want 3", m[0])
	}
	if m := families["mmapkv_mutations_total"].Metric; m[0].GetCounter().GetValue() != 3 {
		t.Errorf("mutations: %v, want 3", m[0])
	}
}

// resolved is the path of a store as kv tells it.
func resolved(t *testing.T, path string) string {
	t.Helper()
	info, err := kv.Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Path
}

// runTool runs the tool in this process, which must end well, and adds what it prints.
func runTool(t *testing.T, out *strings.Builder, args ...string) {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "stdout")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root := (&tool{in: os.Stdin, out: f, err: os.Stderr}).root()
	root.SetArgs(args)
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
}
