package tests

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/mmapkv/mmapkv/internal/loopfs"
	"github.com/mmapkv/mmapkv/kv"
)

// Goal: what is no store is refused with its own error, unchanged, and without
// waiting.
// Method: a table of things at the path.
func TestHostilePath(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(path string) error
		want error
	}{
		{"empty file", func(p string) error { return os.WriteFile(p, nil, 0o600) }, kv.ErrFormat},
		{"one byte of the magic", func(p string) error { return os.WriteFile(p, []byte{0x8d}, 0o600) }, nil},
		{"text", func(p string) error { return os.WriteFile(p, []byte("hello, world\n"), 0o600) }, kv.ErrFormat},
		{"long text", func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("hello, world\n"), 9999), 0o600) }, kv.ErrFormat},
		{"png", func(p string) error {
			return os.WriteFile(p, append([]byte("\x89PNG\r\n\x1a\n"), make([]byte, 5000)...), 0o600)
		}, kv.ErrFormat},
		{"zeros", func(p string) error { return os.WriteFile(p, make([]byte, 40000), 0o600) }, kv.ErrFormat},
		{"huge hole", func(p string) error {
			return errors.Join(os.WriteFile(p, nil, 0o600), os.Truncate(p, 3<<40))
		}, kv.ErrFormat},
		{"directory", func(p string) error { return os.Mkdir(p, 0o700) }, kv.ErrFormat},
		{"fifo", func(p string) error { return syscall.Mkfifo(p, 0o600) }, kv.ErrFormat},
		{"socket", func(p string) error { return syscall.Mknod(p, syscall.S_IFSOCK|0o600, 0) }, kv.ErrFormat},
		{"device", func(p string) error { return os.Symlink("/dev/zero", p) }, kv.ErrFormat},
		{"dangling link", func(p string) error { return os.Symlink(p+".nowhere", p) }, fs.ErrNotExist},
		{"link to itself", func(p string) error { return os.Symlink(p, p) }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := storePath(t)
			if err := tc.make(path); err != nil {
				t.Skipf("SKIPPED: %v", err)
			}
			fi, err := os.Stat(path)
			regular := err == nil && fi.Mode().IsRegular() && fi.Size() < 1<<20
			var before, after []byte
			if regular {
				before, _ = os.ReadFile(path)
			}
			for _, opts := range []kv.Options{{}, {ReadOnly: true}, {Salvage: true}} {
				s, err := kv.Open(path, &opts)
				if err == nil {
					s.Close()
					t.Fatalf("%+v: opened", opts)
				}
				var e *kv.Error
				if tc.want != nil && !errors.Is(err, tc.want) || !errors.As(err, &e) {
					t.Errorf("%v, want %v", err, tc.want)
				}
			}
			if regular {
				if after, _ = os.ReadFile(path); !bytes.Equal(before, after) {
					t.Error("changed")
				}
			}
			if left := filesAt(path + "*"); len(left) != 1 {
				t.Errorf("there are now %v", left)
			}
		})
	}
}

// Goal: a store behind a symbolic link is used through it, and a compaction
// leaves the link a link.
// Method: open, compact, clear, reopen through the link and beside it.
func TestSymlink(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "real"), 0o700))
	path, link := filepath.Join(dir, "real", "store"), filepath.Join(dir, "link")
	s := open(t, path, nil)
	must(t, s.Put([]byte("k"), []byte("v")))
	must(t, s.Close())
	must(t, os.Symlink(filepath.Join("real", "store"), link))
	s = open(t, link, nil)
	if want, _ := filepath.EvalSymlinks(path); s.Path() != want {
		t.Errorf("Path is %s", s.Path())
	}
	_, err := s.Compact(t.Context())
	must(t, err)
	must(t, s.Put([]byte("l"), []byte("w")))
	must(t, s.Clear())
	must(t, s.Put([]byte("k"), []byte("x")))
	_, err = kv.Open(path, nil)
	wantErr(t, err, kv.ErrLocked)
	must(t, s.Close())
	if fi, err := os.Lstat(link); err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is no link: %v %v", fi, err)
	}
	s = open(t, path, nil)
	wantContents(t, s, map[string]string{"k": "x"})
}

// Goal: paths that cannot be are refused with the system's own error.
// Method: a table.
func TestPaths(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct {
		name, path string
		opts       kv.Options
		want       error // nil: opens
	}{
		{"missing directory", filepath.Join(dir, "no", "store"), kv.Options{}, fs.ErrNotExist},
		{"missing, read-only", filepath.Join(dir, "no"), kv.Options{ReadOnly: true}, fs.ErrNotExist},
		{"missing, salvage", filepath.Join(dir, "no"), kv.Options{Salvage: true}, fs.ErrNotExist},
		{"below a file", filepath.Join(os.Args[0], "store"), kv.Options{}, syscall.ENOTDIR},
		{"name too long", filepath.Join(dir, strings.Repeat("n", 256)), kv.Options{}, syscall.ENAMETOOLONG},
		{"path too long", filepath.Join(dir, strings.Repeat("n/", 3000), "store"), kv.Options{}, syscall.ENAMETOOLONG},
		{"long name", filepath.Join(dir, strings.Repeat("n", 200)), kv.Options{}, nil},
		{"odd name", filepath.Join(dir, "st\xffore\n*?"), kv.Options{}, nil},
		{"empty", "", kv.Options{}, fs.ErrInvalid},
		{"with a zero byte", filepath.Join(dir, "a\x00b"), kv.Options{}, syscall.EINVAL},
		{"shared and aligned", filepath.Join(dir, "s"), kv.Options{Shared: true, SyncAligned: true}, fs.ErrInvalid},
		{"bad durability", filepath.Join(dir, "s"), kv.Options{Durability: 9}, fs.ErrInvalid},
		{"bad perm", filepath.Join(dir, "s"), kv.Options{Perm: 0o400}, fs.ErrInvalid},
		{"bad size", filepath.Join(dir, "s"), kv.Options{MaxSize: 100}, fs.ErrInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := kv.Open(tc.path, &tc.opts)
			if tc.want != nil {
				wantErr(t, err, tc.want)
				return
			}
			must(t, err)
			must(t, s.Put([]byte("k"), []byte("v")))
			_, err = s.Compact(t.Context())
			must(t, err)
			closeSound(t, s)
		})
	}
}

