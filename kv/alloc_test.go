package kv

import (
	"testing"

	"github.com/mmapkv/mmapkv/internal/invariants"
)

// Goal: the hot paths allocate nothing but what they return. Method: count, in a
// build without the copies that check invariants.
func TestAllocations(t *testing.T) {
	if invariants.Enabled {
		t.Skip("this build lends copies")
	}
	s := openTest(t, &Options{Durability: SyncManual})
	key, value := []byte("key"), make([]byte, 100)
	mustPut(t, s, "key", string(value))
	buf := make([]byte, 0, 1000)
	keys := [][]byte{key, []byte("absent")}
	for name, c := range map[string]struct {
		want float64
		call func() error
	}{
		"Put":       {0, func() error { return s.Put(key, value) }},
		"Get":       {1, func() error { _, err := s.Get(key); return err }},
		"GetAppend": {0, func() error { _, err := s.GetAppend(buf, key); return err }},
		"View":      {0, func() error { return s.View(key, func([]byte) error { return nil }) }},
		"Has":       {0, func() error { _, err := s.Has(keys[1]); return err }},
		"GetMany":   {0, func() error { return s.GetMany(keys, func(int, []byte, bool) error { return nil }) }},
	} {
		n := testing.AllocsPerRun(1000, func() {
			if err := c.call(); err != nil {
				t.Fatal(name, err)
			}
		})
		if n != c.want {
			t.Errorf("%s allocates %v times, want %v", name, n, c.want)
		}
	}
}
