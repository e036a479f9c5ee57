// Wordcount counts the words of all files below a directory, and prints the most frequent. It may
// be killed at any moment: run again, it goes on where it was, and no word is counted twice or
// left out.
//
// What makes that so is one transaction a file: the counts of its words, and that the file is
// done, become visible together or not at all (see count). Each map of Go types has a name of its
// own in one store, and MapTx, from Map.In, is a map within a transaction of the store.
//
// A kill loses no transaction that returned. A power cut may lose those of the last second, counts
// and done files alike, so that what is left still fits together: see kv.Options.Durability.
package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/kv"
)

const usage = `Usage: wordcount [-f STORE] [-n N] DIR

Counts the words of all files below DIR and prints the N most frequent. What is
counted is kept in STORE: after an interruption, the same command goes on. To count
anew, remove STORE.

Exit codes: 0 done; 1 an error, or interrupted; 2 wrong usage.

`

func main() {
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	path := flag.String("f", "words.mmkv", "the `store` that keeps what is counted")
	n := flag.Int("n", 10, "how many words to print")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *path, flag.Arg(0), *n); err != nil {
		fmt.Fprintln(os.Stderr, "wordcount:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, path, dir string, n int) (err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil { // WalkDir does not look behind one
		return err
	}
	t, err := openTally(path, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.store.Close()) }()
	files, err := t.filesLeft(dir)
	if err != nil {
		return err
	}
	bar := bar{total: len(files)}
	defer bar.end()
	for i, file := range files {
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted with %d files to go: the same command goes on", len(files)-i)
		}
		if err := t.count(dir, file); err != nil {
			return err
		}
		bar.show(i + 1)
	}
	bar.end()
	return t.print(os.Stdout, n)
}

// tally is what is counted so far.
type tally struct {
	store *kv.Store
	words *kv.Map[string, uint64] // word -> how often
	done  *kv.Map[string, uint64] // file, relative to the directory -> its words
}

// openTally opens the store at path, which is to be that of dir.
func openTally(path, dir string) (t *tally, err error) {
	store, err := kv.Open(path, nil)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			store.Close()
		}
	}()
	about, err := kv.NewMap(store, "about", codec.String{}, codec.String{})
	if err != nil {
		return nil, err
	}
	of, _, err := about.LoadOrStore("directory", dir)
	if err != nil {
		return nil, err
	}
	if of != dir {
		return nil, fmt.Errorf("%s counts %s, not %s: give another store with -f", path, of, dir)
	}
	t = &tally{store: store}
	if t.words, err = kv.NewMap(store, "words", codec.String{}, codec.Uint64{}); err != nil {
		return nil, err
	}
	t.done, err = kv.NewMap(store, "done", codec.String{}, codec.Uint64{})
	return t, err
}

// filesLeft lists the regular files below dir that are not done. The store, and what it has
// beside it, may be there too, and do not count.
func (t *tally) filesLeft(dir string) (files []string, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		file, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		done, err := t.done.Has(file)
		ours := path == t.store.Path() || strings.HasPrefix(path, t.store.Path()+".mmapkv-")
		if err == nil && !done && !ours {
			files = append(files, file)
		}
		return err
	})
	return files, err
}

// count adds the words of one file. A kill before the end of the transaction leaves the file as
// not begun, one after it leaves it as done.
func (t *tally) count(dir, file string) error {
	f, err := os.Open(filepath.Join(dir, file))
	if err != nil {
		return err
	}
	defer f.Close()
	counts, err := countWords(f)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return t.store.Update(func(tx *kv.Tx) error {
		words, sum := t.words.In(tx), uint64(0)
		for word, n := range counts {
			before, err := words.Get(word)
			if err != nil && !errors.Is(err, kv.ErrNotFound) {
				return err
			}
			if err := words.Put(word, before+n); err != nil {
				return err
			}
			sum += n
		}
		return t.done.In(tx).Put(file, sum)
	})
}

// maxWord is the longest word that is counted, in bytes: what is longer is no word.
const maxWord = 100

// countWords counts the words of r: runs of letters, in lower case.
func countWords(r io.Reader) (map[string]uint64, error) {
	counts := make(map[string]uint64)
	in := bufio.NewReader(r)
	var word []rune
	for {
		c, _, err := in.ReadRune()
		if err == nil && unicode.IsLetter(c) {
			if len(word) <= maxWord {
				word = append(word, unicode.ToLower(c))
			}
			continue
		}
		if s := string(word); s != "" && len(s) <= maxWord {
			counts[s]++
		}
		word = word[:0]
		if err == io.EOF {
			return counts, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// print prints the n most frequent words, those of equal count by the alphabet.
func (t *tally) print(w io.Writer, n int) error {
	counts, err := kv.Collect(t.words)
	if err != nil {
		return err
	}
	words := make([]string, 0, len(counts))
	for word := range counts {
		words = append(words, word)
	}
	slices.SortFunc(words, func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), strings.Compare(a, b))
	})
	out := bufio.NewWriter(w)
	for _, word := range words[:min(max(n, 0), len(words))] {
		fmt.Fprintf(out, "%8d %s\n", counts[word], word)
	}
	return out.Flush()
}

// bar shows progress on stderr, where that is a terminal, ten times a second at most.
type bar struct {
	total int
	last  time.Time // when it was shown; zero: nothing is on the screen
}

func (b *bar) show(done int) {
	if time.Since(b.last) < time.Second/10 {
		return
	}
	if st, err := os.Stderr.Stat(); err != nil || st.Mode()&fs.ModeCharDevice == 0 {
		return
	}
	b.last = time.Now()
	const width = 40
	full := width * done / b.total
	fmt.Fprintf(os.Stderr, "\r[%s%s] %d of %d files", strings.Repeat("#", full), strings.Repeat(".", width-full), done, b.total)
}

// end takes the bar away.
func (b *bar) end() {
	if !b.last.IsZero() {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
		b.last = time.Time{}
	}
}