// Goal: on a file system that cannot be written, reading works, and opening to
// write says why it does not.
// Method: a store on a small file system that is mounted read-only then.
func TestReadOnlyMount(t *testing.T) {
	dir := loopfs.Mount(t, "ext4", 8<<20)
	path := filepath.Join(dir, "store")
	s := open(t, path, nil)
	must(t, s.Put([]byte("k"), []byte("v")))
	must(t, s.Close())
	s = nil
	poll(t, "the garbage collector's unmapping of the closed store", func() bool {
		runtime.GC()
		return exec.Command("mount", "-o", "remount,ro", dir).Run() == nil
	})
	_, err := kv.Open(path, nil)
	wantErr(t, err, syscall.EROFS)
	_, err = kv.Open(path+"2", nil)
	wantErr(t, err, syscall.EROFS)
	r := open(t, path, &kv.Options{ReadOnly: true})
	wantContents(t, r, map[string]string{"k": "v"})
}

func init() {
	roles["unprivileged"] = func(args []string) int { return report(openUnprivileged(args[0])) }
	roles["cramped"] = func(args []string) int { return report(openCramped(args[0])) }
}

// Goal: without permission Open says so; with that to read, reading works.
// Method: a child of another user.
func TestPermissionDenied(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root to become somebody else")
	}
	dir, err := os.MkdirTemp("", "mmapkv-perm")
	must(t, err)
	defer os.RemoveAll(dir)
	must(t, os.Chmod(dir, 0o755))
	for name, perm := range map[string]fs.FileMode{"secret": 0o600, "readable": 0o644} {
		s := open(t, filepath.Join(dir, name), &kv.Options{Perm: perm})
		must(t, s.Put([]byte("k"), []byte("v")))
		must(t, s.Close())
	}
	runChild(t, "unprivileged", dir)
}

func openUnprivileged(dir string) error {
	if err := syscall.Setuid(65534); err != nil {
		return err
	}
	for _, tc := range []struct {
		name string
		opts kv.Options
		ok   bool
	}{
		{"secret", kv.Options{}, false}, {"secret", kv.Options{ReadOnly: true}, false},
		{"readable", kv.Options{}, false}, {"readable", kv.Options{ReadOnly: true}, true},
		{"new", kv.Options{}, false},
	} {
		s, err := kv.Open(filepath.Join(dir, tc.name), &tc.opts)
		if tc.ok != (err == nil) || err != nil && !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("%s, %+v: %v", tc.name, tc.opts, err)
		}
		if err == nil {
			if d, err := compare(s, map[string]string{"k": "v"}); d != "" || err != nil {
				return fmt.Errorf("%s %v", d, err)
			}
			s.Close()
		}
	}
	return nil
}

// Goal: a process with little address space gets an error, or works.
// Method: a child that lowers its limit step by step and opens, writes, closes.
func TestAddressSpace(t *testing.T) {
	if raceDetector {
		t.Skip("SKIPPED: the race detector's own threads abort the process where address space runs out")
	}
	if runtime.GOOS != "linux" {
		t.Skip("SKIPPED: needs /proc to know what is mapped")
	}
	path := storePath(t)
	s := open(t, path, nil)
	for i := range 3000 {
		must(t, s.Put(fmt.Append(nil, i), valueOf(5000, i)))
	}
	must(t, s.Close())
	t.Log(runChild(t, "cramped", path))
}

// Goal: a new file has exactly the permission bits asked for, whatever the umask,
// and keeps them, and those that somebody gave it, when it is compacted.
// Method: a table of umasks; the umask is the process's, so no test runs beside.
func TestPerm(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o777} {
		for _, perm := range []fs.FileMode{0, 0o600, 0o640, 0o666, 0o777} {
			path := storePath(t)
			old := syscall.Umask(umask)
			s, err := kv.Open(path, &kv.Options{Perm: perm})
			if err == nil {
				_, err = s.Compact(t.Context())
			}
			syscall.Umask(old)
			must(t, err)
			want := perm
			if perm == 0 {
				want = 0o600
			}
			wantPerm(t, path, want)
			must(t, os.Chmod(path, 0o660))
			_, err = s.Compact(t.Context())
			must(t, err)
			wantPerm(t, path, 0o660)
			must(t, s.Clear())
			wantPerm(t, path, 0o660)
			closeSound(t, s)
		}
	}
}

func wantPerm(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	fi, err := os.Stat(path)
	must(t, err)
	if fi.Mode().Perm() != want {
		t.Errorf("permissions are %v, want %v", fi.Mode().Perm(), want)
	}
}
