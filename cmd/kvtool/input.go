package main

import (
	"context"
	"io"
	"os"
)

// input reads from r until ctx is done: a read from a terminal or a pipe may
// otherwise wait for ever, whatever signal comes.
type input struct {
	ctx  context.Context
	r    io.Reader
	buf  []byte
	rest []byte // of buf, not returned yet
	done chan readResult
	err  error
}

type readResult struct {
	n   int
	err error
}

func newInput(ctx context.Context, r io.Reader) *input {
	return &input{ctx: ctx, r: r, buf: make([]byte, 64<<10), done: make(chan readResult, 1)}
}

// Read is io.Reader's. After an error the same comes again: a read that was given
// up still owns the buffer.
func (in *input) Read(p []byte) (int, error) {
	if len(in.rest) == 0 && in.err == nil {
		go func() {
			n, err := in.r.Read(in.buf)
			in.done <- readResult{n, err}
		}()
		select {
		case r := <-in.done:
			in.rest, in.err = in.buf[:r.n], r.err
		case <-in.ctx.Done():
			in.err = in.ctx.Err()
		}
	}
	if len(in.rest) == 0 {
		return 0, in.err
	}
	n := copy(p, in.rest)
	in.rest = in.rest[n:]
	return n, nil
}

// openFile opens a file for reading, unless ctx is done before: to open a pipe waits for its writer.
func openFile(ctx context.Context, path string) (*os.File, error) {
	type opened struct {
		f   *os.File
		err error
	}
	done := make(chan opened, 1)
	go func() {
		f, err := os.Open(path)
		done <- opened{f, err}
	}()
	select {
	case o := <-done:
		return o.f, o.err
	case <-ctx.Done():
		return nil, ctx.Err() // a file that opens after all is closed by the end of the process
	}
}
