package kvexpvar

import (
	"encoding/json"
	"testing"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/mmapkv/mmapkv/kv/kvtest"
)

// Goal: the variable is of the moment in which it is read, has every figure, and outlives its store.
// Method: read between puts, and after Close.
func TestVar(t *testing.T) {
	s := kvtest.Open(t, nil)
	v := Var(s)
	read := func() (figures map[string]int64) {
		if err := json.Unmarshal([]byte(v.String()), &figures); err != nil {
			t.Fatalf("%v: %s", err, v)
		}
		return figures
	}
	for n := range int64(3) {
		st := s.Stats()
		figures := read()
		for _, f := range st.Figures() {
			if got, ok := figures[f.Name]; !ok || got != f.Value {
				t.Errorf("%s is %d (%v), want %d", f.Name, got, ok, f.Value)
			}
		}
		if len(figures) != len(st.Figures()) || figures["keys"] != n {
			t.Errorf("after %d puts: %v", n, figures)
		}
		if err := s.Put([]byte{byte(n)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	closed, err := kv.OpenMem(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	v = Var(closed)
	if figures := read(); len(figures) != 1 {
		t.Errorf("of a closed store: %v", figures)
	}
}
