package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/dustin/go-humanize"
	"github.com/mmapkv/mmapkv/kv"
)

// The steps of the demo. Each opens the store anew, and returns what it did, in a
// few words.

// writeAndKill has the writer store files, and kills it at about half.
func (d *demo) writeAndKill(ctx context.Context) (string, error) {
	n := len(d.tree.files)
	heard, err := d.converse(ctx, "write", min(256, max(1, n/8)), max(1, n/2))
	return fmt.Sprintf("writer killed by SIGKILL; it had acknowledged %s of %s files", count(heard[ackPut]+heard[ackSkip]), count(n)), err
}

// resume has a second writer go through all files.
func (d *demo) resume(ctx context.Context) (string, error) {
	heard, err := d.converse(ctx, "resume", 256, 0)
	what := fmt.Sprintf("wrote %s files; left alone %s with equal contents", count(heard[ackPut]), count(heard[ackSame]))
	if skipped := heard[ackSkip] + d.tree.skipped; skipped > 0 {
		what += fmt.Sprintf("; %s could not be read", count(skipped))
	}
	return what, err
}

// converse runs the writer and notes what it acknowledges.
func (d *demo) converse(ctx context.Context, op string, window, killAfter int) (heard map[string]int, err error) {
	bar := d.t.progress()
	defer bar.end()
	clear(d.state)
	heard = map[string]int{}
	done := int64(0)
	c := &conversation{tree: d.tree, store: d.store, window: window, killAfter: killAfter, heard: func(i int, ack string) {
		d.state[i] = stateStored
		if ack == ackSkip {
			d.state[i] = stateSkipped
		}
		heard[ack]++
		done += d.tree.files[i].size
		bar.at(op, done, d.tree.bytes)
	}}
	err = c.run(ctx, d.t.err)
	return heard, errors.Join(ctx.Err(), err)
}

// reopen checks that all that was acknowledged before the kill is there.
func (d *demo) reopen(ctx context.Context) (what string, err error) {
	err = d.t.read(d.store, reading{}, func(s *kv.Store) error {
		found, err := d.compareAll(ctx, s)
		what = fmt.Sprintf("%s keys: all %s acknowledged files, byte for byte%s", count(s.Len()), count(found.equal), found.leftOut())
		return err
	})
	return what, err
}

// compare checks that every file is in the store as it should be, and nothing else.
func (d *demo) compare(ctx context.Context) (what string, err error) {
	err = d.t.read(d.store, reading{}, func(s *kv.Store) error {
		found, err := d.compareAll(ctx, s)
		if err != nil {
			return err
		}
		if found.unknown > 0 {
			return fmt.Errorf("%w: the writer left %d files out", errDiffers, found.unknown)
		}
		keys := found.equal + found.changed
		if n := s.Len(); n < keys || n > keys+found.skipped {
			return fmt.Errorf("%w: the store has %d keys, there should be %d", errDiffers, n, keys)
		}
		what = fmt.Sprintf("%s files as they should be, byte for byte", count(found.equal))
		if found.deleted > 0 {
			what += fmt.Sprintf("; %s deleted", count(found.deleted))
		}
		what += found.leftOut()
		return nil
	})
	return what, err
}

// comparison counts files by what was found of them in the store.
type comparison struct {
	equal   int // what it should be
	deleted int // absent, as it should be
	changed int // there, but the file has changed on disk
	skipped int // not compared: the writer could not read it
	unknown int // not compared: the writer has not spoken of it
}

func (c *comparison) leftOut() string {
	if c.changed == 0 {
		return ""
	}
	return fmt.Sprintf("; %s have changed on disk meanwhile", count(c.changed))
}

// compareAll compares what is in the store with what should be. The first
// difference is an error.
func (d *demo) compareAll(ctx context.Context, s *kv.Store) (found comparison, err error) {
	bar := d.t.progress()
	defer bar.end()
	done := int64(0)
	for i := range d.tree.files {
		if err := ctx.Err(); err != nil {
			return found, err
		}
		f := &d.tree.files[i]
		done += f.size
		bar.at("compare", done, d.tree.bytes)
		if err := d.compareOne(s, f, d.state[i], &found); err != nil {
			return found, fmt.Errorf("key %q: %w", f.path, err)
		}
	}
	return found, nil
}

