package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A batch is one transaction of an import.
const (
	batchEntries = 1000
	batchBytes   = 4 << 20
)

// importing are the flags of import.
type importing struct {
	writing
	typing
	format               string
	keyCodec, valueCodec string // of a map that is not there yet
	keyColumn            string
	valueColumns         []string
	bucket               string
	mmkvKey              []byte
	mmkvStrings          bool
}

func (t *tool) importVerb() *cobra.Command {
	o := importing{writing: writing{mayCreate: true}}
	var key, keyFile string
	cmd := &cobra.Command{
		Use:   "import STORE [FILE | -]...",
		Short: "Put the entries of JSON lines, CSV, bbolt or MMKV into a store",
		Long: `Import puts entries into a store, from files as export writes them, or from stdin.
Entries of keys that are there replace them; all else in the store stays. An entry
whose deadline has passed is skipped.

An entry that is wrong ends the import, with its place and what is wrong; what came
before it has been imported. --format says what the files are:

  jsonl   what export prints (the default)
  csv     a line with the names of the columns, and then a record for each entry. The
          first column is the key, or --key-column, the other the value; of several, or
          of those that --value-column names, the value is a JSON object of strings.
          CR LF within quotes becomes LF
  bbolt   a bbolt file, read-only: each bucket becomes a map of its name, those within
          others with a slash between the names (a/b), or one bucket, --bucket, the
          entries of the store or of --map
  mmkv    a file of Tencent's MMKV, beside which is its .crc file; or a directory of
          them, each of which becomes a map of its name, but for those in directories
          within it, such as specialCharacter. --key-file or --key is for encrypted
          ones; others on the machine may see --key. Deadlines are kept

With --map the entries become those of a typed map: one that is there, or one that
--key-codec and --value-codec make, by the names of the codecs of the Go package: string,
bytes, bool, int8 to int64, uint8 to uint64, float32, float64, time, json, text, binary,
proto:NAME of a message. Keys and values are taken as set --map takes them, or, of JSON
lines, as export --map prints them; what is none is an error.

Values of bbolt and MMKV have no types. They are imported as the bytes that they are, into
maps of string and bytes, unless the codecs are named, and are checked against these. MMKV
puts its length before a text, within the value: --mmkv-strings takes that off where it
fits the value. It may fit a number by chance, and 0 and false look like an empty text.`,
		Example: `  kvtool import --create copy.mmkv settings.jsonl
  kvtool export settings.mmkv | kvtool import --create copy.mmkv
  kvtool import --format csv --map ages --key-codec string --value-codec uint8 app.mmkv ages.csv
  kvtool import --format bbolt --bucket users --map users --key-codec string --value-codec json app.mmkv old.db
  kvtool import --format mmkv --key-file key --create app.mmkv files/mmkv`,
		Args: cobra.MinimumNArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			files := args[1:]
			if len(files) == 0 {
				files = []string{"-"}
			}
			if err := o.check(cmd, files); err != nil {
				return err
			}
			if err := o.checkNewMap(cmd, args[0]); err != nil {
				return err
			}
			err := error(nil)
			if o.mmkvKey, err = secret(cmd, key, keyFile); err != nil {
				return err
			}
			return t.write(args[0], o.writing, func(s *kv.Store) error {
				if err := o.begin(cmd, s); err != nil {
					return err
				}
				i := &importer{importing: o, t: t, bar: t.progress(), maxLine: maxLine}
				defer i.bar.end()
				err := i.files(cmd.Context(), t.in, files)
				i.bar.end()
				i.report()
				return err
			})
		}),
	}
	o.writing.flags(cmd)
	o.mapFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "jsonl", "what the files are: jsonl, csv, bbolt or mmkv")
	f.StringVar(&o.keyCodec, "key-codec", "", "make the map, with keys of this `codec`")
	f.StringVar(&o.valueCodec, "value-codec", "", "make the map, with values of this `codec`")
	f.StringVar(&o.keyColumn, "key-column", "", "csv: the `column` of the key")
	f.StringArrayVar(&o.valueColumns, "value-column", nil, "csv: the `column` of the value, or one of several")
	f.StringVar(&o.bucket, "bucket", "", "bbolt: import this `bucket`, with slashes between it and those it is in")
	f.StringVar(&keyFile, "key-file", "", "mmkv: decrypt with the key in this `file`, but for a line break at its end")
	f.StringVar(&key, "key", "", "mmkv: decrypt with this key")
	f.BoolVar(&o.mmkvStrings, "mmkv-strings", false, "mmkv: take the length off values that may be texts")
	return cmd
}

