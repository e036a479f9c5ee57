package kv

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/codec"
)

// Goal: a watch of a map tells of its own entries and changes as Go values, and resumes; what
// does not decode ends it. Method: each kind of change, beside those of another map.
func TestMapWatch(t *testing.T) {
	s := openTest(t, nil)
	m, err := NewMap(s, "a", codec.String{}, codec.Uint32{})
	other, err2 := NewMap(s, "ab", codec.String{}, codec.Uint32{})
	if err := errors.Join(err, err2, m.Put("x", 1), other.Put("x", 2)); err != nil {
		t.Fatal(err)
	}
	before := s.Stats().Revision
	var got []MapEvent[string, uint32]
	for e := range m.Watch(t.Context()) {
		if e.Revision == 0 || e.Missed != 0 || e.Err != nil {
			t.Fatalf("%+v", e)
		}
		e.Revision = 0
		if got = append(got, e); len(got) == 1 {
			err = errors.Join(other.Put("y", 3), m.PutTTL("y", 4, time.Hour), m.Delete("x"), other.Delete("x"))
			if err != nil {
				t.Fatal(err)
			}
		}
		if len(got) == 3 {
			break
		}
	}
	if e := got[1]; time.Until(e.Expiry) < time.Minute || time.Until(e.Expiry) > time.Hour+time.Minute {
		t.Errorf("expires %v", e.Expiry)
	}
	got[1].Expiry = time.Time{}
	want := []MapEvent[string, uint32]{{Key: "x", Value: 1}, {Key: "y", Value: 4}, {Key: "x", Deleted: true}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}

	if err := s.Put(append(m.prefix, "bad"...), []byte("not four bytes")); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for e := range m.WatchFrom(t.Context(), before) {
		keys = append(keys, e.Key)
		err = e.Err
	}
	if !slices.Equal(keys, []string{"y", "x", ""}) || !errors.Is(err, codec.ErrValue) {
		t.Errorf("resumed: %q, %v", keys, err)
	}
}

// Goal: a watch of a value begins with what there is, the default included, and tells of each
// change by whatever handle, and of nothing else in the store. Method: the owner writes, and a
// follower watches.
func TestValueWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings")
	opts := &ValueOptions[settings]{Default: settings{Theme: "light"}}
	v, err := OpenValue(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	defer mustVerify(t, v.m.s)
	follow := *opts
	follow.ReadOnly = true
	f, err := OpenValue(path, &follow)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	set := func(theme string) error {
		_, err := v.Update(func(s settings) (settings, error) { s.Theme = theme; return s, nil })
		return err
	}
	steps := []func() error{
		func() error { return errors.Join(v.m.Put("another key", settings{}), set("dark")) },
		func() error { return set("blue") },
		func() error { return v.m.s.Clear() },
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var got []string
	for s, err := range f.Watch(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, s.Theme); len(got) > len(steps) {
			break
		}
		if err := steps[len(got)-1](); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"light", "dark", "blue", "light"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if err := set("last"); err != nil {
		t.Fatal(err)
	}
	for s, err := range v.Watch(ctx) {
		if s.Theme != "last" || err != nil {
			t.Errorf("a value that is there: %+v, %v", s, err)
		}
		break
	}
}
