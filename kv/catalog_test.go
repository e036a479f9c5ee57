package kv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/codec"
)

// signed is a codec of strings that knows its own bytes.
type signed struct{ name string }

func (c signed) Name() string { return c.name }
func (c signed) Append(dst []byte, v string) ([]byte, error) {
	return append(dst, c.name+":"+v...), nil
}
func (c signed) Decode(src []byte) (string, error) {
	v, ok := strings.CutPrefix(string(src), c.name+":")
	if !ok {
		return "", fmt.Errorf("%w: %q was decoded as %s", codec.ErrValue, src, c.name)
	}
	return v, nil
}

func signedMap(t *testing.T, s *Store, by string) *Map[string, string] {
	t.Helper()
	m, err := NewMap(s, "m", codec.String{}, signed{by})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Goal: a map that is open when the store is cleared goes on, and is noted again; and if it was
// opened with other codecs meanwhile, whatever its methods do is ErrCodec, and changes nothing.
// Method: each verb as the first after Clear; then each with other codecs noted.
func TestCatalogCleared(t *testing.T) {
	s := openTestAt(t, filepath.Join(t.TempDir(), "store"), nil)
	m := signedMap(t, s, "old")
	verbs := []struct {
		name   string
		writes bool
		do     func() error
	}{
		{"get", false, func() error { _, err := m.Get("k"); return err }},
		{"has", false, func() error { _, err := m.Has("k"); return err }},
		{"get or", false, func() error { _, err := m.GetOr("k", "o"); return err }},
		{"iterate", false, func() error { _, err := Collect(m); return err }},
		{"len", false, func() error { _, err := m.Len(); return err }},
		{"clear", false, func() error { return m.Clear() }},
		{"get in a transaction", false, func() error {
			return m.Update(func(tx *MapTx[string, string]) error { _, err := tx.Get("k"); return err })
		}},
		{"put", true, func() error { return m.Put("k", "v") }},
		{"put with a deadline", true, func() error { return m.PutTTL("k", "v", time.Hour) }},
		{"delete", true, func() error { return m.Delete("k") }},
		{"load or store", true, func() error { _, _, err := m.LoadOrStore("k", "v"); return err }},
		{"put in a transaction", true, func() error {
			return m.Update(func(tx *MapTx[string, string]) error { return errors.Join(tx.Put("k", "v"), tx.Put("l", "w")) })
		}},
	}
	for _, verb := range verbs {
		if err := s.Clear(); err != nil {
			t.Fatal(err)
		}
		if err := verb.do(); err != nil && err != ErrNotFound {
			t.Errorf("%s after Clear: %v", verb.name, err)
		}
		info, err := s.MapInfo("m")
		if verb.writes && (err != nil || info.Values != "old") || !verb.writes && err != ErrNotFound {
			t.Errorf("%s after Clear: noted %+v, %v", verb.name, info, err)
		}
	}
	for _, verb := range verbs {
		if err := s.Clear(); err != nil {
			t.Fatal(err)
		}
		other := signedMap(t, s, "new")
		if err := other.Put("k", "theirs"); err != nil {
			t.Fatal(err)
		}
		if err := verb.do(); !errors.Is(err, ErrCodec) {
			t.Errorf("%s, with other codecs noted: %v", verb.name, err)
		}
		if all, err := Collect(other); err != nil || len(all) != 1 || all["k"] != "theirs" {
			t.Errorf("%s, with other codecs noted: left %v, %v", verb.name, all, err)
		}
	}
	for e := range m.Watch(t.Context()) {
		if !errors.Is(e.Err, ErrCodec) {
			t.Errorf("watched, with other codecs noted: %+v", e)
		}
	}
}

// Goal: a read-only map that was there before anybody noted it is empty, then as it is noted, and
// with other codecs ErrCodec. Method: two of them beside the writer; a watch.
func TestCatalogLate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	s := openTestAt(t, path, nil)
	r := openTestAt(t, path, &Options{ReadOnly: true})
	right, wrong := signedMap(t, r, "right"), signedMap(t, r, "wrong")
	events := make(chan MapEvent[string, string], 1)
	var watches sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	watches.Go(func() {
		defer close(events)
		for e := range wrong.Watch(ctx) {
			events <- e
		}
	})
	for _, m := range []*Map[string, string]{right, wrong} {
		if _, err := m.Get("k"); err != ErrNotFound {
			t.Errorf("before it is noted: %v", err)
		}
	}
	if err := signedMap(t, s, "right").Put("k", "v"); err != nil {
		t.Fatal(err)
	}
	if v, err := right.Get("k"); err != nil || v != "v" {
		t.Errorf("%q, %v", v, err)
	}
	if v, err := wrong.Get("k"); !errors.Is(err, ErrCodec) {
		t.Errorf("with other codecs: %q, %v", v, err)
	}
	if e := <-events; !errors.Is(e.Err, ErrCodec) {
		t.Errorf("watched with other codecs: %+v", e)
	}
	watches.Wait()
}

