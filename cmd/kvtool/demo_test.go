package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mmapkv/mmapkv/kv"
)

// stored is a small tree, and a store that holds it as the demo's writer leaves it.
type stored struct {
	*demo
	s *kv.Store
}

func newStored(t *testing.T) *stored {
	t.Helper()
	dir := t.TempDir()
	for i := range 6 {
		name := filepath.Join(dir, fmt.Sprintf("file%d", i))
		if err := os.WriteFile(name, bytes.Repeat([]byte{byte('0' + i)}, i*50_000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := listTree(t.Context(), dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	st := &stored{&demo{t: &tool{quiet: true}, tree: tree, state: make([]fileState, len(tree.files))}, testStore(t)}
	var in, out strings.Builder
	for i := range tree.files {
		fmt.Fprintf(&in, "%q\n", tree.files[i].path)
		st.state[i] = stateStored
	}
	if err := storeFiles(st.s, tree.dir, strings.NewReader(in.String()), &out); err != nil {
		t.Fatal(err)
	}
	if want := strings.ReplaceAll(in.String(), `"file`, ackPut+` "file`); out.String() != want {
		t.Fatalf("acknowledged:\n%s", out.String())
	}
	return st
}

// Goal: the demo finds whatever differs, and names the key. Method: a table of
// what a store might have lost or invented.
func TestDemoFindsDifferences(t *testing.T) {
	for _, test := range []struct {
		name   string
		tamper func(t *testing.T, st *stored) error
		key    string // in the error; "" for none
		want   comparison
	}{
		{"nothing", func(*testing.T, *stored) error { return nil }, "", comparison{equal: 6}},
		{"a key is lost", func(t *testing.T, st *stored) error { return st.s.Delete([]byte("file3")) }, "file3", comparison{}},
		{"a value is cut", func(t *testing.T, st *stored) error { return st.s.Put([]byte("file3"), make([]byte, 10)) }, "file3", comparison{}},
		{"a value has a byte more", func(t *testing.T, st *stored) error { return st.s.Put([]byte("file0"), []byte{0}) }, "file0", comparison{}},
		{"the last byte differs", func(t *testing.T, st *stored) error {
			v, err := st.s.Get([]byte("file4"))
			if err != nil {
				return err
			}
			v[len(v)-1]++
			return st.s.Put([]byte("file4"), v)
		}, "file4", comparison{}},
		{"a deleted key is back", func(t *testing.T, st *stored) error { st.state[2] = stateDeleted; return nil }, "file2", comparison{}},
		{"an old value is back", func(t *testing.T, st *stored) error { st.state[2] = stateOverwritten; return nil }, "file2", comparison{}},
		{"overwritten and deleted", func(t *testing.T, st *stored) error {
			st.state[1], st.state[2] = stateOverwritten, stateDeleted
			v, err := st.s.Get([]byte("file1"))
			return errors.Join(err, st.s.Put([]byte("file1"), append([]byte(overwriteMark), v...)), st.s.Delete([]byte("file2")))
		}, "", comparison{equal: 5, deleted: 1}},
		{"a file changed on disk", func(t *testing.T, st *stored) error {
			return os.WriteFile(st.tree.name(&st.tree.files[5]), []byte("new"), 0o600)
		}, "", comparison{equal: 5, changed: 1}},
		{"a file went away", func(t *testing.T, st *stored) error { return os.Remove(st.tree.name(&st.tree.files[5])) }, "", comparison{equal: 5, changed: 1}},
		{"a file went away, and so did its key", func(t *testing.T, st *stored) error {
			return errors.Join(os.Remove(st.tree.name(&st.tree.files[5])), st.s.Delete([]byte("file5")))
		}, "file5", comparison{}},
		{"what was skipped and what was not spoken of", func(t *testing.T, st *stored) error {
			st.state[0], st.state[1] = stateSkipped, stateUnknown
			return nil
		}, "", comparison{equal: 4, skipped: 1, unknown: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			st := newStored(t)
			if err := test.tamper(t, st); err != nil {
				t.Fatal(err)
			}
			found, err := st.compareAll(t.Context(), st.s)
			switch {
			case test.key == "" && (err != nil || found != test.want):
				t.Errorf("found %+v and %v, want %+v", found, err, test.want)
			case test.key != "" && (!errors.Is(err, errDiffers) || !strings.Contains(err.Error(), `key "`+test.key+`"`)):
				t.Errorf("found %+v and %v, want a difference at %s", found, err, test.key)
			}
		})
	}
}

// Goal: the writer leaves alone what is there with equal contents, replaces what is
// not, and skips what it cannot read.
func TestStoreFile(t *testing.T) {
	st := newStored(t)
	if err := st.s.Put([]byte("file2"), []byte("else")); err != nil {
		t.Fatal(err)
	}
	before := st.s.Stats().Revision
	for _, test := range []struct {
		path, want string
		revisions  uint64 // since before
	}{
		{"file1", ackSame, 0},
		{"file0", ackSame, 0},
		{"file2", ackPut, 1},
		{"nosuchfile", ackSkip, 1},
	} {
		ack, err := storeFile(st.s, test.path, filepath.Join(st.tree.dir, test.path))
		if err != nil || ack != test.want || st.s.Stats().Revision-before != test.revisions {
			t.Errorf("%s: %s, %v, %d revisions later", test.path, ack, err, st.s.Stats().Revision-before)
		}
	}
	if err := os.Remove(filepath.Join(st.tree.dir, "file1")); err != nil {
		t.Fatal(err)
	}
	if ack, err := storeFile(st.s, "file1", filepath.Join(st.tree.dir, "file1")); ack != ackSkip || err != nil {
		t.Errorf("a file that went away: %s, %v", ack, err)
	}
}

// Goal: a tree is its regular files, in order, without what symbolic links name.
func TestListTree(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b", "a/2", "a/1"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700), os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := errors.Join(os.Symlink(dir, filepath.Join(dir, "a", "loop")), os.Symlink(dir, link)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, dir string
		limit     int
		want      string
	}{
		{"all", dir, 0, "[a/1 a/2 b]"},
		{"by way of a link", link, 0, "[a/1 a/2 b]"},
		{"some", dir, 2, "[a/1 a/2]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tree, err := listTree(t.Context(), test.dir, test.limit)
			if err != nil {
				t.Fatal(err)
			}
			var paths []string
			for _, f := range tree.files {
				paths = append(paths, f.path)
			}
			if fmt.Sprint(paths) != test.want || tree.skipped != 0 {
				t.Errorf("files %v, %d skipped, want %s", paths, tree.skipped, test.want)
			}
		})
	}
}
