//go:build linux && !386 && !arm

package main

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// runShared fills a shared store that no other process has open, and by turns an exclusive
// one with a lock and an unlock of a file around each put.
func runShared(b *bench) error {
	c := b.cfg
	c.withoutCheckpoints = true // they would come in the turn of either
	alone, err := b.a.open(b.Dir, c)
	if err != nil {
		return err
	}
	c.access = sharer
	shared, err := b.a.open(b.Scratch, c)
	if err != nil {
		return errors.Join(err, alone.Close())
	}
	f, err := os.Create(filepath.Join(b.Scratch, "lock"))
	if err != nil {
		return err
	}
	defer f.Close()
	exclusive := lock{lock: byFcntl(unix.F_OFD_SETLK, unix.F_WRLCK), unlock: byFcntl(unix.F_OFD_SETLK, unix.F_UNLCK)}
	b.started()
	got, err := takeTurns(b.part(b.fresh(shared)), b.part(exclusive.around(int(f.Fd()), b.fresh(alone))))
	if err != nil {
		return err
	}
	b.out["ns_op"], b.out["locked"], b.out["of_locked"] = got[0], got[1], got[0]/got[1]
	return errors.Join(alone.Close(), shared.Close())
}

// part is a turn of so many calls that all turns make b.Keys.
func (b *bench) part(op func() error) turn {
	n := b.Keys / turns
	return func() (float64, error) {
		_, took, err := rate(time.Hour, n, op)
		return float64(took) / float64(n), err
	}
}

// fresh returns a Put of the next key.
func (b *bench) fresh(s Store) func() error {
	i := uint64(0)
	return b.putter(s, func() uint64 { i++; return i - 1 })
}

// runSharers has several processes put into one store.
func runSharers(n int) func(b *bench) error {
	return func(b *bench) error {
		all := make([]*companion, n)
		for i := range all {
			c, err := b.companion(b.Dir, sharer)
			if err != nil {
				return err
			}
			defer c.end()
			all[i] = c
		}
		b.started()
		for _, c := range all {
			if err := c.tell("put freely"); err != nil {
				return err
			}
		}
		least, total := 0.0, 0.0
		for i, c := range all {
			found, err := c.answer()
			if err != nil {
				return err
			}
			perSecond := found["puts"] / found["took"] * 1e9
			if total += perSecond; i == 0 || perSecond < least {
				least = perSecond
			}
			b.out["put_max"] = max(b.out["put_max"], found["max"])
		}
		b.out["per_s"], b.out["slowest"] = total, least*float64(n)/total
		for _, c := range all {
			if err := c.end(); err != nil {
				return err
			}
		}
		return nil
	}
}