// Goal: whatever comes between, no map decodes what another codec has written. Method: goroutines
// that clear the store and open the map with one of two codecs, which know their own bytes; and
// others, a read-only handle's among them, that use and watch what maps they have.
func TestCatalogRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	s := openTestAt(t, path, &Options{Durability: SyncManual, CheckpointBytes: -1})
	r := openTestAt(t, path, &Options{ReadOnly: true})
	allowed := func(what string, err error) {
		if err != nil && err != ErrNotFound && !errors.Is(err, ErrCodec) {
			t.Errorf("%s: %v", what, err)
		}
	}
	use := func(m *Map[string, string], n int) {
		key := fmt.Sprint(n % 3)
		allowed("put", m.Put(key, "v"))
		_, _, err := m.LoadOrStore(key, "v")
		allowed("load or store", err)
		allowed("update", m.Update(func(tx *MapTx[string, string]) error { return tx.Put(key, "v") }))
	}
	read := func(m *Map[string, string], n int) {
		_, err := m.Get(fmt.Sprint(n % 3))
		allowed("get", err)
		_, err = Collect(m)
		allowed("collect", err)
	}
	names := []string{"one", "two"}
	var writers, readers []*Map[string, string]
	for _, name := range names { // each is open as if it had been alone
		readers = append(readers, signedMap(t, r, name))
	}
	for _, name := range names {
		if err := s.Clear(); err != nil {
			t.Fatal(err)
		}
		writers = append(writers, signedMap(t, s, name))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var users, clearers sync.WaitGroup
	for n, m := range append(writers, readers...) {
		users.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if n < len(writers) {
					use(m, i)
				}
				read(m, i)
			}
		})
		users.Go(func() {
			for ctx.Err() == nil {
				for e := range m.Watch(ctx) {
					allowed("watch", e.Err)
				}
			}
		})
	}
	for _, name := range names {
		clearers.Go(func() {
			for range 20 {
				if err := s.Clear(); err != nil {
					t.Error(err)
				}
				if m, err := NewMap(s, "m", codec.String{}, signed{name}); err == nil {
					use(m, 0)
				} else {
					allowed("open", err)
				}
				if _, err := s.Compact(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	clearers.Wait()
	cancel()
	users.Wait()
}

// Goal: a transaction of one store is none of another's map. Method: each method.
func TestCatalogOtherStore(t *testing.T) {
	m := signedMap(t, openTestAt(t, filepath.Join(t.TempDir(), "a"), nil), "c")
	other := openTestAt(t, filepath.Join(t.TempDir(), "b"), nil)
	err := other.Update(func(tx *Tx) error {
		in := m.In(tx)
		_, getErr := in.Get("k")
		_, hasErr := in.Has("k")
		for what, err := range map[string]error{"get": getErr, "has": hasErr, "put": in.Put("k", "v"), "put with a deadline": in.PutTTL("k", "v", time.Hour), "delete": in.Delete("k")} {
			if !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%s: %v", what, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := other.Len(); n != 0 {
		t.Errorf("the other store has %d keys", n)
	}
}
