package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

// storeOf returns the path of a new store with these keys.
func storeOf(t *testing.T, keys ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.mmkv")
	s, err := kv.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		err = errors.Join(err, s.Put([]byte(key), []byte("v")))
	}
	if err = errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// Goal: keys are offered in the form that the verb takes, and none that a shell or the
// verb would take for something else. Method: a table of what is typed.
func TestCompleteKeys(t *testing.T) {
	path := storeOf(t, "user/1", "user/2", "other", "-q", "two\nlines", "", "\"quoted", "a b", strings.Repeat("l", 257))
	for _, test := range []struct {
		form  form
		typed string
		want  []string
	}{
		{formText, "", []string{"a b", "other", "user/1", "user/2"}},
		{formText, "us", []string{"user/1", "user/2"}},
		{formText, "user/2", []string{"user/2"}},
		{formText, "x", nil},
		{formHex, "75736572", []string{"757365722f31", "757365722f32"}},
		{formHex, "7", []string{"74776f0a6c696e6573", "757365722f31", "757365722f32"}},
		{formBase64, "dX", []string{"dXNlci8x", "dXNlci8y"}},
	} {
		if got := keysLike(new(cobra.Command), path, &typing{keys: test.form}, test.typed, time.Now().Add(time.Hour)); !slices.Equal(got, test.want) {
			t.Errorf("%s %q: %q, want %q", test.form, test.typed, got, test.want)
		}
	}
}

// Goal: of many keys a hundred are offered, and these have no more in common than all.
// Method: keys of which the first hundred have a longer beginning in common than the rest.
func TestCompleteManyKeys(t *testing.T) {
	var keys []string
	for i := range 2 * completeMost {
		keys = append(keys, fmt.Sprintf("user/a%04d", i))
	}
	path := storeOf(t, append(keys, "user/b", "uzer")...)
	got := keysLike(new(cobra.Command), path, &typing{keys: formText}, "u", time.Now().Add(time.Hour))
	if len(got) != completeMost || commonPrefix(got[0], got[len(got)-1]) != 1 {
		t.Errorf("%d keys, from %q to %q", len(got), got[0], got[len(got)-1])
	}
	if got := keysLike(new(cobra.Command), path, &typing{keys: formText}, "user/", time.Now().Add(-time.Hour)); len(got) > 0 && len(keys) >= 256 {
		t.Errorf("after the time was over: %q", got)
	}
}

// Goal: what is no store, or never opens, is no error and takes no longer than it may.
// Method: the verb that the shells call, on such a path each.
func TestCompleteNothing(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("no store"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "none"), text, dir} {
		out, err := exec.Command("kvtool", "__complete", "get", path, "").Output()
		if err != nil || string(out) != ":4\n" {
			t.Errorf("%s: %q, %v", path, out, err)
		}
	}
}
