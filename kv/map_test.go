package kv

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/internal/invariants"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

func openTestMap[K comparable, V any](t testing.TB) *Map[K, V] {
	t.Helper()
	m, err := OpenMap[K, V](filepath.Join(t.TempDir(), "store"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// Goal: a Map does what a Go map does, and keeps it. Method: random work on both, with the
// store opened again now and then.
func TestMapModel(t *testing.T) {
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 0))
		path := filepath.Join(t.TempDir(), "store")
		m, err := OpenMap[int, string](path, nil)
		if err != nil {
			t.Fatal(err)
		}
		model := map[int]string{}
		for i := range 600 {
			key, value := rng.IntN(12)-6, fmt.Sprint("value ", i)
			was, had := model[key]
			var got string
			var ok bool
			want, wantOK := was, had
			switch op := rng.IntN(12); op {
			case 0, 1:
				err = m.Put(key, value)
				model[key] = value
				want, wantOK = "", false
			case 2:
				err = m.Delete(key)
				delete(model, key)
				want, wantOK = "", false
			case 3:
				got, ok, err = m.LoadOrStore(key, value)
				if !had {
					model[key], want = value, value
				}
			case 4:
				got, ok, err = m.LoadAndDelete(key)
				delete(model, key)
			case 5:
				got, ok, err = m.Swap(key, value)
				model[key] = value
			case 6:
				old := []string{was, "other"}[rng.IntN(2)]
				ok, err = CompareAndSwap(m, key, old, value)
				want, wantOK = "", had && was == old
				if wantOK {
					model[key] = value
				}
			case 7:
				err = m.Update(func(tx *MapTx[int, string]) error {
					if now, err := tx.Get(key); had != (err == nil) || now != was {
						return fmt.Errorf("in a transaction: %q, %v", now, err)
					}
					return errors.Join(tx.Put(key, "first"), tx.Put(key+1, value), tx.Delete(key))
				})
				delete(model, key)
				model[key+1] = value
				want, wantOK = "", false
			case 8:
				got, err = m.GetOr(key, "none")
				if want, wantOK = was, false; !had {
					want = "none"
				}
			case 9:
				if got, err = m.Get(key); err == ErrNotFound {
					err = nil
				} else {
					ok = true
				}
			case 10:
				ok, err = m.Has(key)
				want = ""
			case 11:
				want, wantOK = "", false
				if rng.IntN(20) == 0 {
					err = m.Clear()
					clear(model)
				} else if rng.IntN(4) == 0 {
					if err = m.Close(); err == nil {
						m, err = OpenMap[int, string](path, nil)
					}
				}
			}
			if err != nil || got != want || ok != wantOK {
				t.Fatalf("seed %d, op %d, key %d: %q, %v, %v; want %q, %v", seed, i, key, got, ok, err, want, wantOK)
			}
		}
		all, err := Collect(m)
		n, lenErr := m.Len()
		if err != nil || lenErr != nil || !maps.Equal(all, model) || n != len(model) {
			t.Fatalf("seed %d: %v, %v, length %d, %v; want %v", seed, all, err, n, lenErr, model)
		}
		m.Close()
	}
}