// formatFlags are the flags that are for one format.
var formatFlags = map[string]string{
	"key-column": "csv", "value-column": "csv", "bucket": "bbolt", "key-file": "mmkv", "key": "mmkv", "mmkv-strings": "mmkv",
}

// check looks at what can be wrong before a store is created.
func (o *importing) check(cmd *cobra.Command, files []string) error {
	switch o.format {
	case "jsonl", "csv", "bbolt", "mmkv":
	default:
		return usagef("--format %s: it is jsonl, csv, bbolt or mmkv", o.format)
	}
	for name, format := range formatFlags {
		if cmd.Flags().Changed(name) && format != o.format {
			return usagef("--%s is for --format %s", name, format)
		}
	}
	for _, name := range []string{o.keyCodec, o.valueCodec} {
		if !isCodec(name) {
			return usagef("%q: there is no codec of that name; see kvtool import --help", name)
		}
	}
	oneMap := cmd.Flags().Changed("map")
	makesMaps := o.format == "bbolt" && o.bucket == ""
	if makesMaps && oneMap {
		return usagef("a file of bbolt becomes a map for each of its buckets: --map is for one, which --bucket names")
	}
	for _, file := range files {
		if file == "-" && (o.format == "bbolt" || o.format == "mmkv") {
			return usagef("--format %s needs the names of files", o.format)
		}
		if file != "-" {
			info, err := os.Stat(file)
			if err != nil {
				return err
			}
			if err := o.checkFile(file, info); err != nil {
				return err
			}
			directory := o.format == "mmkv" && info.IsDir()
			if directory && oneMap {
				return usagef("%s is a directory, which becomes a map for each of its files: --map is for one file", file)
			}
			makesMaps = makesMaps || directory
		}
	}
	if (o.keyCodec != "" || o.valueCodec != "") && !oneMap && !makesMaps {
		return usagef("--key-codec and --value-codec are for maps: --map names one")
	}
	return nil
}

// checkFile refuses what the format cannot be read from. Opening a pipe waits for its writer,
// which no signal ends.
func (o *importing) checkFile(path string, info os.FileInfo) error {
	switch {
	case o.format != "bbolt" && o.format != "mmkv", o.format == "mmkv" && info.IsDir():
		return nil
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s: not a regular file, as --format %s needs", path, o.format)
	case o.format == "bbolt" && info.Size() == 0:
		return fmt.Errorf("%s: an empty file is no bbolt file", path)
	}
	return nil
}

// checkNewMap refuses a map that a store which is to be created cannot have.
func (o *importing) checkNewMap(cmd *cobra.Command, store string) error {
	if !o.create || !cmd.Flags().Changed("map") || o.keyCodec != "" && o.valueCodec != "" {
		return nil
	}
	if _, err := os.Stat(store); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("%s: %w: a new store has no map %q; --key-codec and --value-codec make it", store, kv.ErrNotFound, o.name)
}

// isCodec tells whether a map may be made with a codec of that name, or none is named.
func isCodec(name string) bool {
	_, ok := codec.ByName(name)
	message, isMessage := strings.CutPrefix(name, protoPrefix)
	return ok || name == "" || name == "binary" || isMessage && protoreflect.FullName(message).IsValid()
}

// maxSecret bounds a file with a key, in bytes.
const maxSecret = 4096

// secret returns the key that decrypts, or none.
func secret(cmd *cobra.Command, key, file string) ([]byte, error) {
	switch byKey, byFile := cmd.Flags().Changed("key"), cmd.Flags().Changed("key-file"); {
	case byKey && byFile:
		return nil, usagef("either --key or --key-file")
	case byFile:
		b, err := readSome(cmd.Context(), file, maxSecret)
		if b = bytes.TrimRight(b, "\r\n"); err == nil && len(b) == 0 {
			err = fmt.Errorf("%s: there is no key in it", file)
		}
		return b, err
	case byKey && key == "":
		return nil, usagef("--key: an empty key")
	}
	return []byte(key), nil
}

