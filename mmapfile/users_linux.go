package mmapfile

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Users returns the processes that have the file at path open, this one too, by
// ascending ids. The path must be absolute and without symbolic links; draft begins
// the names that files have before they are linked to it, for the kernel calls an open
// file by its first name. Users looks at every descriptor of every process, which takes
// some microseconds each; those that come and go meanwhile may be missed.
//
// It sees what the kernel lets this user see: the descriptors of the user's own
// processes, and of others whatever locks the whole file. all tells whether it was
// refused none; processes that /proc does not show, of other containers or for
// hidepid, are never among them. Nor is a process that opened the file by another
// hard link than these. Where /proc is not there, the error matches errors.ErrUnsupported.
func Users(path, draft string) (users []User, all bool, err error) {
	if _, err := os.Stat(path); err != nil {
		return nil, false, err
	}
	processes, err := os.ReadDir("/proc")
	if err == nil {
		_, err = os.Stat("/proc/self")
	}
	if err != nil {
		return nil, false, fmt.Errorf("to find who has a file open without /proc: %w", errors.ErrUnsupported)
	}
	all = true
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue // not a process
		}
		u := User{PID: pid}
		found, err := u.look(path, draft)
		all = all && !errors.Is(err, fs.ErrPermission) // other errors: it has ended
		if found {
			users = append(users, u)
		}
	}
	if !all {
		users = addLocked(users, path)
	}
	for i := range users {
		users[i].Name = programName(users[i].PID)
	}
	slices.SortFunc(users, func(a, b User) int { return cmp.Compare(a.PID, b.PID) })
	return users, all, nil
}

// maxLooks bounds how often look begins anew.
const maxLooks = 8

// look tells whether the process has the file open, or an earlier one of the path. One
// that goes from a file to the next that gets the path, while it is looked at, may have
// neither where it is looked for; so a process that moved is looked at again.
func (u *User) look(path, draft string) (found bool, err error) {
	for range maxLooks {
		var moved bool
		before, _ := os.Stat(path)
		found, moved, err = u.lookOnce(path, draft)
		after, _ := os.Stat(path)
		if found || err != nil || !moved && os.SameFile(before, after) {
			break
		}
	}
	return found, err
}

// errMoving: a descriptor is of a file that may get the path at any moment, or has got it since
// the two were compared.
var errMoving = errors.New("a file that is about to get the path")

// lookOnce is look. moved tells that the process closed a descriptor meanwhile, and may
// have opened another; or that it has a draft open. That the path names the same file as
// before says little: a new file may get the number of one that is gone.
func (u *User) lookOnce(path, draft string) (found, moved bool, err error) {
	process := processDir(u.PID)
	dir, err := os.Open(process + "/fd")
	if err != nil {
		return false, false, err
	}
	defer dir.Close() // at the end: where it lists those of this process, it is one of them
	descriptors, err := dir.ReadDir(-1)
	for _, d := range descriptors {
		has, replaced, err := hasOpen(process+"/fd/"+d.Name(), path, draft)
		moved = moved || err != nil
		if !has {
			continue
		}
		found = true
		u.Replaced = u.Replaced || replaced
		info, _ := os.ReadFile(process + "/fdinfo/" + d.Name())
		for line := range strings.Lines(string(info)) {
			if rest, ok := strings.CutPrefix(line, "lock:"); ok {
				u.note(parseLock(rest))
			}
		}
	}
	return found, moved, err
}

// hasOpen tells whether a descriptor, by its name in /proc, is of the file at path, or
// of one that was there; errMoving if it may be soon.
func hasOpen(descriptor, path, draft string) (has, replaced bool, err error) {
	name, err := os.Readlink(descriptor)
	if err != nil {
		return false, false, err
	}
	// Only a file of such a name is looked at: to ask for more than the name of what
	// lies on a remote file system may take for ever. Another mount may show it in
	// another directory.
	if base := filepath.Base(name); base == filepath.Base(path) || strings.HasPrefix(base, filepath.Base(draft)) {
		open, err := os.Stat(descriptor)
		if err != nil {
			return false, false, err
		}
		if file, err := os.Stat(path); err == nil && os.SameFile(open, file) {
			return true, false, nil
		}
		// It may have been replaced since it told its name.
		if name, err = os.Readlink(descriptor); err != nil {
			return false, false, err
		}
	}
	earlier, gone := strings.CutSuffix(name, " (deleted)")
	switch {
	case earlier != path && !strings.HasPrefix(earlier, draft):
		return false, false, nil
	case !gone:
		return false, false, errMoving
	}
	return true, true, nil
}

// addLocked adds the processes that hold a lock on the whole file, by the kernel's
// list of locks, which shows those of all users. It names the process that took the
// lock, be it the one that holds it now or not; a lock on a part has no name.
func addLocked(users []User, path string) []User {
	var st unix.Stat_t
	locks, err := os.ReadFile("/proc/locks")
	if err != nil || ignoringEINTR(func() error { return unix.Stat(path, &st) }) != nil {
		return users
	}
	locked := lockedFile(&st)
	for line := range strings.Lines(string(locks)) {
		l := parseLock(line)
		known := slices.ContainsFunc(users, func(u User) bool { return u.PID == l.pid })
		if _, err := os.Stat(processDir(l.pid)); l.file != locked || known || err != nil {
			continue
		}
		u := User{PID: l.pid}
		u.note(l)
		users = append(users, u)
	}
	return users
}

// note notes that the process holds a lock.
func (u *User) note(l lockLine) {
	switch l.kind + " " + l.access {
	case "FLOCK WRITE":
		u.Lock = ExclusiveLock
	case "FLOCK READ":
		u.Lock = max(u.Lock, SharedLock)
	case "OFDLCK WRITE":
		if b := l.start - byteLocks; 0 <= b && b <= math.MaxUint8 {
			u.ByteLocks = append(u.ByteLocks, ByteLock(b))
		}
	}
}

func processDir(pid int) string { return "/proc/" + strconv.Itoa(pid) }

func programName(pid int) string {
	name, _ := os.ReadFile(processDir(pid) + "/comm")
	return strings.TrimSuffix(string(name), "\n")
}
