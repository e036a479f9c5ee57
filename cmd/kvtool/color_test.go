package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/mmapkv/mmapkv/internal/spacemap"
)

// Goal: colours are for terminals that know them, unless NO_COLOR is set to something; the
// flag has the last word. Method: a table, of what comes out of check in a pipe and of
// what a terminal is given.
func TestColor(t *testing.T) {
	path := storeOf(t, "a")
	for _, test := range []struct {
		flag, env string
		terminal  bool
		want      bool
	}{
		{"auto", "TERM=xterm", false, false},
		{"always", "TERM=dumb NO_COLOR=1", false, true},
		{"never", "TERM=xterm", true, false},
		{"auto", "TERM=xterm", true, true},
		{"auto", "TERM=xterm NO_COLOR=", true, true},
		{"auto", "TERM=xterm NO_COLOR=1", true, false},
		{"auto", "TERM=xterm NO_COLOR=0", true, false},
		{"auto", "TERM=dumb", true, false},
		{"auto", "TERM=", true, false},
	} {
		cmd := exec.Command("kvtool", "check", "--color", test.flag, path)
		if test.terminal {
			if _, err := exec.LookPath("script"); err != nil {
				t.Skip("there is no script(1) to make a terminal")
			}
			cmd = exec.Command("script", "-qec", "kvtool check --color "+test.flag+" "+path, "/dev/null")
		}
		cmd.Env = append(os.Environ(), "NO_COLOR=")
		cmd.Env = append(cmd.Env, strings.Fields(test.env)...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%+v: %v", test, err)
		}
		if got := strings.Contains(string(out), "\x1b[32mok\x1b[0m: 1 records"); got != test.want {
			t.Errorf("%+v: coloured is %v: %q", test, got, out)
		}
	}
}

// Goal: a map in colours is the map without, mark for mark, and each mark has its colour.
// Method: the sequences taken out again.
func TestColoredMap(t *testing.T) {
	m := spacemap.New(1<<12, 64)
	m.Add(0, 512, spacemap.Header)
	m.Add(512, 1024, spacemap.Live)
	m.Add(1536, 512, spacemap.Dead)
	m.Add(2048, 8, spacemap.Damaged)
	draw := func(p palette) string {
		var b strings.Builder
		w := bufio.NewWriter(&b)
		canvas{columns: minColumns, ascii: true, palette: p}.drawMap(w, m, 1<<12)
		w.Flush()
		return b.String()
	}
	plain, colored := draw(false), draw(true)
	if got := regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(colored, ""); got != plain || strings.Contains(plain, "\x1b") {
		t.Errorf("%q is not %q", got, plain)
	}
	for _, want := range []string{"\x1b[2mHHHHHHHH\x1b[0m", "\x1b[32m####", "\x1b[31mxxxx", "\x1b[1;31m!\x1b[0m"} {
		if !strings.Contains(colored, want) {
			t.Errorf("no %q in %q", want, colored)
		}
	}
}

// Goal: the tool's help names no colour that it does not take.
func TestColorFlag(t *testing.T) {
	out, err := exec.Command("kvtool", "check", "--color", "sometimes", filepath.Join(t.TempDir(), "s")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "must be auto, always or never") {
		t.Errorf("%v: %s", err, out)
	}
}
