package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

// reading are the flags of a verb that reads.
type reading struct {
	salvage bool

	verify bool // not a flag: check each record again as it is read
}

func (r *reading) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&r.salvage, "salvage", false, "of a damaged store, use what verifies (and exit with 4)")
}

// read opens the store at path read-only and gives it to fn. With salvage it
// returns ErrCorrupt after fn if bytes were passed over, so that no half of a
// store looks like a whole one.
func (t *tool) read(path string, r reading, fn func(s *kv.Store) error) error {
	bar := t.progress()
	defer bar.end()
	var s *kv.Store
	err := bar.during("open", func() (err error) {
		s, err = kv.Open(path, &kv.Options{ReadOnly: true, Salvage: r.salvage, VerifyReads: r.verify, Hooks: &kv.Hooks{Progress: bar.at}})
		return err
	})
	if err != nil {
		return advise(err)
	}
	defer s.Close()
	if err := guarded(func() error { return fn(s) }); err != nil {
		return err
	}
	if missing := s.Stats().Missing; len(missing) > 0 {
		return fmt.Errorf("%w: %s passed over in %d places of %s", kv.ErrCorrupt, exactBytes(sum(missing)), len(missing), s.Path())
	}
	return nil
}

func sum(ranges []kv.Range) (n int64) {
	for _, r := range ranges {
		n += r.Len
	}
	return n
}

// guarded runs fn, which touches bytes that the store lends, and makes an error of
// the fault that a file brings which is truncated meanwhile, or whose disk fails.
func guarded(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		// The runtime's own errors for a fault have an address; Go memory has none.
		if fault, ok := r.(interface {
			error
			Addr() uintptr
		}); ok {
			err = fmt.Errorf("the file was truncated, or its disk failed, while it was read: %w", fault)
			return
		}
		panic(r)
	}()
	return fn()
}

// writing are the flags of a verb that writes.
type writing struct {
	create bool
	wait   time.Duration

	mayCreate bool // not a flag: the verb has --create
	options   kv.Options
}

func (w *writing) flags(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&w.wait, "wait", 0, "how long to wait for another process to let go of the store")
	if w.mayCreate {
		cmd.Flags().BoolVar(&w.create, "create", false, "create the store if there is none")
	}
}

// write opens the store at path for writing and gives it to fn. It creates one
// only where the operator said so. Its Close is a durability point.
func (t *tool) write(path string, w writing, fn func(s *kv.Store) error) error {
	if w.wait < 0 {
		return usagef("--wait %v: a negative time", w.wait)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && !w.create {
		err := fmt.Errorf("%s: there is no store", path)
		if w.mayCreate {
			err = fmt.Errorf("%w; --create makes one", err)
		}
		return err
	}
	bar := t.progress()
	defer bar.end()
	o := w.options
	o.LockTimeout = w.wait
	o.Hooks = &kv.Hooks{Progress: bar.at}
	var s *kv.Store
	err := bar.during("open", func() (err error) { s, err = openToWrite(path, o); return err })
	if err != nil {
		return advise(err)
	}
	err = guarded(func() error { return fn(s) })
	return errors.Join(err, bar.during("close", s.Close))
}

// openToWrite opens the store at path for writing: alone, or, where other processes
// share it, as they do. Where one has it for itself, it waits for that as o says.
func openToWrite(path string, o kv.Options) (*kv.Store, error) {
	alone := o
	alone.LockTimeout = 0
	s, err := kv.Open(path, &alone)
	if !errors.Is(err, kv.ErrLocked) {
		return s, err
	}
	o.Shared = true
	s, err = kv.Open(path, &o)
	if errors.Is(err, errors.ErrUnsupported) {
		o.Shared = false
		return kv.Open(path, &o)
	}
	return s, err
}

// advise adds to an error of Open what the operator can do with this tool.
func advise(err error) error {
	if damage := (*kv.CorruptError)(nil); errors.As(err, &damage) || errors.Is(err, kv.ErrFault) {
		return fmt.Errorf("%w; kvtool check lists the damage, kvtool repair writes what is left into a new store", err)
	}
	return err
}

// exactBytes is n for a person and for a calculator.
func exactBytes(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%s (%s B)", humanize.IBytes(uint64(n)), humanize.Comma(n))
}
