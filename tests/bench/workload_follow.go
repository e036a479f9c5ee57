//go:build linux && !386 && !arm

package main

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// runFollow measures Gets of a follower, and by turns those of the store's owner,
// which is another process and idle meanwhile, and those of the follower with a lock
// around each, as a store has them whose readers keep writers out.
func runFollow(b *bench) error {
	return b.follow(func(own *companion, get func() error) error {
		each := []turn{own.get, b.turn(get)}
		for _, l := range locks {
			f, err := os.Create(filepath.Join(b.Scratch, l.name))
			if err != nil {
				return err
			}
			defer f.Close()
			each = append(each, b.turn(l.around(int(f.Fd()), get)))
		}
		got, err := takeTurns(each...)
		if err != nil {
			return err
		}
		b.out["ns_op"], b.out["of_owner"] = got[1], got[1]/got[0]
		for i, l := range locks {
			b.out[l.name] = got[2+i]
		}
		return nil
	})
}

// runFollowBusy measures the same Gets while the owner puts, in its turns too.
func runFollowBusy(b *bench) error {
	return b.follow(func(own *companion, get func() error) error {
		if _, err := own.do("put on"); err != nil {
			return err
		}
		got, err := takeTurns(own.get, b.turn(get))
		if err != nil {
			return err
		}
		b.out["ns_op"], b.out["of_owner"] = got[1], got[1]/got[0]
		if err := b.withClock(get); err != nil {
			return err
		}
		puts, err := own.do("puts")
		b.out["puts"] = puts["per_s"]
		return err
	})
}

// follow opens the store in another process, which owns it, and in this one, which
// follows it, and reads all of it in both.
func (b *bench) follow(run func(own *companion, get func() error) error) error {
	own, err := b.companion(b.Dir, owner)
	if err != nil {
		return err
	}
	defer own.end()
	if b.s, err = b.openAs(b.Dir, follower); err != nil {
		return err
	}
	if err := b.warm(); err != nil {
		return err
	}
	if _, err := own.do("warm"); err != nil {
		return err
	}
	b.started()
	err = run(own, b.getter(newPicker(1, uint64(b.Keys)).next))
	return errors.Join(err, own.end(), b.s.Close())
}

// lock is a way to lock a file for reading, and to unlock it.
type lock struct {
	name         string // of the metric
	lock, unlock func(fd int) error
}

// byFcntl locks by a command of fcntl.
func byFcntl(cmd int, kind int16) func(fd int) error {
	l := unix.Flock_t{Type: kind}
	return func(fd int) error { return unix.FcntlFlock(uintptr(fd), cmd, &l) }
}

func byFlock(how int) func(fd int) error {
	return func(fd int) error { return unix.Flock(fd, how) }
}

// locks are what the system has.
var locks = [...]lock{
	{"flock", byFlock(unix.LOCK_SH), byFlock(unix.LOCK_UN)},
	{"ofd", byFcntl(unix.F_OFD_SETLK, unix.F_RDLCK), byFcntl(unix.F_OFD_SETLK, unix.F_UNLCK)},
	{"posix", byFcntl(unix.F_SETLK, unix.F_RDLCK), byFcntl(unix.F_SETLK, unix.F_UNLCK)},
}

// around returns op with the lock of fd around it.
func (l lock) around(fd int, op func() error) func() error {
	return func() error {
		if err := l.lock(fd); err != nil {
			return err
		}
		return errors.Join(op(), l.unlock(fd))
	}
}

// runCatchUp measures the first Get of a follower that lies b.Keys records behind, and
// by turns the opening of the same log without a checkpoint.
func runCatchUp(b *bench) error {
	b.started()
	var behind, rebuild []float64
	end := time.Now().Add(2 * b.Time)
	for len(behind) < 3 || len(behind) < 9 && time.Now().Before(end) {
		if err := b.catchUp(&behind, &rebuild); err != nil {
			return err
		}
	}
	b.out["ns_op"], b.out["rebuild"] = median(behind), median(rebuild)
	b.out["of_rebuild"] = b.out["ns_op"] / b.out["rebuild"]
	b.out["record"] = b.out["ns_op"] / float64(b.Keys)
	return nil
}

func (b *bench) catchUp(behind, rebuild *[]float64) error {
	dir, err := os.MkdirTemp(b.Dir, "")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	own, err := b.companion(dir, owner)
	if err != nil {
		return err
	}
	defer own.end()
	if b.s, err = b.openAs(dir, follower); err != nil {
		return err
	}
	if _, err := own.do("fill"); err != nil {
		return err
	}
	start := time.Now()
	if err := b.getter(func() uint64 { return uint64(b.Keys - 1) })(); err != nil {
		return err
	}
	*behind = append(*behind, float64(time.Since(start)))
	c := b.cfg
	c.access, c.withoutCheckpoints = follower, true
	start = time.Now()
	again, err := b.a.open(dir, c)
	if err != nil {
		return err
	}
	*rebuild = append(*rebuild, float64(time.Since(start)))
	return errors.Join(again.Close(), b.s.Close(), own.end())
}

// runSwitch measures the first Get of a follower after a compaction, and by turns the
// opening of the store after Close and the first Get.
func runSwitch(b *bench) error {
	b.started()
	var switches, opens, firsts []float64
	end := time.Now().Add(2 * b.Time)
	for len(switches) < 3 || len(switches) < 9 && time.Now().Before(end) {
		if err := b.switchOnce(&switches); err != nil {
			return err
		}
		s, err := b.openOnce(b.Dir, uint64(b.Keys), &opens, &firsts)
		if err != nil {
			return err
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	b.out["ns_op"] = median(switches)
	b.out["of_open"] = b.out["ns_op"] / (median(opens) + median(firsts))
	return nil
}

func (b *bench) switchOnce(switches *[]float64) error {
	own, err := b.companion(b.Dir, owner)
	if err != nil {
		return err
	}
	defer own.end()
	if b.s, err = b.openAs(b.Dir, follower); err != nil {
		return err
	}
	get := b.getter(newPicker(uint64(len(*switches)), uint64(b.Keys)).next)
	if err := get(); err != nil {
		return err
	}
	if _, err := own.do("compact"); err != nil {
		return err
	}
	start := time.Now()
	if err := get(); err != nil {
		return err
	}
	*switches = append(*switches, float64(time.Since(start)))
	return errors.Join(b.s.Close(), own.end())
}
