package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/mmapkv/mmapkv/kv"
)

// Goal: lines come whole, however they are read, and no more than the limit is
// kept of one. Method: lengths around the size of the buffer and the limit.
func TestLineReader(t *testing.T) {
	const limit = 100
	for _, test := range []struct {
		name, in string
		want     []string
		err      error
	}{
		{"nothing", "", nil, io.EOF},
		{"no newline at the end", "a\nb", []string{"a\n", "b"}, io.EOF},
		{"empty lines", "\n\n", []string{"\n", "\n"}, io.EOF},
		{"longer than the buffer", strings.Repeat("x", 50) + "\ny\n", []string{strings.Repeat("x", 50) + "\n", "y\n"}, io.EOF},
		{"at the limit", strings.Repeat("x", limit-1) + "\n", []string{strings.Repeat("x", limit-1) + "\n"}, io.EOF},
		{"above it", "a\n" + strings.Repeat("x", limit) + "\n", []string{"a\n"}, kv.ErrTooLarge},
		{"far above it", strings.Repeat("x", 100_000), nil, kv.ErrTooLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := &lineReader{r: bufio.NewReaderSize(iotest.HalfReader(strings.NewReader(test.in)), 16), max: limit}
			var got []string
			line, err := l.next()
			for ; err == nil; line, err = l.next() {
				got = append(got, string(line))
			}
			if fmt.Sprint(got) != fmt.Sprint(test.want) || !errors.Is(err, test.err) {
				t.Errorf("read %q and %v, want %q and %v", got, err, test.want, test.err)
			}
			if cap(l.buf) > 4*limit {
				t.Errorf("a buffer of %d bytes for lines of %d", cap(l.buf), limit)
			}
		})
	}
}

// Goal: an import of more than a batch, of entries too large for one, and of a line
// above the limit: what came before an error is there.
func TestImportBatches(t *testing.T) {
	s := testStore(t)
	var lines strings.Builder
	for i := range 2*batchEntries + 1 {
		fmt.Fprintf(&lines, "{\"key\":\"%d\",\"value\":\"%d\"}\n", i, i)
	}
	large := strings.Repeat("x", batchBytes+1)
	fmt.Fprintf(&lines, "{\"key\":\"0\",\"value\":\"%s\"}\n", large)
	fmt.Fprintf(&lines, "{\"key\":\"last\",\"value\":\"\"}\n")
	fmt.Fprintf(&lines, "{\"key\":\"toolong\",\"value\":\"%s%s\"}\n", large, large)
	tool := &tool{quiet: true}
	i := &importer{importing: importing{typing: typing{s: s}}, bar: tool.progress(), maxLine: int64(len(large) + 100)}
	err := i.lines(t.Context(), strings.NewReader(lines.String()), "in", -1)
	if !errors.Is(err, kv.ErrTooLarge) || !strings.HasPrefix(err.Error(), fmt.Sprintf("in:%d: ", 2*batchEntries+4)) {
		t.Errorf("error %v", err)
	}
	if want := int64(2*batchEntries + 3); i.imported != want || s.Len() != 2*batchEntries+2 {
		t.Errorf("%d imported, %d keys", i.imported, s.Len())
	}
	if v, err := s.Get([]byte("0")); err != nil || string(v) != large {
		t.Errorf("the large entry did not replace the small one: %d bytes, %v", len(v), err)
	}
}

// Goal: a key above the limit is refused at its own line.
func TestImportKeyTooLarge(t *testing.T) {
	i := &importer{importing: importing{typing: typing{s: testStore(t)}}, bar: (&tool{quiet: true}).progress(), maxLine: maxLine}
	in := "{\"key\":\"a\",\"value\":\"\"}\n{\"key\":\"" + strings.Repeat("k", kv.MaxKeySize+1) + "\",\"value\":\"\"}\n"
	err := i.lines(t.Context(), strings.NewReader(in), "in", -1)
	if !errors.Is(err, kv.ErrTooLarge) || !strings.HasPrefix(err.Error(), "in:2: ") || i.imported != 1 {
		t.Errorf("%d imported, error %v", i.imported, err)
	}
}

// Goal: a read that waits for ever ends with its context. Method: a pipe that
// nobody writes to.
func TestInputEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	defer w.Close()
	in := newInput(ctx, r)
	go func() {
		io.WriteString(w, "some")
		cancel()
	}()
	b, err := io.ReadAll(in)
	if !errors.Is(err, context.Canceled) || (string(b) != "some" && len(b) > 0) {
		t.Errorf("read %q and %v", b, err)
	}
	if n, err := in.Read(make([]byte, 1)); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %d bytes and %v", n, err)
	}
}

// testStore returns a new store that is verified and closed when the test ends.
func testStore(t *testing.T) *kv.Store {
	t.Helper()
	s, err := kv.Open(filepath.Join(t.TempDir(), "s.mmkv"), &kv.Options{CompactAt: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r, err := s.Verify(context.Background())
		if err != nil || len(r.Violations) > 0 {
			t.Errorf("verify: %v, %v", r.Violations, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
