//go:build amd64 || arm64

package device

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

var (
	cutsFlag  = flag.Int("cuts", 8, "power cuts for each file system")
	seedFlag  = flag.Uint64("seed", 1, "what the cuts and the work are drawn from")
	imageFlag = flag.String("image", "", "check this image, which a failure kept, with its ledger beside it")
)

const (
	// roleEnv makes the test binary a child of a test instead of running tests: the
	// value names an entry of roles.
	roleEnv = "MMAPKV_TEST_ROLE"
	// apartEnv says that the process has its mounts to itself.
	apartEnv = "MMAPKV_TEST_APART"
)

// roles are what a child process can be. Its arguments are the command line's;
// what it returns is its exit code.
var roles = map[string]func(args []string) int{}

func TestMain(m *testing.M) {
	if name := os.Getenv(roleEnv); name != "" {
		role, ok := roles[name]
		if !ok {
			fmt.Fprintln(os.Stderr, "no such role:", name)
			os.Exit(2)
		}
		os.Exit(role(os.Args[1:]))
	}
	flag.Parse()
	if os.Geteuid() == 0 && os.Getenv(apartEnv) == "" {
		if code, err := runApart(); err == nil {
			os.Exit(code)
		}
		// Where that is not allowed, the tests clean up after themselves.
	}
	os.Exit(m.Run())
}

// runApart runs the tests in a process that has its mounts to itself: whatever
// becomes of it, they go with it, and with them the loop devices.
func runApart() (code int, err error) {
	runtime.LockOSThread() // Pdeathsig is about the thread
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), apartEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// child is the command that runs role in another process. The race detector
// shall not make it sleep a second before it ends.
func child(role string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), roleEnv+"="+role, "GORACE=atexit_sleep_ms=0")
	return cmd
}