// importer puts entries into a store, in batches.
type importer struct {
	importing
	t       *tool
	bar     *progress
	maxLine int64 // bytes of a line, or of a record

	batch                        []entry
	size                         int64 // bytes of the keys and values in batch
	imported, deadlines, expired int64
	untyped, texts               int64 // values that are bytes for want of types; of MMKV: that became texts
}

// report says what was imported.
func (i *importer) report() {
	i.t.notef("imported %s entries, %s of them with a deadline; skipped %s that have expired",
		humanize.Comma(i.imported), humanize.Comma(i.deadlines), humanize.Comma(i.expired))
	if i.untyped > 0 {
		i.t.notef("%s values have no type in %s, and are the bytes that they were", humanize.Comma(i.untyped), i.format)
	}
	if i.mmkvStrings {
		i.t.notef("%s values were taken as texts, without their length", humanize.Comma(i.texts))
	}
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
	switch i.format {
	case "bbolt":
		return i.bolt(ctx, name)
	case "mmkv":
		return i.mmkv(ctx, name)
	}
	text := i.lines
	if i.format == "csv" {
		text = i.csv
	}
	if name == "-" {
		return text(ctx, newInput(ctx, stdin), "stdin", -1)
	}
	f, err := openFile(ctx, name)
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
	return text(ctx, newInput(ctx, f), name, total)
}

// target returns the mapping of what becomes no map by its own name.
func (i *importer) target() (m *mapping, err error) {
	if !i.one {
		return &i.none, nil
	}
	if i.only == nil {
		i.only, err = i.mapFor(i.name)
	}
	return i.only, err
}

// mapFor returns the mapping of a map, and makes it if it is not there and its codecs are known.
func (i *importer) mapFor(name string) (*mapping, error) {
	info, err := i.s.MapInfo(name)
	if errors.Is(err, kv.ErrNotFound) && !i.one { // a map for bytes
		info, err = kv.MapInfo{Keys: "string", Values: "bytes"}, nil
	}
	if errors.Is(err, kv.ErrNotFound) && i.keyCodec != "" && i.valueCodec != "" {
		err = nil
	}
	if errors.Is(err, kv.ErrNotFound) {
		return nil, fmt.Errorf("%w; --key-codec and --value-codec make it", noMap(i.s, name))
	}
	if err == nil {
		_, err = kv.NewMap(i.s, name, ofBytes(cmp.Or(i.keyCodec, info.Keys)), ofBytes(cmp.Or(i.valueCodec, info.Values)))
	}
	if err != nil {
		return nil, err
	}
	return i.lookup(name)
}

// ofBytes is a codec of bytes under the name of the codec that made them.
type ofBytes string

func (ofBytes) Append(dst []byte, v string) ([]byte, error) { return append(dst, v...), nil }
func (ofBytes) Decode(src []byte) (string, error)           { return string(src), nil }
func (c ofBytes) Name() string                              { return string(c) }

// lines imports the lines of r, total bytes in all (-1: nobody knows).
func (i *importer) lines(ctx context.Context, r io.Reader, name string, total int64) error {
	m, err := i.target()
	if err != nil {
		return err
	}
	in := &lineReader{r: bufio.NewReaderSize(r, 64<<10), max: i.maxLine}
	for number := 1; ; number++ {
		line, err := in.next()
		if err == io.EOF {
			return i.flush()
		}
		if err == nil && len(bytes.TrimSpace(line)) > 0 {
			err = i.line(ctx, m, line)
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

func (i *importer) line(ctx context.Context, m *mapping, line []byte) error {
	e, err := parseEntry(line, m)
	if err != nil {
		return err
	}
	return i.put(ctx, m, e)
}

// untypedEntry is put of an entry whose value is bytes without a type: it is refused if it is
// not of those that the codec writes.
func (i *importer) untypedEntry(ctx context.Context, m *mapping, e entry) error {
	if err := m.values.check(e.value); err != nil {
		return fmt.Errorf("value: %w", err)
	}
	if m.values.isText() {
		i.untyped++
	}
	return i.put(ctx, m, e)
}

// put takes in an entry of m, whose key is copied, unless its deadline has passed.
func (i *importer) put(ctx context.Context, m *mapping, e entry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !e.expires.IsZero() && !e.expires.After(time.Now()) {
		i.expired++
		return nil
	}
	e.key = append(bytes.Clone(m.prefix), e.key...)
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
