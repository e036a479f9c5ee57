package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/mmapkv/mmapkv/kv"
)

// csvInput is a CSV file whose first line names the columns.
type csvInput struct {
	r      *csv.Reader
	bound  *boundedReader
	key    int
	values []int
	names  []string // of all columns
}

// byteOrderMark is what some programs put before UTF-8.
const byteOrderMark = "\ufeff"

// newCSV reads the line with the names, and finds the columns: with none named, the first is
// the key, and the others are the value.
func newCSV(r io.Reader, maxRecord int64, key string, values []string) (*csvInput, error) {
	in := &csvInput{bound: &boundedReader{r: r, max: maxRecord}}
	in.bound.next()
	buffered := bufio.NewReader(in.bound)
	if begin, _ := buffered.Peek(len(byteOrderMark)); string(begin) == byteOrderMark {
		buffered.Discard(len(byteOrderMark))
	}
	in.r = csv.NewReader(buffered)
	names, err := in.r.Read()
	if err == io.EOF {
		return nil, errors.New("it is empty: the first line should name the columns")
	}
	if err != nil {
		return nil, err
	}
	in.names = names
	if key != "" {
		if in.key, err = in.column(key); err != nil {
			return nil, err
		}
	}
	for _, name := range values {
		n, err := in.column(name)
		if err != nil {
			return nil, err
		}
		in.values = append(in.values, n)
	}
	for n := 0; n < len(names) && len(values) == 0; n++ {
		if n != in.key {
			in.values = append(in.values, n)
		}
	}
	if len(in.values) == 0 {
		return nil, fmt.Errorf("it has one column, %q: which is the value?", names)
	}
	return in, nil
}

// column returns the number of the column of that name.
func (in *csvInput) column(name string) (int, error) {
	n := slices.Index(in.names, name)
	switch {
	case n < 0:
		return 0, fmt.Errorf("there is no column %q; there are %q", name, in.names)
	case slices.Contains(in.names[n+1:], name):
		return 0, fmt.Errorf("there are two columns %q", name)
	}
	return n, nil
}

// next returns the next entry as text, and the line where it begins.
func (in *csvInput) next() (key, value string, line int, err error) {
	in.bound.next()
	record, err := in.r.Read()
	if err != nil {
		return "", "", 0, err
	}
	line, _ = in.r.FieldPos(0)
	if len(in.values) == 1 {
		return record[in.key], record[in.values[0]], line, nil
	}
	object := []byte("{")
	for i, n := range in.values {
		if !utf8.ValidString(in.names[n]) || !utf8.ValidString(record[n]) {
			return "", "", line, fmt.Errorf("column %q: not valid UTF-8, which JSON needs", in.names[n])
		}
		if i > 0 {
			object = append(object, ',')
		}
		object = appendJSON(object, []byte(in.names[n]))
		object = appendJSON(append(object, ':'), []byte(record[n]))
	}
	return record[in.key], string(append(object, '}')), line, nil
}

// csv imports the records of r, total bytes in all (-1: nobody knows).
func (i *importer) csv(ctx context.Context, r io.Reader, name string, total int64) error {
	m, err := i.target()
	if err != nil {
		return err
	}
	in, err := newCSV(r, i.maxLine, i.keyColumn, i.valueColumns)
	if err != nil {
		return atRecord(name, 1, err)
	}
	for number := 1; ; {
		key, value, line, err := in.next()
		if err == io.EOF {
			return i.flush()
		}
		if number = max(number+1, line); err == nil {
			err = i.csvEntry(ctx, m, key, value)
		}
		if err != nil {
			return errors.Join(atRecord(name, number, err), i.flush())
		}
		i.bar.at("import", in.bound.read, total)
	}
}

func (i *importer) csvEntry(ctx context.Context, m *mapping, key, value string) error {
	k, err := m.keys.fromText(key)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	v, err := m.values.fromText(value)
	if err != nil {
		return fmt.Errorf("value: %w", err)
	}
	return i.put(ctx, m, entry{key: k, value: v})
}

// atRecord says where err happened: encoding/csv knows better than the number of the record.
func atRecord(name string, number int, err error) error {
	if parse := (*csv.ParseError)(nil); errors.As(err, &parse) {
		return fmt.Errorf("%s:%d:%d: %w", name, parse.Line, parse.Column, parse.Err)
	}
	return atLine(name, number, err)
}

// boundedReader reads at most max bytes from one call of next to another.
type boundedReader struct {
	r         io.Reader
	max, left int64
	read      int64 // bytes, in all
}

func (b *boundedReader) next() { b.left = b.max }

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("%w: a record has at most %d bytes (does a quote not end?)", kv.ErrTooLarge, b.max)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	b.read += int64(n)
	return n, err
}
