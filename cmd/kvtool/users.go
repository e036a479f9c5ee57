package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/mmapkv/mmapkv/kv"
)

// storeUser is the JSON object of a process that has a store open.
type storeUser struct {
	PID      int       `json:"pid"`
	Name     printable `json:"name"` // of its own choice
	Access   string    `json:"access"`
	Writing  bool      `json:"writing"`
	Replaced bool      `json:"replaced"`
}

// addUsers adds who has the store open, as far as the system tells.
func (i *storeInfo) addUsers(path string) (err error) {
	i.users, i.UsersAll, err = kv.Users(path)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	i.Users = []storeUser{}
	for _, u := range i.users {
		i.Users = append(i.Users, storeUser{u.PID, printable(u.Name), u.Access.String(), u.Writing, u.Replaced})
	}
	return err
}

// describe is a user for a person. Its name stands in quotes, so that none passes
// for what this tool says.
func describe(u kv.User) string {
	text := fmt.Sprintf("process %d", u.PID)
	if u.Name != "" {
		text += fmt.Sprintf(" %+q", u.Name)
	}
	switch u.Access {
	case kv.AccessExclusive:
		text += " has it open for writing"
	case kv.AccessShared:
		text += " shares it"
		if u.Writing {
			text += ", and writes now"
		}
	default:
		text += " reads"
	}
	if u.Replaced {
		text += " what has been replaced; the space of that is not free yet"
	}
	return text
}

// printUsers prints a line for each of them.
func (i *storeInfo) printUsers(w *bufio.Writer) {
	name := "users"
	line := func(text string) {
		fmt.Fprintf(w, "%-12s %s\n", name, text)
		name = ""
	}
	for _, u := range i.users {
		line(describe(u))
	}
	switch {
	case i.Users == nil:
		line("not told by this system")
	case !i.UsersAll:
		line("no more, as far as this user may see")
	case len(i.users) == 0:
		line("none")
	}
}

// holder says who has the write lock, by what the header notes and who has the store
// open.
func (i *storeInfo) holder() string {
	noted := fmt.Sprintf("process %d", i.LastHolder)
	at := slices.IndexFunc(i.users, func(u kv.User) bool { return u.PID == i.Holder })
	shared := slices.ContainsFunc(i.users, func(u kv.User) bool { return u.Access == kv.AccessShared })
	switch {
	case i.LastHolder == 0:
		return "none"
	case shared && (at < 0 || !i.users[at].Writing):
		return "none at this moment; " + noted + " was the last"
	case i.Holder == 0 && i.ThisBoot:
		return "none; " + noted + " ended without closing the store"
	case i.Holder == 0:
		return "none; " + noted + " had the store open when the machine stopped"
	case at < 0 && i.UsersAll:
		return noted + ", says the header; here none of that number has the store open"
	}
	return noted
}

// inUseError tells that a process has a store open. It matches kv.ErrLocked.
type inUseError struct {
	path string
	by   string
}

func (e *inUseError) Error() string        { return e.path + " is in use: " + e.by }
func (e *inUseError) Is(target error) bool { return target == kv.ErrLocked }

// refuseUsed returns an *inUseError if another process has the file at path open with
// at least that access, as far as the system tells.
func refuseUsed(path string, least kv.Access) error {
	users, _, err := kv.Users(path)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		// The header tells of a writer alone; what has none has no writer either.
		if header, err := kv.Inspect(path); err == nil && header.Holder != 0 {
			return &inUseError{path, fmt.Sprintf("process %d has it open for writing", header.Holder)}
		}
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	for _, u := range users {
		if u.PID != os.Getpid() && u.Access >= least {
			return &inUseError{path, describe(u)}
		}
	}
	return err
}
