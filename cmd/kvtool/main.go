package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(run()) }

// run is main for the tests, which run the tool as a command of their own binary.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal asks for an orderly end, the second ends the process.
	context.AfterFunc(ctx, stop)

	t := &tool{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	cmd, err := t.root().ExecuteContextC(ctx)
	return t.report(cmd, err)
}
