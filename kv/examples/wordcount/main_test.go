package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

// TestMain is the program itself where a test has started it as such.
func TestMain(m *testing.M) {
	if os.Getenv("RUN_WORDCOUNT") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func wordcount(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "RUN_WORDCOUNT=1")
	return cmd
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Goal: a count that is killed and goes on is the count made in one go. Method: a tree; the
// program killed with SIGKILL in its middle, and run again.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	const files = 800
	for i := range files {
		text := fmt.Sprintf("The quick fox, Wörter, file%s", strings.Repeat(" again", i%7))
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte(text), 0o600))
	}
	whole, err := wordcount("-f", filepath.Join(t.TempDir(), "whole"), dir).Output()
	must(t, err)
	if want := "     800 fox\n"; !bytes.Contains(whole, []byte(want)) {
		t.Fatalf("counted %s", whole)
	}
	for try := range 20 {
		path := filepath.Join(t.TempDir(), fmt.Sprint("killed", try))
		cmd := wordcount("-f", path, dir)
		must(t, cmd.Start())
		for end := time.Now().Add(10 * time.Second); revision(t, path) < 50 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		cmd.Process.Kill()
		if cmd.Wait() == nil {
			continue // it was done already
		}
		resumed, err := wordcount("-f", path, dir).Output()
		must(t, err)
		if !bytes.Equal(resumed, whole) {
			t.Errorf("killed and resumed:\n%sin one go:\n%s", resumed, whole)
		}
		return
	}
	t.Error("the program was never killed in the middle")
}

// revision is how many writes the store at path has had; 0: it is not there yet.
func revision(t *testing.T, path string) uint64 {
	s, err := kv.Open(path, &kv.Options{ReadOnly: true})
	if err != nil {
		return 0
	}
	defer s.Close()
	return s.Stats().Revision
}

// Goal: the store is not counted, nor what it has beside it, where it lies in the tree; and a link
// to the tree is the tree. Method: a tree of so many words that the store has a checkpoint,
// counted twice.
func TestStoreInTree(t *testing.T) {
	dir, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(dir, link))
	var text strings.Builder
	for i := range 30_000 {
		fmt.Fprintf(&text, "word%c%c%c%c ", 'a'+i%26, 'a'+i/26%26, 'a'+i/26/26%26, 'a'+i/26/26/26)
	}
	must(t, os.WriteFile(filepath.Join(dir, "text"), []byte(text.String()), 0o600))
	store := filepath.Join(dir, "words.mmkv")
	first, err := wordcount("-f", store, "-n", "40000", link).Output()
	must(t, err)
	if n := bytes.Count(first, []byte("\n")); n < 30_000 {
		t.Fatalf("%d lines for 30 000 words", n)
	}
	beside, err := filepath.Glob(store + ".mmapkv-*")
	must(t, err)
	if len(beside) == 0 {
		t.Fatal("the store has nothing beside it: the test needs more words")
	}
	again, err := wordcount("-f", store, "-n", "40000", dir).Output()
	must(t, err)
	if !bytes.Equal(again, first) {
		t.Errorf("the second count has %d lines, the first %d", bytes.Count(again, []byte("\n")), bytes.Count(first, []byte("\n")))
	}
}

// Goal: what a user may do wrong is said, with the exit code that the help promises.
func TestWrong(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "words")
	must(t, wordcount("-f", store, dir).Run())
	for _, tc := range []struct {
		code int
		want string
		args []string
	}{
		{2, "Usage:", nil},
		{1, "no such file", []string{"-f", filepath.Join(t.TempDir(), "w"), filepath.Join(dir, "nowhere")}},
		{1, "give another store with -f", []string{"-f", store, t.TempDir()}},
	} {
		out, err := wordcount(tc.args...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != tc.code || !strings.Contains(string(out), tc.want) {
			t.Errorf("%q: %v, %s", tc.args, err, out)
		}
	}
}
