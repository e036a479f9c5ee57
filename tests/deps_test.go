package tests

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/mmapkv/mmapkv"

// allowed is the direction of dependencies: what a package of the module may
// import beside the standard library. Test files may import what the package's
// own may, and what is listed behind "test:".
var allowed = map[string]string{
	"internal/faults":       "",
	"internal/invariants":   "",
	"internal/loopfs":       "",
	"internal/prefetch":     "",
	"internal/spacemap":     "kv crc test: kv/kvtest", // above kv, unlike the rest: for what draws a store
	"mmapfile":              "internal/* golang.org/x/sys/unix unsafe test: internal/*",
	"crc":                   "internal/* github.com/cespare/xxhash/v2 test: codec codec/entrypb google.golang.org/protobuf/*", // FORMAT.md is tested there
	"codec":                 "internal/* google.golang.org/protobuf/encoding/protowire google.golang.org/protobuf/proto test: codec codec/entrypb google.golang.org/protobuf/*",
	"codec/entrypb":         "google.golang.org/protobuf/* unsafe", // generated, for tests alone
	"kv":                    "codec crc mmapfile internal/* github.com/cespare/xxhash/v2 test: kv golang.org/x/sys/unix google.golang.org/protobuf/*",
	"kv/examples/jobs":      "kv codec",
	"kv/examples/sessions":  "kv codec",
	"kv/examples/wordcount": "kv codec",
	"kv/kvexpvar":           "kv test: kv/kvtest",
	"kv/kvhttp":             "kv internal/spacemap test: kv/kvtest",
	"kv/kvotel":             "kv go.opentelemetry.io/otel go.opentelemetry.io/otel/attribute go.opentelemetry.io/otel/metric test: kv/kvtest go.opentelemetry.io/otel/sdk/*", // a module of its own
	"kv/kvtest":             "kv internal/faults",
	"tests":                 "test: kv codec crc internal/* github.com/cespare/xxhash/v2",
	// A module of its own. It reads no byte of a store but through kv.
	"cmd/kvtool": "kv codec internal/spacemap google.golang.org/protobuf/* go.etcd.io/bbolt go.etcd.io/bbolt/errors github.com/spf13/cobra github.com/spf13/cobra/doc github.com/schollz/progressbar/v3 " +
		"github.com/dustin/go-humanize golang.org/x/term test: codec/entrypb github.com/rogpeppe/go-internal/* github.com/prometheus/common/*",
	// A module of its own, so that the peers are in nobody's graph.
	"tests/bench": "kv crc golang.org/x/sys/unix go.etcd.io/bbolt github.com/dgraph-io/badger/v4/* github.com/dgraph-io/badger/v4 github.com/cockroachdb/pebble/v2/* " +
		"github.com/cockroachdb/pebble/v2 github.com/tidwall/buntdb github.com/syndtr/goleveldb/* github.com/puzpuzpuz/xsync/v4 modernc.org/sqlite",
	"tests/device":    "test: kv internal/* golang.org/x/sys/unix github.com/hanwen/go-fuse/v2/*", // a module of its own
	"tests/processes": "test: kv golang.org/x/sys/unix github.com/anishathalye/porcupine",         // a module of its own
}

// modules are the folders of the modules that the table is about.
var modules = []string{"..", "../cmd/kvtool", "../kv/kvotel", "bench", "device", "processes"}

// restricted are parts of the standard library that only some packages import.
var restricted = []string{"unsafe", "syscall"}

// mayUseSyscall says who may name the system's own errors and signals.
var mayUseSyscall = []string{"kv", "kv/examples/jobs", "kv/examples/sessions", "kv/examples/wordcount", "mmapfile", "tests", "cmd/kvtool"}

type pkg struct {
	ImportPath, Dir                    string
	Imports, TestImports, XTestImports []string
	Standard                           bool
	Error                              *struct{ Err string }
}

// listPackages lists the module's packages as they build for goos.
func listPackages(t *testing.T, goos string) []pkg {
	t.Helper()
	var all []pkg
	for _, dir := range modules {
		cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Imports,TestImports,XTestImports,Standard,Error", "./...")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH=amd64", "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list in %s: %v", dir, err)
		}
		for dec := json.NewDecoder(bytes.NewReader(out)); ; {
			var p pkg
			if err := dec.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			all = append(all, p)
		}
	}
	return all
}

// permits tells whether list, of module-relative or full paths with a * at the
// end for all below, has path.
func permits(list, path string) bool {
	path = strings.TrimPrefix(path, module+"/")
	return slices.ContainsFunc(strings.Fields(list), func(a string) bool {
		return a == path || strings.HasSuffix(a, "/*") && strings.HasPrefix(path, strings.TrimSuffix(a, "*"))
	})
}

// Goal: packages depend on each other in one direction, so that each can be read
// by itself, and nothing comes in that nobody decided.
// Method: the table above, against what go list finds for each system.
func TestDependencies(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "freebsd"} {
		t.Run(goos, func(t *testing.T) {
			seen := 0
			for _, p := range listPackages(t, goos) {
				name := strings.TrimPrefix(p.ImportPath, module+"/")
				rule, ok := allowed[name]
				if !ok {
					t.Errorf("package %s is not in the table", name)
					continue
				}
				seen++
				source, test, _ := strings.Cut(rule, "test:")
				for _, path := range p.Imports {
					if !fits(source, name, path) {
						t.Errorf("%s imports %s", name, path)
					}
				}
				for _, path := range append(p.TestImports, p.XTestImports...) {
					if !fits(source+" "+name+" "+test, name, path) && !slices.Contains(restricted, path) {
						t.Errorf("tests of %s import %s", name, path)
					}
				}
			}
			if seen != len(allowed) {
				t.Errorf("%d packages of %d in the table are there", seen, len(allowed))
			}
		})
	}
}

// fits tells whether package name may import path, by its list.
func fits(list, name, path string) bool {
	if permits(list, path) {
		return true
	}
	if path == "syscall" {
		return slices.Contains(mayUseSyscall, name)
	}
	return !strings.Contains(strings.SplitN(path, "/", 2)[0], ".") && !slices.Contains(restricted, path)
}

// Goal: the module requires three others, and whoever adds one notices.
// Method: the direct requirements in go.mod.
func TestRequirements(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "go.mod"))
	must(t, err)
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^(?:require)?\s+([\w./-]+) v\S+`).FindAllStringSubmatch(string(b), -1) {
		got = append(got, m[1])
	}
	slices.Sort(got)
	want := []string{"github.com/cespare/xxhash/v2", "golang.org/x/sys", "google.golang.org/protobuf"}
	if !slices.Equal(got, want) {
		t.Errorf("go.mod requires %q, want %q", got, want)
	}
}
