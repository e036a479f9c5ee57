//go:build linux && !386 && !arm

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// openOnce opens the store in dir, gets a key if there is one, and notes the times.
func (b *bench) openOnce(dir string, keys uint64, opens, firsts *[]float64) (Store, error) {
	start := time.Now()
	s, err := b.open(dir, false, 1)
	if err != nil {
		return nil, err
	}
	*opens = append(*opens, float64(time.Since(start)))
	b.s = s
	if keys > 0 {
		get := b.getter(newPicker(uint64(len(*opens)), keys).next)
		start = time.Now()
		if err := get(); err != nil {
			return nil, errors.Join(err, s.Close())
		}
		*firsts = append(*firsts, float64(time.Since(start)))
	}
	return s, nil
}

// reopen opens and closes until the time is up, three times at least, nine at most.
func (b *bench) reopen(keys uint64) error {
	var opens, firsts []float64
	end := time.Now().Add(2 * b.Time)
	for len(opens) < 3 || len(opens) < 9 && time.Now().Before(end) {
		s, err := b.openOnce(b.Dir, keys, &opens, &firsts)
		if err != nil {
			return err
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	b.out["ns_op"] = median(opens)
	if keys > 0 {
		b.out["first_get"] = median(firsts)
	}
	return nil
}

func runOpenClosed(b *bench) error {
	b.started()
	return b.reopen(uint64(b.Keys))
}

func runOpenEmpty(b *bench) error {
	s, err := b.open(b.Dir, false, 1)
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	b.started()
	return b.reopen(0)
}

const victimName = "victim"

// victim opens the store, puts b.KillWrites fresh keys, says so, and waits for its
// end.
func victim(b *bench, out io.Writer) error {
	s, err := b.open(b.Dir, false, 1)
	if err != nil {
		return err
	}
	i := uint64(b.Keys)
	put := b.putter(s, func() uint64 { i++; return i - 1 })
	for range b.KillWrites {
		if err := put(); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintln(out, ready); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin) // until the parent kills this process, or is gone itself
	return errors.Join(err, s.Close())
}

// runOpenKilled opens what a killed process left behind. That can be done once.
func runOpenKilled(b *bench) error {
	t := b.task
	t.Workload = victimName
	c, err := startProcess(t)
	if err != nil {
		return err
	}
	time.Sleep(b.KillIdle)
	if err := c.cmd.Process.Kill(); err != nil {
		return err
	}
	c.end() // "signal: killed"
	b.started()
	var opens, firsts []float64
	s, err := b.openOnce(b.Dir, uint64(b.Keys), &opens, &firsts)
	if err != nil {
		return err
	}
	b.out["ns_op"], b.out["first_get"] = opens[0], firsts[0]
	lost := 0
	key := make([]byte, keySize)
	for i := range uint64(b.KillWrites) {
		putKey(key, uint64(b.Keys)+i)
		switch v, err := s.Get(key); {
		case errors.Is(err, errMiss):
			lost++
		case err != nil:
			return err
		default:
			if err := check(v, key, b.Value); err != nil {
				return err
			}
		}
	}
	b.out["lost"] = float64(lost)
	return s.Close()
}

// runRebuild opens a store of which only its own file is left, and by turns scans
// that file.
func runRebuild(b *bench) error {
	b.started()
	var opens, firsts, scans []float64
	end := time.Now().Add(2 * b.Time)
	for len(opens) < 3 || len(opens) < 9 && time.Now().Before(end) {
		names, err := os.ReadDir(b.Dir)
		if err != nil {
			return err
		}
		for _, e := range names {
			if e.Name() != b.a.file {
				if err := os.RemoveAll(filepath.Join(b.Dir, e.Name())); err != nil {
					return err
				}
			}
		}
		took, err := verifyFile(filepath.Join(b.Dir, b.a.file), b.Keys)
		if err != nil {
			return err
		}
		scans = append(scans, float64(took))
		s, err := b.openOnce(b.Dir, uint64(b.Keys), &opens, &firsts)
		if err != nil {
			return err
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	b.out["ns_op"], b.out["first_get"], b.out["verify"] = median(opens), median(firsts), median(scans)
	b.out["of_verify"] = b.out["ns_op"] / b.out["verify"]
	return nil
}
