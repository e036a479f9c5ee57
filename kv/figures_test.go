package kv

import (
	"regexp"
	"strings"
	"testing"
)

// Goal: figures have names that any collector takes, each once, which tell counters from gauges;
// what cannot be told is absent and never 0. Method: those of a store that is open, and closed.
func TestFigures(t *testing.T) {
	s, err := OpenMem(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"1", "2"} {
		if err := s.Put([]byte("a"), []byte(v)); err != nil {
			t.Fatal(err)
		}
	}
	st := s.Stats()
	got := map[string]int64{}
	for _, f := range st.Figures() {
		if !regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`).MatchString(f.Name) || f.Counter != strings.HasSuffix(f.Name, "_total") {
			t.Errorf("%q is no name of a figure with Counter %v", f.Name, f.Counter)
		}
		if _, twice := got[f.Name]; twice || !strings.HasSuffix(f.Help, ".") {
			t.Errorf("%s: twice %v, help %q", f.Name, twice, f.Help)
		}
		got[f.Name] = f.Value
	}
	for name, want := range map[string]int64{"keys": 1, "records": 2, "mutations_total": 2, "file_bytes": st.FileBytes, "slack_bytes": st.FileBytes - st.Tail, "poisoned": 0} {
		if n, ok := got[name]; !ok || n != want {
			t.Errorf("%s is %d (%v), want %d", name, n, ok, want)
		}
	}

	broken := st
	broken.Poisoned, broken.Missing, broken.Revision = ErrPoisoned, []Range{{Off: 1, Len: 2}, {Off: 9, Len: 5}}, 1<<63
	for _, f := range broken.Figures() {
		got[f.Name] = f.Value
	}
	if got["poisoned"] != 1 || got["missing_bytes"] != 7 || got["mutations_total"] != 1<<63-1 {
		t.Errorf("of a broken store: %v", got)
	}

	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	st = s.Stats()
	if fs := st.Figures(); len(fs) != 1 || fs[0].Name != "corruptions_total" {
		t.Errorf("of a closed store: %v", fs)
	}
}
