package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"testing"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes commands of the test binary: kvtool itself, and what the scripts
// need beside it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"kvtool":  func() { os.Exit(run()) },
		"kvbars":  func() { progressAfter = 0; os.Exit(run()) },
		"kvhold":  func() { os.Exit(own(false, func(*kv.Store) error { return nil })) },
		"kvchurn": func() { os.Exit(own(false, churn)) },
		"kvstorm": func() { os.Exit(own(false, storm)) },
		"kvshare": func() { os.Exit(own(true, churn)) },
		"kvcrowd": func() { os.Exit(own(true, storm)) },
		"kvmaps":  func() { os.Exit(oneOff(putMaps)) },
		"kvbolt":  func() { os.Exit(oneOff(func() error { return makeBolt(os.Args[1]) })) },
		"kvmmkv":  func() { os.Exit(oneOff(putMMKV)) },
		"ontty":   func() { os.Exit(onTTY()) },
	})
}

// oneOff runs fn as a program of its own.
func oneOff(fn func() error) int {
	if err := fn(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// own opens the store os.Args[1] for writing, be it shared, and calls turn over and over
// until it is interrupted. After the first turn it makes the file os.Args[2].
func own(shared bool, turn func(s *kv.Store) error) int {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	s, err := kv.Open(os.Args[1], &kv.Options{Durability: kv.SyncManual, Shared: shared})
	if err == nil {
		err = turn(s)
	}
	if err == nil {
		err = os.WriteFile(os.Args[2], []byte(fmt.Sprint(os.Getpid())), 0o600)
	}
	for err == nil {
		select {
		case <-stop:
			if err = s.Close(); err == nil {
				return 0
			}
		default:
			err = turn(s)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// churn puts a thousand new values under the same hundred keys.
func churn(s *kv.Store) error {
	for i := range 1000 {
		if err := s.Put(fmt.Appendf(nil, "key%02d", i%100), fmt.Appendf(nil, "value %d", i)); err != nil {
			return err
		}
	}
	return nil
}

// storm is churn, with a compaction.
func storm(s *kv.Store) error {
	if err := churn(s); err != nil {
		return err
	}
	_, err := s.Compact(context.Background())
	return err
}

// onTTY runs a command with stdout and stderr on the controlling terminal.
func onTTY() int {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, tty, tty
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