// Goal: maps of one store share nothing, whatever their names and keys, nor do they with what
// OpenMap opens. Method: names that begin alike, and the same keys in each; one is cleared.
func TestMapsAreApart(t *testing.T) {
	s := openTestAt(t, filepath.Join(t.TempDir(), "store"), nil)
	names := []string{"", "a", "ab", "a b", "ä"}
	all := make([]*Map[string, string], len(names))
	for i, name := range names {
		var err error
		if all[i], err = NewMap(s, name, codec.String{}, codec.String{}); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"", "b", "\x00", "b\x00"} {
			if err := all[i].Put(key, name+" has it"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := all[1].Clear(); err != nil {
		t.Fatal(err)
	}
	for i, m := range all {
		got, err := Collect(m)
		if want := 4; err != nil || len(got) != want && i != 1 || len(got) != 0 && i == 1 {
			t.Errorf("map %q has %q, %v", names[i], got, err)
		}
		for key, value := range got {
			if value != names[i]+" has it" {
				t.Errorf("map %q has %q at %q", names[i], value, key)
			}
		}
	}
	for _, name := range []string{"a\x00", "\xff", strings.Repeat("n", MaxNameLen+1)} {
		if _, err := NewMap(s, name, codec.String{}, codec.String{}); err == nil {
			t.Errorf("%q may be a name", name)
		}
	}
}

// Goal: a map is not opened with other codecs than it was written with, and the error names
// both. Method: other values, other keys; a read-only handle, which has nothing to note; types
// without a codec.
func TestMapCodecs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	m, err := OpenMap[string, int](path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Put("k", 1); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	wrong := func(err error, names ...string) {
		t.Helper()
		if !errors.Is(err, ErrCodec) {
			t.Fatalf("%v, want %v", err, ErrCodec)
		}
		for _, name := range names {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("%v does not name %s", err, name)
			}
		}
	}
	_, err = OpenMap[string, string](path, nil)
	wrong(err, "int64", "string")
	_, err = OpenMap[uint16, int](path, &Options{ReadOnly: true})
	wrong(err, "uint16", "string")
	if _, err = OpenMap[string, struct{}](path, nil); err == nil || !strings.Contains(err.Error(), "codec.JSON") {
		t.Errorf("of a struct: %v", err)
	}
	r, err := OpenMap[string, int](path, &Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if v, err := r.Get("k"); err != nil || v != 1 {
		t.Errorf("%d, %v", v, err)
	}
	if _, err := NewMap(r.Store(), "new", codec.String{}, codec.String{}); err != nil {
		t.Errorf("a map that is not there, read-only: %v", err)
	}
}

// Goal: a value that cannot be written changes nothing, nor does one that cannot be read pass
// for another. Method: JSON that has no form, and bytes that are none, put past the map.
func TestMapBadValues(t *testing.T) {
	s := openTestAt(t, filepath.Join(t.TempDir(), "store"), nil)
	m, err := NewMap(s, "m", codec.String{}, codec.JSON[float64]{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Put("k", 1); err != nil {
		t.Fatal(err)
	}
	if err := m.Put("k", math.NaN()); err == nil {
		t.Error("NaN has no JSON, and was put")
	}
	if err := m.Compute("k", func(float64, bool) (float64, Op) { return math.Inf(1), Write }); err == nil {
		t.Error("an infinity has no JSON, and was written")
	}
	if v, err := m.Get("k"); err != nil || v != 1 {
		t.Fatalf("%v, %v, want 1", v, err)
	}
	if err := s.Put([]byte("m\x00bad"), []byte("{")); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Get("bad"); !errors.Is(err, codec.ErrValue) {
		t.Errorf("get: %v", err)
	}
	if _, _, err := m.LoadOrStore("bad", 2); !errors.Is(err, codec.ErrValue) {
		t.Errorf("load: %v", err)
	}
	if _, err := Collect(m); !errors.Is(err, codec.ErrValue) {
		t.Errorf("collect: %v", err)
	}
}

// Goal: Add counts right from many goroutines, and does not overflow. Method: that.
func TestMapAdd(t *testing.T) {
	m := openTestMap[string, int8](t)
	var done sync.WaitGroup
	for range 4 {
		done.Go(func() {
			for range 25 {
				if _, err := Add(m, "k", 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done.Wait()
	if sum, err := Add(m, "k", -1); err != nil || sum != 99 {
		t.Errorf("%d, %v, want 99", sum, err)
	}
	if sum, err := Add(m, "k", 100); !errors.Is(err, ErrTooLarge) || sum != 0 {
		t.Errorf("99 and 100 in an int8: %v", err)
	}
	if _, err := Add(m, "l", -128); err != nil {
		t.Error(err)
	}
	if _, err := Add(m, "l", -1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("-128 and -1 in an int8: %v", err)
	}
}

// Goal: an entry with a deadline is gone after it. Method: a short one.
func TestMapTTL(t *testing.T) {
	m := openTestMap[string, time.Time](t)
	if err := m.PutTTL("k", time.Now(), time.Millisecond); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Millisecond)
	if _, err := m.Get("k"); err != ErrNotFound {
		t.Errorf("after its time: %v", err)
	}
}

// Goal: a Get allocates nothing for types of a fixed size, and the value for strings and bytes.
// Method: counted.
func TestMapAllocs(t *testing.T) {
	if invariants.Enabled {
		t.Skip("this build lends copies")
	}
	allocsOf(t, "int", 0, 7)
	allocsOf(t, "float64", 0, 0.5)
	allocsOf(t, "bool", 0, true)
	allocsOf(t, "time", 0, time.Now())
	allocsOf(t, "string", 1, "a value")
	allocsOf(t, "bytes", 1, []byte("a value"))
}

// Goal: a Get of a protobuf message allocates what decoding takes, and nothing else. Method:
// counted, beside proto.Unmarshal of the same bytes.
func TestMapProtoAllocs(t *testing.T) {
	if invariants.Enabled {
		t.Skip("this build lends copies")
	}
	v, err := structpb.NewStruct(map[string]any{"name": "a", "n": 1})
	if err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	decoding := testing.AllocsPerRun(1000, func() {
		if err := proto.Unmarshal(b, new(structpb.Struct)); err != nil {
			t.Fatal(err)
		}
	})
	get, _ := opsOf(t, "key", v)
	n := testing.AllocsPerRun(1000, func() {
		if err := get(); err != nil {
			t.Fatal(err)
		}
	})
	if n > decoding {
		t.Errorf("a get allocates %v times, decoding %v", n, decoding)
	}
}

func allocsOf[V any](t *testing.T, name string, want float64, v V) {
	t.Helper()
	for kind, m := range map[string]func() (get, put func() error){
		"string": func() (get, put func() error) { return opsOf(t, "key", v) },
		"int":    func() (get, put func() error) { return opsOf(t, 42, v) },
	} {
		get, put := m()
		for _, op := range []struct {
			name string
			do   func() error
			want float64
		}{{"get", get, want}, {"put", put, 0}} {
			n := testing.AllocsPerRun(1000, func() {
				if err := op.do(); err != nil {
					t.Fatal(err)
				}
			})
			if n > op.want {
				t.Errorf("%s of a %s by a %s: %v allocations, want %v", op.name, name, kind, n, op.want)
			}
		}
	}
}

func opsOf[K comparable, V any](t *testing.T, key K, v V) (get, put func() error) {
	m := openTestMap[K, V](t)
	put = func() error { return m.Put(key, v) }
	if err := put(); err != nil {
		t.Fatal(err)
	}
	return func() error { _, err := m.Get(key); return err }, put
}
