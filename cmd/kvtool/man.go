package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func (t *tool) manVerb() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the man pages of all verbs",
		Long: `Man writes a page of section 1 for kvtool, for each verb and for the exit codes into
a directory, which it makes if it is not there: kvtool.1, kvtool-get.1 and so on. Pages
of these names are replaced. They say what --help says.

The date in them is that of today, or of SOURCE_DATE_EPOCH, for builds that are to be
repeated byte for byte.`,
		Example: `  kvtool man /usr/local/share/man/man1
  kvtool man /tmp/man && man -l /tmp/man/kvtool-get.1`,
		Args: cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return writePages(cmd.Root(), args[0])
		}),
	}
}

// writePages writes the page of cmd and of all below it.
func writePages(cmd *cobra.Command, dir string) error {
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() || c.IsAdditionalHelpTopicCommand() {
			if err := writePages(c, dir); err != nil {
				return err
			}
		}
	}
	page := *cmd // its text is changed
	page.Long = markdown(page.Long)
	page.DisableAutoGenTag = true
	var b bytes.Buffer
	header := &doc.GenManHeader{Section: "1", Source: "kvtool " + toolVersion(), Manual: "mmapkv"}
	if err := doc.GenMan(&page, header, &b); err != nil {
		return err
	}
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
	return os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644)
}

// special are the characters that mean something in Markdown.
var special = regexp.MustCompile("[\\\\`*_<>\\[\\]#|~]")

// markdown makes Markdown, which the pages are made of, of a verb's help: indented lines
// are tables, to be left as they are, and all else is text.
func markdown(long string) string {
	lines := strings.Split(long, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "  ") {
			lines[i] = "    " + line
		} else if !strings.HasPrefix(line, "\t") {
			lines[i] = special.ReplaceAllString(line, `\$0`)
		}
	}
	return strings.Join(lines, "\n")
}
