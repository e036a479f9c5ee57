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

// Goal: a migration that panics leaves the file to the next who opens it; a read-only handle
// migrates nothing, and has the default. Method: both, and then a migration that works.
func TestValueMigrateOtherwise(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings")
	open := func(readOnly bool, migrate func() (int, bool, error)) (*Value[int], error) {
		return OpenValue(path, &ValueOptions[int]{Options: Options{ReadOnly: readOnly}, Default: 7, Migrate: migrate})
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic did not come through")
			}
		}()
		_, _ = open(false, func() (int, bool, error) { panic("in a migration") })
	}()
	r, err := open(true, func() (int, bool, error) { t.Error("a read-only handle migrates"); return 1, true, nil })
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := r.Load(); err != nil || got != 7 {
		t.Errorf("read-only: %d, %v, want the default", got, err)
	}
	v, err := open(false, func() (int, bool, error) { return 3, true, nil })
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if got, err := v.Load(); err != nil || got != 3 {
		t.Errorf("%d, %v, want what was migrated", got, err)
	}
	failed := errors.New("failed")
	if got, err := v.Update(func(int) (int, error) { return 9, failed }); err != failed || got != 0 {
		t.Errorf("an update that fails: %d, %v", got, err)
	}
}
