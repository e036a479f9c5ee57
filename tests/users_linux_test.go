package tests

import (
	"os"
	"testing"

	"github.com/mmapkv/mmapkv/kv"
)

// Goal: who has a store open is told, in which way, and whether what he has is a
// generation of the past; and of a holder that was killed, that it was.
// Method: a writer in another process, and a follower in this one that does not look
// at the store for a while.
func TestUsers(t *testing.T) {
	path := storePath(t)
	w := startServant(t, "obedient", path)
	w.order(t, "put 10")
	f := open(t, path, &kv.Options{ReadOnly: true})
	expect := func(what string, replaced bool) {
		t.Helper()
		users, _, err := kv.Users(path)
		must(t, err)
		modes := make(map[int]kv.User)
		for _, u := range users {
			modes[u.PID] = u
		}
		writer, self := modes[w.cmd.Process.Pid], modes[os.Getpid()]
		if writer.Access != kv.AccessExclusive || !writer.Writing || writer.Replaced || writer.Name == "" {
			t.Errorf("%s the writer is %+v", what, writer)
		}
		if self.PID == 0 || self.Access != kv.AccessRead || self.Writing || self.Replaced != replaced {
			t.Errorf("%s the follower is %+v", what, self)
		}
		if len(users) != 2 {
			t.Errorf("%s %d users, want 2: %+v", what, len(users), users)
		}
	}
	expect("after a write", false)
	w.order(t, "compact")
	expect("after a compaction", true)
	wantGet(t, f, "k", string(valueOf(10, 1)))
	expect("once it has followed", false)

	info, err := kv.Inspect(path)
	if pid := w.cmd.Process.Pid; err != nil || info.Holder != pid || info.LastHolder != pid || !info.ThisBoot {
		t.Errorf("%+v, %v; want holder %d", info, err, pid)
	}
	must(t, w.cmd.Process.Kill())
	w.cmd.Wait()
	info, err = kv.Inspect(path)
	if err != nil || info.Holder != 0 || info.LastHolder != w.cmd.Process.Pid || !info.ThisBoot {
		t.Errorf("%+v, %v; want a dead holder %d", info, err, w.cmd.Process.Pid)
	}
	must(t, f.Close())
	if users, _, err := kv.Users(path); err != nil || len(users) != 0 {
		t.Errorf("users of a store that nobody has open: %+v, %v", users, err)
	}
	must(t, open(t, path, nil).Close())
	info, err = kv.Inspect(path)
	if err != nil || info.Holder != 0 || info.LastHolder != 0 {
		t.Errorf("%+v, %v; want no holder", info, err)
	}
	_, _, err = kv.Users(path + ".none")
	wantErr(t, err, os.ErrNotExist)
}
