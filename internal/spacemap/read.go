package spacemap

import (
	"context"
	"fmt"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/kv"
)

// HeaderBytes are those of a file before its log.
const HeaderBytes = crc.HeaderSize

// readTries is how often a store may be compacted just when it is about to be read.
const readTries = 5

// Read goes through the log of s, calls each with every record and with the offset at which the
// log ended when it began, and returns the map in so many cells, and the figures of the store.
// Others may write and compact it meanwhile: all of it is of one file and one moment. It takes the
// time of reading the log, and the memory of the cells.
func Read(ctx context.Context, s *kv.Store, cells int, each func(r *kv.Record, end int64)) (*Map, kv.Stats, error) {
	for range readTries {
		before := s.Stats()
		var m *Map
		var st kv.Stats
		end := int64(0)
		// The records are those of the generation that the store had when the loop began:
		// of this one, if the store has it before and after that.
		begin := func() bool {
			st = s.Stats()
			m = New(st.FileBytes, cells)
			return st.Generation == before.Generation
		}
		for r, err := range s.Records(ctx) {
			if err != nil {
				return nil, st, err
			}
			if end == 0 && !begin() {
				break
			}
			end = r.Off + r.Len
			m.Record(r.Off, r.Len, r.Live)
			each(&r, before.Tail)
		}
		if end == 0 && !begin() {
			continue
		}
		if len(st.Missing) == 0 && end > 0 {
			st.Tail = end // what was written since the loop began does not count
		}
		m.Add(0, HeaderBytes, Header)
		for _, r := range st.Missing {
			m.Add(r.Off, r.Len, Damaged)
		}
		return m, st, nil
	}
	return nil, kv.Stats{}, fmt.Errorf("%s was compacted again and again while it was read; try again", s.Path())
}