func (d *demo) compareOne(s *kv.Store, f *treeFile, state fileState, found *comparison) error {
	switch state {
	case stateUnknown:
		found.unknown++
		return nil
	case stateSkipped:
		found.skipped++
		return nil
	}
	same, err := d.asItShould(s, f, state)
	switch {
	case same && state == stateDeleted:
		found.deleted++
	case same:
		found.equal++
	case state != stateDeleted && !errors.Is(err, kv.ErrNotFound) && d.tree.changed(f):
		found.changed++
	case err != nil:
		return fmt.Errorf("%w: %w", errDiffers, err)
	default:
		return errDiffers
	}
	return nil
}

// asItShould tells whether the store has for a file what state says.
func (d *demo) asItShould(s *kv.Store, f *treeFile, state fileState) (same bool, err error) {
	err = s.View([]byte(f.path), func(value []byte) error {
		if state == stateOverwritten {
			if !bytes.HasPrefix(value, []byte(overwriteMark)) {
				return errors.New("the value before it was overwritten")
			}
			value = value[len(overwriteMark):]
		}
		same, err = holds(d.tree.name(f), value)
		return err
	})
	if state == stateDeleted {
		return errors.Is(err, kv.ErrNotFound), err
	}
	return same, err
}

// change overwrites every third file and deletes every hundredth.
func (d *demo) change(ctx context.Context) (string, error) {
	overwritten, deleted := 0, 0
	err := d.t.write(d.store, writing{options: kv.Options{CompactAt: -1}}, func(s *kv.Store) error {
		bar := d.t.progress()
		defer bar.end()
		done := int64(0)
		for i := range d.tree.files {
			if err := ctx.Err(); err != nil {
				return err
			}
			f := &d.tree.files[i]
			done += f.size
			bar.at("change", done, d.tree.bytes)
			switch {
			case d.state[i] != stateStored:
			case i%100 == 1:
				if err := s.Delete([]byte(f.path)); err != nil {
					return err
				}
				d.state[i] = stateDeleted
				deleted++
			case i%3 == 0:
				contents, err := os.ReadFile(d.tree.name(f))
				if err != nil || len(contents) > kv.MaxValueSize-len(overwriteMark) {
					continue // it stays as it is
				}
				if err := s.Put([]byte(f.path), append([]byte(overwriteMark), contents...)); err != nil {
					return err
				}
				d.state[i] = stateOverwritten
				overwritten++
			}
		}
		return nil
	})
	return fmt.Sprintf("overwrote %s files and deleted %s", count(overwritten), count(deleted)), err
}

// inspect draws the map of the file.
func (d *demo) inspect(ctx context.Context) (what string, err error) {
	err = d.t.read(d.store, reading{}, func(s *kv.Store) error {
		i, err := d.t.inspect(ctx, s, d.c.mapCells())
		if err != nil {
			return err
		}
		if d.json {
			what = fmt.Sprintf("live %s, dead %s", exactBytes(i.liveBytes), exactBytes(i.deadBytes))
			return nil
		}
		return d.t.print(func(w *bufio.Writer) error {
			w.WriteByte('\n')
			i.drawSpace(w, d.c)
			w.WriteByte('\n')
			return nil
		})
	})
	return what, err
}

func (d *demo) compact(ctx context.Context) (what string, err error) {
	err = d.t.write(d.store, writing{options: kv.Options{CompactAt: -1}}, func(s *kv.Store) error {
		info, err := s.Compact(ctx)
		what = fmt.Sprintf("%s of log became %s", shortBytes(info.Before), shortBytes(info.After))
		return err
	})
	return what, err
}

func (d *demo) check(ctx context.Context) (string, error) {
	report, err := d.t.check(ctx, d.store)
	if err != nil {
		return "", err
	}
	if len(report.Violations) > 0 {
		v := report.Violations[0]
		return "", fmt.Errorf("%w: offset %d: %s", errDiffers, v.Offset, v.What)
	}
	return fmt.Sprintf("every invariant holds: %s records, %s keys", humanize.Comma(report.Records), humanize.Comma(report.Keys)), nil
}
