package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mmkv imports the instances of a directory, each as a map of its name, or one data file.
func (i *importer) mmkv(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return i.instance(ctx, path, i.target)
	}
	metas, err := filepath.Glob(filepath.Join(globQuoted(path), "*.crc"))
	metas = slices.DeleteFunc(metas, func(meta string) bool { return filepath.Base(meta) == ".crc" }) // of no name
	if err == nil && len(metas) == 0 {
		err = fmt.Errorf("%s: no file of MMKV in it: those are two, NAME and NAME.crc", path)
	}
	for _, meta := range metas {
		data := strings.TrimSuffix(meta, ".crc")
		if err == nil {
			err = i.instance(ctx, data, func() (*mapping, error) { return i.mapFor(filepath.Base(data)) })
		}
	}
	return err
}

// globQuoted returns the pattern that only path matches.
func globQuoted(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// instance imports one data file into the mapping that target returns, which may make a map:
// it is asked once the file is known to be sound.
func (i *importer) instance(ctx context.Context, path string, target func() (*mapping, error)) error {
	meta, err := readSome(ctx, path+".crc", mmkvMetaSize)
	if err != nil {
		return fmt.Errorf("%w (MMKV keeps the CRC and the size of %s in it: both are needed)", err, path)
	}
	parsed, err := parseMMKVMeta(meta)
	if err != nil {
		return fmt.Errorf("%s.crc: %w", path, err)
	}
	data, err := readSome(ctx, path, maxMMKV+1)
	if err == nil && len(data) > maxMMKV {
		err = fmt.Errorf("%s: more than %s, which no file of MMKV has", path, exactBytes(maxMMKV))
	}
	if err != nil {
		return err
	}
	all, err := parseMMKV(data, parsed, i.mmkvKey)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if all.stale {
		i.t.notef("%s: what was written since its last full rewrite is damaged, and left out, as MMKV does", path)
	}
	m, err := target()
	if err != nil {
		return err
	}
	for n := range all.entries {
		e := &all.entries[n]
		if err := i.mmkvEntry(ctx, m, e); err != nil {
			return errors.Join(fmt.Errorf("%s: offset %d: %w", path, e.off, err), i.flush())
		}
		i.bar.at("import", int64(e.off), int64(len(data)))
	}
	return i.flush()
}

func (i *importer) mmkvEntry(ctx context.Context, m *mapping, e *mmkvEntry) error {
	key, err := m.keys.fromText(string(e.key))
	if err != nil {
		return fmt.Errorf("key %q: %w", e.key, err)
	}
	value := e.value
	if i.mmkvStrings {
		if text, ok := mmkvString(value); ok {
			value = text
			i.texts++
		}
	}
	return i.untypedEntry(ctx, m, entry{key, value, e.expires})
}

// readSome reads at most limit bytes of a file.
func readSome(ctx context.Context, path string, limit int64) ([]byte, error) {
	f, err := openFile(ctx, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(newInput(ctx, f), limit))
}
