package kv

import (
	"slices"

	"github.com/mmapkv/mmapkv/mmapfile"
)

// User is a process that has a store open.
type User struct {
	PID    int
	Name   string // of its program: 15 bytes at most, of its own choice, any but NUL; empty: not known
	Access Access
	// Writing: it holds the write lock at this moment. With AccessExclusive it always
	// does; with AccessShared while it is its turn, if this user may see that.
	Writing bool
	// Replaced: it has a generation open that a compaction has replaced, or an earlier
	// store at the path, of which the space on disk is free only once it looks at the
	// store again, or closes it.
	Replaced bool
}

// Access is how a process has a store open.
type Access int

const (
	// AccessRead: it holds no lock. It is a ReadOnly handle, a program that copies the
	// file, or a Shared handle that has not written since the last compaction.
	AccessRead      Access = iota
	AccessShared           // it writes, and lets others write (Options.Shared)
	AccessExclusive        // it writes, and lets nobody else write
)

func (a Access) String() string {
	switch a {
	case AccessShared:
		return "shared"
	case AccessExclusive:
		return "exclusive"
	}
	return "read-only"
}

// Users returns the processes that have the store at path open, this one too, by
// ascending ids, as far as this user may see them: on Linux alone, its own processes,
// and of others those that write. all tells whether no process was withheld; what runs
// in another container is never seen. Who comes or goes meanwhile may be missed. It is
// for messages and tools: it looks at every descriptor of every process, some
// microseconds each. Elsewhere the error matches errors.ErrUnsupported.
func Users(path string) (users []User, all bool, err error) {
	resolved, err := resolve(path)
	if err != nil {
		return nil, false, wrapError("find users", path, 0, err)
	}
	found, all, err := mmapfile.Users(resolved, resolved+newSuffix)
	for _, u := range found {
		access := AccessRead
		switch u.Lock {
		case mmapfile.SharedLock:
			access = AccessShared
		case mmapfile.ExclusiveLock:
			access = AccessExclusive
		}
		users = append(users, User{
			PID: u.PID, Name: u.Name, Access: access, Replaced: u.Replaced,
			Writing: access == AccessExclusive || access == AccessShared && slices.Contains(u.ByteLocks, turnLock),
		})
	}
	return users, all, wrapError("find users", resolved, 0, err)
}
