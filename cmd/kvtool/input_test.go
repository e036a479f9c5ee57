package main

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Goal: a pipe that nobody writes to does not keep a signal from ending kvtool.
// Method: openFile of one, whose context ends.
func TestOpenPipeEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := exec.Command("mkfifo", path).Run(); err != nil {
		t.Skip("no mkfifo: ", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := openFile(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("opened: %v", err)
	}
}
