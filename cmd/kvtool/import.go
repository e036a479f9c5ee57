package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

// A batch is one transaction of an import.
const (
	batchEntries = 1000
	batchBytes   = 4 << 20
)

func (t *tool) importVerb() *cobra.Command {
	w := writing{mayCreate: true}
	cmd := &cobra.Command{
		Use:   "import STORE [FILE | -]...",
		Short: "Put the entries of JSON lines into a store",
		Long: `Import puts entries into a store, from files as export writes them, or from stdin.
Entries of keys that are there replace them; all else in the store stays. An entry
whose deadline has passed is skipped.

A line that is not an entry ends the import, with its number and what is wrong;
the lines before it have been imported.`,
		Example: `  kvtool import --create copy.mmkv settings.jsonl
  kvtool export settings.mmkv | kvtool import --create copy.mmkv`,
		Args: cobra.MinimumNArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			files := args[1:]
			if len(files) == 0 {
				files = []string{"-"}
			}
			for _, file := range files { // before a store is created for them
				if file != "-" {
					if _, err := os.Stat(file); err != nil {
						return err
					}
				}
			}
			return t.write(args[0], w, func(s *kv.Store) error {
				i := &importer{s: s, bar: t.progress(), maxLine: maxLine}
				defer i.bar.end()
				err := i.files(cmd.Context(), t.in, files)
				i.bar.end()
				t.notef("imported %s entries, %s of them with a deadline; skipped %s that have expired",
					humanize.Comma(i.imported), humanize.Comma(i.deadlines), humanize.Comma(i.expired))
				return err
			})
		}),
	}
	w.flags(cmd)
	return cmd
}

// importer puts entries into s, in batches.
type importer struct {
	s       *kv.Store
	bar     *progress
	maxLine int64 // bytes of a line

	batch                        []entry
	size                         int64 // bytes of the keys and values in batch
	imported, deadlines, expired int64
}

func (i *importer) files(ctx context.Context, stdin io.Reader, files []string) error {
	for _, file := range files {
		if err := i.file(ctx, stdin, file); err != nil {
			return err
		}
	}
	return nil
}

func (i *importer) file(ctx context.Context, stdin io.Reader, name string) error {
	if name == "-" {
		return i.lines(ctx, newInput(ctx, stdin), "stdin", -1)
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	total := int64(-1)
	if fi.Mode().IsRegular() {
		total = fi.Size()
	}
	return i.lines(ctx, newInput(ctx, f), name, total)
}

// lines imports the lines of r, total bytes in all (-1: nobody knows).
func (i *importer) lines(ctx context.Context, r io.Reader, name string, total int64) error {
	in := &lineReader{r: bufio.NewReaderSize(r, 64<<10), max: i.maxLine}
	for number := 1; ; number++ {
		line, err := in.next()
		if err == io.EOF {
			return i.flush()
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil && len(bytes.TrimSpace(line)) > 0 {
			err = i.line(line)
		}
		if err != nil {
			// What came before the line is in the store, as the help says.
			return errors.Join(atLine(name, number, err), i.flush())
		}
		i.bar.at("import", in.read, total)
	}
}

// atLine says where err happened, unless it is the operator's own interrupt.
func atLine(name string, number int, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%s:%d: %w", name, number, err)
}

func (i *importer) line(line []byte) error {
	e, err := parseEntry(line)
	if err != nil {
		return err
	}
	if !e.expires.IsZero() && !e.expires.After(time.Now()) {
		i.expired++
		return nil
	}
	return i.add(e)
}

// add puts an entry into the store, now or with the batch. It belongs to the
// importer from here on.
func (i *importer) add(e entry) (err error) {
	size := int64(len(e.key) + len(e.value))
	if size >= batchBytes {
		// By itself: the largest of values does not fit into a transaction.
		if err := i.flush(); err != nil {
			return err
		}
		if e.expires.IsZero() {
			err = i.s.Put(e.key, e.value)
		} else {
			err = i.s.PutUntil(e.key, e.value, e.expires)
		}
		if err == nil {
			i.count(&e)
		}
		return err
	}
	// Checked here, so that the error names this line and not the batch.
	if len(e.key) > kv.MaxKeySize {
		return fmt.Errorf("%w: key of %d bytes, the limit is %d", kv.ErrTooLarge, len(e.key), kv.MaxKeySize)
	}
	i.batch = append(i.batch, e)
	i.size += size
	if len(i.batch) == batchEntries || i.size >= batchBytes {
		return i.flush()
	}
	return nil
}

// flush puts the batch into the store as one transaction.
func (i *importer) flush() error {
	if len(i.batch) == 0 {
		return nil
	}
	err := i.s.Update(func(tx *kv.Tx) error {
		for _, e := range i.batch {
			err := error(nil)
			if e.expires.IsZero() {
				err = tx.Put(e.key, e.value)
			} else {
				err = tx.PutUntil(e.key, e.value, e.expires)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		for n := range i.batch {
			i.count(&i.batch[n])
		}
	}
	clear(i.batch)
	i.batch, i.size = i.batch[:0], 0
	return err
}

func (i *importer) count(e *entry) {
	i.imported++
	if !e.expires.IsZero() {
		i.deadlines++
	}
}

// lineReader reads lines of at most max bytes.
type lineReader struct {
	r    *bufio.Reader
	max  int64
	buf  []byte
	read int64 // bytes, of all lines
}

// next returns the next line, which is valid until the next call, or io.EOF. The
// last line need not end with a newline.
func (l *lineReader) next() ([]byte, error) {
	if cap(l.buf) > batchBytes {
		l.buf = nil // one long line is no reason to keep so much
	}
	l.buf = l.buf[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		l.read += int64(len(part))
		if int64(len(l.buf))+int64(len(part)) > l.max {
			return nil, fmt.Errorf("%w: a line has at most %d bytes", kv.ErrTooLarge, l.max)
		}
		l.buf = append(l.buf, part...)
		switch {
		case err == bufio.ErrBufferFull:
		case err == nil, err == io.EOF && len(l.buf) > 0:
			return l.buf, nil
		default:
			return nil, err
		}
	}
}
