package kv

import (
	"errors"
	"path/filepath"
	"sync"
	"testing"
)

type settings struct {
	Theme string
	Size  int
}

// Goal: a value is the default until it is written, is kept, and is migrated once. Method:
// opened again and again.
func TestValue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings")
	migrations := 0
	open := func(migrated settings, ok bool, migrateErr error) (*Value[settings], error) {
		return OpenValue(path, &ValueOptions[settings]{
			Default: settings{Theme: "light"},
			Migrate: func() (settings, bool, error) { migrations++; return migrated, ok, migrateErr },
		})
	}
	want := func(v *Value[settings], want settings, times int) {
		t.Helper()
		if got, err := v.Load(); err != nil || got != want || migrations != times {
			t.Fatalf("%+v, %v, after %d migrations; want %+v after %d", got, err, migrations, want, times)
		}
	}
	failed := errors.New("failed")
	if _, err := open(settings{}, true, failed); !errors.Is(err, failed) {
		t.Fatalf("a migration that fails: %v", err)
	}
	v, err := open(settings{}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	want(v, settings{Theme: "light"}, 2)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if v, err = open(settings{Theme: "old", Size: 3}, true, nil); err != nil {
		t.Fatal(err)
	}
	want(v, settings{"old", 3}, 3)
	if _, err := v.Update(func(s settings) (settings, error) { s.Size = 9; return s, failed }); err != failed {
		t.Fatalf("an update that fails: %v", err)
	}
	want(v, settings{"old", 3}, 3)
	if got, err := v.Update(func(s settings) (settings, error) { s.Theme = "dark"; return s, nil }); err != nil || got.Theme != "dark" {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if v, err = open(settings{}, true, nil); err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	want(v, settings{"dark", 3}, 3)
}

// Goal: no update is lost. Method: goroutines that count up.
func TestValueUpdates(t *testing.T) {
	v, err := OpenValue[int](filepath.Join(t.TempDir(), "count"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var done sync.WaitGroup
	for range 4 {
		done.Go(func() {
			for range 100 {
				if _, err := v.Update(func(n int) (int, error) { return n + 1, nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done.Wait()
	if n, err := v.Load(); err != nil || n != 400 {
		t.Errorf("%d, %v, want 400", n, err)
	}
}
