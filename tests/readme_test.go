package tests

import (
	"os"
	"strings"
	"testing"
)

// Goal: the program in the README is one that compiles and does what it says.
// Method: it is the body of the package example, which runs as a test, line by
// line.
func TestReadmeProgram(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(readme), "```go\n")
	program, _, ok2 := strings.Cut(rest, "```")
	if !ok || !ok2 {
		t.Fatal("no program in the README")
	}
	source, err := os.ReadFile("../kv/example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok = strings.Cut(string(source), "func Example() {\n")
	body, _, ok2 := strings.Cut(rest, "\t// Output:")
	if !ok || !ok2 {
		t.Fatal("no package example")
	}
	if want := strings.ReplaceAll(strings.TrimPrefix(body, "\t"), "\n\t", "\n"); program != want {
		t.Errorf("README has\n%s\nthe example is\n%s", program, want)
	}
}
