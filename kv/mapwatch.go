package kv

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"time"
)

// MapEvent is an entry of a Map, or a change to it, that a watch tells of. It belongs to the receiver.
type MapEvent[K comparable, V any] struct {
	Key      K
	Value    V      // zero if Deleted
	Revision uint64 // of the change; see Store.Watch for deletions by Store.Clear
	Deleted  bool
	Expiry   time.Time // from here on the key is absent, without a further event; zero: never
	Missed   uint64    // changes that were passed over since the event before
	Err      error     // why the watch ended; then all else, but Missed, is zero
}

// Watch yields the entries as they are now, and then every change to the map, by whatever
// process, as it happens. The conditions are those of Store.Watch. An entry that does not
// decode ends it, with an event that has Err.
func (m *Map[K, V]) Watch(ctx context.Context) iter.Seq[MapEvent[K, V]] {
	return m.events(m.s.watch(ctx, m.prefix, m.row, (*watch).listNow))
}

// WatchFrom is Watch without the entries as they are now: it yields each change with a revision
// above after. The conditions are those of Store.WatchFrom.
func (m *Map[K, V]) WatchFrom(ctx context.Context, after uint64) iter.Seq[MapEvent[K, V]] {
	return m.events(m.s.watch(ctx, m.prefix, m.row, resumeFrom(after)))
}

func (m *Map[K, V]) events(of iter.Seq[Event]) iter.Seq[MapEvent[K, V]] {
	return func(yield func(MapEvent[K, V]) bool) {
		for e := range of {
			told, err := m.event(e)
			if err != nil {
				told = MapEvent[K, V]{Missed: e.Missed, Err: err}
			}
			if !yield(told) || err != nil {
				return
			}
		}
	}
}

func (m *Map[K, V]) event(e Event) (told MapEvent[K, V], err error) {
	told = MapEvent[K, V]{Revision: e.Revision, Deleted: e.Deleted, Expiry: e.Expiry, Missed: e.Missed, Err: e.Err}
	if e.Err != nil {
		return told, nil
	}
	if told.Key, err = m.keys.Decode(e.Key[len(m.prefix):]); err != nil {
		return told, m.s.wrap("watch", 0, fmt.Errorf("key: %w", err))
	}
	if !e.Deleted {
		told.Value, err = m.decode("watch", e.Value)
	}
	return told, err
}

// Watch yields the value as it is now, the default if there is none, and then what it becomes
// with each change, by whatever process. A receiver that is slow may be spared values in
// between, and never the last. It ends with ctx, the loop or the store; or, after an error has
// been yielded, with that. The rest is as with Store.Watch.
func (v *Value[T]) Watch(ctx context.Context) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for e := range v.m.events(v.m.s.watch(ctx, v.m.prefix, v.m.row, (*watch).listOrNone)) {
			if e.Key != valueKey {
				continue // somebody has the store as a map too
			}
			if e.Deleted {
				e.Value = v.none
			}
			if !yield(e.Value, e.Err) {
				return
			}
		}
	}
}

// listOrNone tells of what is there now, and, if the key that is the prefix is not, that it is
// deleted.
func (w *watch) listOrNone() error {
	v, err := w.s.view()
	if err != nil {
		return err
	}
	defer v.snap.release()
	told, yield := false, w.yield
	w.yield = func(e Event) bool {
		told = told || len(e.Key) == len(w.prefix)
		return yield(e)
	}
	err = w.list(v)
	if w.yield = yield; err != nil || told {
		return err
	}
	return w.tell(Event{Key: bytes.Clone(w.prefix), Revision: v.revision, Deleted: true})
}
