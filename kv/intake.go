package kv

import (
	"runtime"
	"sync/atomic"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// intake enters the records of a log into the index of a generation that nobody
// reads yet, run by run, in batches. Where there are many, a goroutine of its own does
// that: one processor then sums records, while another waits for the memory of the
// index.
type intake struct {
	s *Store
	g *generation

	from  int64          // offset at which it began
	fill  []intakeRecord // owned by whoever adds
	whole int            // records of fill, from its start, whose run is whole

	// The goroutine's batches go round: full to it, and empty back. Both are nil while
	// there is none.
	full, empty chan []intakeRecord
	low         atomic.Bool   // the index will need memory: whoever adds gets it, and touches it
	chunks      chan chunk    // that memory
	failed      chan struct{} // closed where a batch could not be entered: later ones are not
	ended       chan struct{} // closed when the goroutine has ended
	err         error         // why it failed; with a goroutine, to be read once either is closed
}

// intakeRecord is what the index wants to know of a record.
type intakeRecord struct {
	key       []byte
	hash      uint64
	off, size int64
	revision  uint64
	written   int64
	kind      codec.Kind
	mortal    bool
}

const (
	intakeShort   = 1 << 20 // bytes of log for which a goroutine is not worth its cost
	intakeLen     = 1024    // records in a batch for it
	intakeBatches = 8       // so many are on their way, as a goroutine takes long to wake
	touchAhead    = 64      // records whose slots are touched at once; in a batch without a goroutine
)

// newIntake makes one for what lies behind from. It is to be closed.
func (s *Store) newIntake(g *generation, from int64) *intake {
	return &intake{s: s, g: g, from: from, fill: make([]intakeRecord, 0, touchAhead)}
}

// start has the goroutine do the rest.
func (in *intake) start() {
	in.full, in.empty = make(chan []intakeRecord, intakeBatches), make(chan []intakeRecord, intakeBatches)
	in.chunks = make(chan chunk, 1)
	in.failed, in.ended = make(chan struct{}), make(chan struct{})
	records := make([]intakeRecord, intakeBatches*intakeLen)
	for ; len(records) > 0; records = records[intakeLen:] {
		in.empty <- records[:0:intakeLen]
	}
	in.fill = append(<-in.empty, in.fill...)
	go in.run()
}

// run enters what is delivered until there is no more. After a failure it goes on
// taking batches, so that nobody waits for it in vain.
func (in *intake) run() {
	defer close(in.ended)
	for batch := range in.full {
		in.takeChunk()
		if in.err == nil {
			if in.err = in.s.enterBatch(in.g, batch); in.err != nil {
				close(in.failed)
			}
		}
		in.empty <- batch[:0]
	}
}

func (in *intake) takeChunk() {
	ix := in.g.index
	ix.mu.Lock()
	defer ix.mu.Unlock()
	select {
	case c := <-in.chunks:
		ix.addChunk(c)
	default:
	}
	in.low.Store(ix.runsLow())
}

// add takes in a record of a run. It returns false, and forgets the run, where that
// does not fit in a batch.
func (in *intake) add(r *logRecord) (fits bool, err error) {
	if len(in.fill) == cap(in.fill) {
		if in.whole == 0 {
			in.fill = in.fill[:0]
			return false, nil
		}
		if err := in.deliver(); err != nil {
			return false, err
		}
	}
	e := &r.entry
	in.fill = append(in.fill, intakeRecord{
		key: e.Key, hash: in.g.index.hash.sum(e.Key), off: r.off, size: r.size,
		revision: e.Revision, written: e.Written, kind: e.Kind, mortal: e.Expiry != 0,
	})
	if !r.more {
		in.whole = len(in.fill)
	}
	return true, nil
}

// addSpan takes in the records of [from, end), which have been verified, and whose
// runs are whole.
func (in *intake) addSpan(log []byte, from, end int64) error {
	scan := scanner{log: log[:end], header: &in.g.header, off: from, trusted: true}
	for r := new(logRecord); scan.off < end; {
		err := scan.read(r)
		if err == nil {
			r.more = false
			_, err = in.add(r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// deliver has the whole runs of fill entered, here or by the goroutine.
func (in *intake) deliver() error {
	batch, rest := in.fill[:in.whole], in.fill[in.whole:]
	in.whole = 0
	if in.full == nil {
		in.err = in.s.enterBatch(in.g, batch)
		in.fill = append(in.fill[:0], rest...)
		if in.err == nil && in.g.end.Load()-in.from > intakeShort && runtime.GOMAXPROCS(0) > 1 {
			in.start()
		}
		return in.err
	}
	select {
	case <-in.failed:
		return in.err
	case next := <-in.empty:
		in.fill = append(next, rest...)
		in.full <- batch // there is room for all batches
		in.lookAhead()
		return nil
	}
}

// lookAhead gets memory for the index if that will need some. To clear a huge page
// takes milliseconds.
func (in *intake) lookAhead() {
	if !in.low.Load() || len(in.chunks) > 0 {
		return
	}
	c, err := in.g.index.more(true)
	if err != nil {
		return // the index will hear of it
	}
	atomic.StoreUint64(&c.words[0], 0)
	in.chunks <- c
}

// hasFailed tells whether a batch could not be entered, so far.
func (in *intake) hasFailed() bool {
	if in.full == nil {
		return in.err != nil
	}
	select {
	case <-in.failed:
		return true
	default:
		return false
	}
}

// close enters what is whole, ends the goroutine, and returns why the index does not
// have all of it.
func (in *intake) close() error {
	if in.whole > 0 && !in.hasFailed() {
		_ = in.deliver() // in.err is the same
	}
	if in.full != nil {
		close(in.full)
		<-in.ended
	}
	return in.err
}

// enterBatch enters records that lie at the end of the log.
func (s *Store) enterBatch(g *generation, batch []intakeRecord) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	g.index.mu.Lock()
	defer g.index.mu.Unlock()
	defer g.index.count() // of a batch that fails in its middle, too
	if err := g.enterAll(batch); err != nil {
		return err
	}
	last := &batch[len(batch)-1]
	written := last.written
	for i := range batch {
		written = max(written, batch[i].written)
	}
	s.clock.seen(written)
	g.end.Store(last.off + last.size)
	g.revision.Store(max(g.header.BaseRevision, last.revision))
	return nil
}

// enterAll makes the index agree with records of the log. The caller holds index.mu.
func (g *generation) enterAll(records []intakeRecord) error {
	for len(records) > 0 {
		n := min(len(records), touchAhead)
		if err := g.enterTouched(records[:n]); err != nil {
			return err
		}
		records = records[n:]
	}
	return nil
}

// enterTouched makes the index agree with at most touchAhead records, or notes them, having
// touched what it will look at: the slots, and then the records that these name. None
// of the loads of a pass depends on another, so that their misses overlap.
func (g *generation) enterTouched(records []intakeRecord) error {
	var hints [touchAhead]int64
	touched := 0
	t := g.index.table.Load()
	for i := range records {
		if entry := t.dir[records[i].hash>>t.shift].Load(); entry&unloaded == 0 {
			touched += int(t.home(entry, records[i].hash))
		}
	}
	for i := range records {
		hints[i] = g.index.hint(records[i].hash)
	}
	for _, off := range hints[:len(records)] {
		if p, ok := g.log.payload(off); ok {
			touched += int(p[0])
		}
	}
	runtime.KeepAlive(touched) // which keeps the loads
	var live, mortal int64
	for i := range records {
		r := &records[i]
		if !g.index.note(r) { // what a noted one replaces counts as live until the note is entered
			replaced, err := g.index.apply(r.kind, r.hash, r.key, r.off)
			if err != nil {
				return err
			}
			live -= replaced
		}
		if r.kind != codec.Delete {
			live += r.size
			if r.mortal {
				mortal += r.size
			}
		}
	}
	g.book(live, mortal, int64(len(records)), records[len(records)-1].off)
	return nil
}

// enterNew is enterAll for puts of keys that the index does not have, each of which comes
// once: the slots of another index name them.
func (g *generation) enterNew(records []intakeRecord) error {
	const ahead = 16 // records whose slots are on their way
	var live, mortal int64
	for i := range records {
		if next := i + ahead; next < len(records) {
			g.index.prefetch(records[next].hash)
		}
		r := &records[i]
		if err := g.index.add(r.hash, r.key, r.off); err != nil {
			return err
		}
		live += r.size
		if r.mortal {
			mortal += r.size
		}
	}
	if n := len(records); n > 0 {
		g.book(live, mortal, int64(n), records[n-1].off)
	}
	return nil
}
