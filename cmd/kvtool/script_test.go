package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"
)

// Goal: each verb does, prints and exits as its help says. Method: scripts that
// run the tool as an operator would, in testdata/script.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"code": code, "flip": flip, "cut": cut, "append": appendText, "json": jsonField, "await": await, "columns": columns,
		},
		Setup: func(env *testscript.Env) error {
			// The race detector makes each process wait for a second when it ends.
			env.Setenv("GORACE", "atexit_sleep_ms=10")
			return nil
		},
		RequireUniqueNames: true,
	})
}

// code N PROGRAM ARG... runs a program, which must exit with N.
func code(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// flip FILE WHERE turns over the bits of one byte: the one at @OFFSET, or the first
// of a text that the file holds.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	b := []byte(ts.ReadFile(args[0]))
	at := bytes.Index(b, []byte(args[1]))
	if offset, ok := strings.CutPrefix(args[1], "@"); ok {
		var err error
		at, err = strconv.Atoi(offset)
		ts.Check(err)
	}
	if at < 0 {
		ts.Fatalf("%s does not hold %q", args[0], args[1])
	}
	b[at] ^= 0xff
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

// cut FILE LENGTH truncates a file.
func cut(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), n))
}

// append FILE TEXT puts text behind what a file holds.
func appendText(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(ts.ReadFile(args[0])+args[1]), 0o600))
}

// json FILE PATH WANT looks at one field, a.b.0.c, of a file of one JSON object; the
// field must, with !: must not, be WANT.
func jsonField(ts *testscript.TestScript, neg bool, args []string) {
	var v any
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	d.UseNumber()
	ts.Check(d.Decode(&v))
	if d.More() {
		ts.Fatalf("%s holds more than an object", args[0])
	}
	for name := range strings.SplitSeq(args[1], ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[name]
		case []any:
			i, err := strconv.Atoi(name)
			ts.Check(err)
			if i >= len(at) {
				ts.Fatalf("%s: %d elements", args[1], len(at))
			}
			v = at[i]
		default:
			ts.Fatalf("%s: %v is nothing to look into", args[1], v)
		}
	}
	if got := fmt.Sprint(v); (got == args[2]) == neg {
		ts.Fatalf("%s is %s, want %s", args[1], got, args[2])
	}
}

// await FILE waits until a file is there.
func await(ts *testscript.TestScript, neg bool, args []string) {
	for range 1000 {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("%s does not come", args[0])
}

// columns FILE N checks that a file is of ASCII lines of at most N bytes, and that
// one of them is that long.
func columns(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	longest := 0
	for line := range strings.SplitSeq(ts.ReadFile(args[0]), "\n") {
		longest = max(longest, len(line))
		for _, c := range []byte(line) {
			if c >= utf8.RuneSelf || c < ' ' {
				ts.Fatalf("not plain ASCII: %q", line)
			}
		}
	}
	if longest != want {
		ts.Fatalf("the longest line has %d columns, want %d", longest, want)
	}
}
