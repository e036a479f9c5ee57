package main

import (
	"bufio"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

func (t *tool) versionVerb() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of the tool, of Go and of the format",
		Long: `Version prints the version of kvtool, that of the Go release which built it, and
that of the format of the stores that it creates.`,
		Args: cobra.NoArgs,
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			version := toolVersion()
			if asJSON {
				return t.printJSON(struct {
					Version string `json:"version"`
					Go      string `json:"go"`
					Format  uint32 `json:"format"`
				}{version, runtime.Version(), kv.FormatVersion})
			}
			return t.print(func(w *bufio.Writer) error {
				fmt.Fprintf(w, "kvtool   %s\ngo       %s %s/%s\nformat   %d\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH, kv.FormatVersion)
				return nil
			})
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

// toolVersion is that of the module, "(devel)" where it was built from a working
// tree.
func toolVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
