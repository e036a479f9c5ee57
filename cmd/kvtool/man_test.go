package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Goal: each verb and topic has a page that says what its help says, and that a formatter
// takes without a warning.
// Method: the pages are read back, as text where groff is there: their sections, each
// flag, and each word of the help.
func TestMan(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	t.Setenv("SOURCE_DATE_EPOCH", "0")
	root := (&tool{in: os.Stdin, out: os.Stdout, err: os.Stderr}).root()
	root.SetArgs([]string{"man", dir})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	pages := 0
	var each func(cmd *cobra.Command)
	each = func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.Name() == "help" {
			return
		}
		pages++
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			return
		}
		page := string(b)
		for _, want := range []string{".TH \"KVTOOL", "Jan 1970", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"} {
			if !strings.Contains(page, want) {
				t.Errorf("%s: no %q", name, want)
			}
		}
		if cmd.Example != "" && !strings.Contains(page, ".SH EXAMPLE") {
			t.Errorf("%s: no example", name)
		}
		text, ok := formatted(t, filepath.Join(dir, name))
		if !ok {
			text = unroff(page)
		}
		for _, flag := range flagName.FindAllString(cmd.NonInheritedFlags().FlagUsages(), -1) {
			if !strings.Contains(text, flag) {
				t.Errorf("%s: no %s", name, flag)
			}
		}
		if have, want := words(text), words(cmd.Long); !strings.Contains(have, want) {
			t.Errorf("%s: the page\n%s\nlacks the help\n%s", name, have, want)
		}
		for _, c := range cmd.Commands() {
			each(c)
		}
	}
	each(root)
	if files, err := os.ReadDir(dir); err != nil || len(files) != pages || pages < 20 {
		t.Errorf("%d pages, %d verbs, %v", len(files), pages, err)
	}
}

// flagName is where the usage of a flag begins.
var flagName = regexp.MustCompile(`(?m)--[a-z-]+`)

// formatted returns a page as text without marks, if groff is there, and reports its
// warnings.
func formatted(t *testing.T, path string) (text string, ok bool) {
	t.Helper()
	if _, err := exec.LookPath("groff"); err != nil {
		return "", false
	}
	cmd := exec.Command("groff", "-man", "-Tascii", "-P-cbou", "-ww", "-rLL=200n", "-rHY=0", path)
	var warnings strings.Builder
	cmd.Stderr = &warnings
	out, err := cmd.Output()
	if err != nil || warnings.Len() > 0 {
		t.Errorf("groff %s: %v %s", filepath.Base(path), err, warnings.String())
	}
	return string(out), true
}

// roffMark is what no word is made of: a request of its own, and the change of a font.
var roffMark = regexp.MustCompile(`(?m)^\.\S+|\\f[BIPR]|\\&`)

// unroff is the text of a page, roughly.
func unroff(page string) string {
	page = roffMark.ReplaceAllString(page, "")
	return strings.NewReplacer(`\-`, "-", `\e`, `\`, `\(aq`, "'", `\(rs`, `\`).Replace(page)
}

// words are those of a text, with one space in between.
func words(text string) string { return strings.Join(strings.Fields(text), " ") }
