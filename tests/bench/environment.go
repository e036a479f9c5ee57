//go:build linux && !386 && !arm

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// environment tells what the figures were measured with and on: no names of hosts,
// no paths.
func environment(dir, command string) []string {
	fs, _, err := fileSystem(dir)
	if err != nil {
		fs = "unknown file system"
	}
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	model := "unknown CPU"
	cpu, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(cpu)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	versions := []string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		of := map[string]string{}
		for _, d := range info.Deps {
			of[d.Path] = d.Version
		}
		for _, a := range adapters {
			if a.module != "" {
				versions = append(versions, a.name+" "+of[a.module])
			}
		}
	}
	return []string{
		fmt.Sprintf("%s, %d cores, %s of memory, %s, Linux %s, %s", model, runtime.NumCPU(),
			bytesOf.format(float64(procLine("/proc/meminfo", "MemTotal")<<10)), fs, unix.ByteSliceToString(uts.Release[:]), runtime.Version()),
		"mmapkv " + commit() + "; " + strings.Join(versions, ", "),
		command + ", " + time.Now().UTC().Format("2006-01-02"),
	}
}

// commit names the source that this program was built from, as the directory that
// it is run in tells.
func commit() string {
	out, err := exec.Command("git", "rev-parse", "--short=10", "HEAD").Output()
	if err != nil {
		return "of an unknown commit"
	}
	name := strings.TrimSpace(string(out))
	if changes, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no").Output(); err != nil || len(changes) > 0 {
		name += " and changes"
	}
	return name
}

// commandLine is how the program was called, without paths.
func commandLine(args []string) string {
	out := []string{"GOWORK=off go run ."}
	for i := 0; i < len(args); i++ {
		name, value, joined := strings.Cut(args[i], "=")
		switch strings.TrimLeft(name, "-") {
		case "dir", "csv", "out":
			if !joined {
				i++
			}
			continue
		}
		if joined && filepath.IsAbs(value) {
			continue
		}
		out = append(out, args[i])
	}
	return strings.Join(out, " ")
}
