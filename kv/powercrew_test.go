package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// crew is who has the store of a run open: some handles that share it, each as good as a
// process of its own, or one that does not. A handle may die whenever it asks something of the
// disk: its goroutine stays where it is until the run ends, and its descriptors go. While one is at
// work, others may come between. It is one at a time that runs, so that a seed replays.
type crew struct {
	run     *powerRun
	members []*member
	counted int

	acting *member // nil: none
	nested bool    // another one is at work too, and waits
	over   chan struct{}
	dead   sync.WaitGroup

	// left is what the store would show if what a handle left behind the tail when it died were
	// believed; nil: nothing. It lies at leftAt. again is the first of its mutations.
	left   *storeState
	leftAt int64
	again  *mutation
}

const (
	crewSize    = 3
	dieChance   = 0.015 // at each moment
	visitChance = 0.1
)

// share gives the run a crew.
func (r *powerRun) share() {
	r.crew = &crew{run: r, over: make(chan struct{})}
	r.opts.SyncAligned = false
	r.opts.LockTimeout = 1 // who would wait is refused: nobody runs meanwhile
	r.opts.Shared = r.rng.IntN(4) > 0
}

// member is a handle, with what its process has open.
type member struct {
	disk
	id    int
	s     *Store
	files []file
	names []nameLock
	died  chan struct{}
}

func (c *crew) hire() *member {
	c.counted++
	return &member{disk: c.run.on, id: c.counted, died: make(chan struct{}, 1)}
}

func (m *member) Open(path string, mode mmapfile.Mode) (file, error) {
	return m.keep(m.disk.Open(path, mode))
}

func (m *member) Create(path string, perm fs.FileMode, size int64) (file, error) {
	return m.keep(m.disk.Create(path, perm, size))
}

func (m *member) keep(f file, err error) (file, error) {
	if err == nil {
		m.files = append(m.files, f)
	}
	return f, err
}

func (m *member) OpenName(path string) (nameLock, error) {
	l, err := m.disk.OpenName(path)
	if err == nil {
		m.names = append(m.names, l)
	}
	return l, err
}

// letGo is what the kernel does to the descriptors of a process that dies.
func (m *member) letGo() {
	if m.s != nil {
		m.s.tick.timer.Stop()
		m.s.stop(nil)
	}
	for _, l := range m.names {
		l.Close()
	}
	for _, f := range m.files {
		f.Close()
	}
}

// end lets go of all handles. Who has died comes to the end of its goroutine.
func (c *crew) end() {
	for _, m := range c.members {
		m.letGo()
	}
	close(c.over)
	c.dead.Wait()
}

// heard tells whether a moment is none: of somebody who is long dead. It notes what of that one
// is gone.
func (c *crew) heard(where string) bool {
	select {
	case <-c.over:
		return true
	default:
	}
	if c.left != nil && strings.HasPrefix(where, fmt.Sprintf("after Sync %d,", c.leftAt)) {
		frame := make([]byte, crc.FrameSize)
		c.run.disk.current[storeName].read(frame, c.leftAt)
		if len(bytes.Trim(frame, "\x00")) == 0 { // and no recovery that believed it
			c.left = nil
		}
	}
	return false
}

// openFirst opens the store, which nobody has open, and then, perhaps, has others open it too.
func (r *powerRun) openFirst() {
	for r.lab.failed == nil && len(r.crew.members) == 0 {
		m := r.crew.hire()
		r.act(m, func() {
			if r.openAlone(m); r.lab.failed == nil {
				m.s, r.crew.left = r.s, nil
				r.crew.members = append(r.crew.members, m)
			}
		})
		for n := r.rng.IntN(crewSize); n > 0 && r.lab.failed == nil && r.opts.Shared && len(r.crew.members) > 0; n-- {
			r.join()
		}
	}
}

// join opens the store beside others. It shows what they see.
func (r *powerRun) join() {
	r.note("another opens")
	m := r.crew.hire()
	r.act(m, func() {
		if r.openOn(m) {
			m.s = r.s
			r.lab.joined++
			r.crew.members = append(r.crew.members, m)
			r.undisturbed(func() { r.did(r.last().compare(m.s)) })
		}
	})
}

// besides opens a store beside another handle of it that shows st.
func besides(path string, opts *Options, st *storeState) error {
	s, err := openOn(imageDisk, path, opts)
	if err != nil {
		return fmt.Errorf("beside that: %w", err)
	}
	if err = st.compare(s); err != nil {
		err = fmt.Errorf("beside that: %w", err)
	}
	return errors.Join(err, s.Close())
}

// closeAll has all close the store.
func (r *powerRun) closeAll() {
	for r.lab.failed == nil && len(r.crew.members) > 0 {
		r.leave(r.crew.members[0])
	}
	if r.lab.failed == nil {
		r.moment("after Close")
	}
}

// leave has one close the store.
func (r *powerRun) leave(m *member) {
	r.note("handle %d closes", m.id)
	r.act(m, func() {
		before := r.last().revision
		if r.did(m.s.Close()) {
			r.durable = max(r.durable, before)
			r.crew.fire(m)
		}
	})
}

func (c *crew) fire(m *member) {
	c.members = slices.DeleteFunc(c.members, func(other *member) bool { return other == m })
}

// by has one of the handles do something, or the only one there is.
func (r *powerRun) by(do func()) {
	if r.crew == nil {
		do()
		return
	}
	if r.openFirst(); r.lab.failed == nil {
		r.act(r.crew.members[r.rng.IntN(len(r.crew.members))], do)
	}
}

// act has m do something. It returns when that is done, or m dead.
func (r *powerRun) act(m *member, do func()) {
	c, acting, nested, s, cut, kill := r.crew, r.crew.acting, r.crew.nested, r.s, r.cutChance, r.killChance
	compacting, copying := r.compacting, r.copying
	c.acting, r.s, r.compacting = m, m.s, false
	done := make(chan error, 1)
	c.dead.Go(func() {
		var err error
		defer func() { done <- err }()
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
			}
		}()
		do()
	})
	select {
	case err := <-done:
		r.did(err)
	case <-m.died:
		c.fire(m)
		r.resolve()
	}
	c.acting, c.nested, r.s, r.cutChance, r.killChance = acting, nested, s, cut, kill
	r.compacting, r.copying = compacting, copying
}

// die ends the handle that is at work.
func (r *powerRun) die(where string) {
	r.note("handle %d dies %s", r.crew.acting.id, where)
	r.lab.died++
	m := r.crew.acting
	m.letGo()
	m.died <- struct{}{}
	<-r.crew.over
	runtime.Goexit()
}

// resolve finds out what has become of the mutation under way, whose writer has died: if it was
// published, it is to stay.
func (r *powerRun) resolve() {
	next := r.next
	if next == nil {
		return
	}
	s, err := openOn(osDisk{}, filepath.Join(r.disk.dir, storeName), &Options{ReadOnly: true})
	if !r.did(err) {
		return
	}
	defer s.Close()
	if s.Stats().Revision == next.revision {
		r.commit(next)
	}
	r.next = nil
}

// refused tells whether an operation was, for one that waits has what it needs.
func (r *powerRun) refused(err error) bool {
	no := r.crew != nil && r.crew.nested && (errors.Is(err, ErrLocked) || errors.Is(err, errCheckpointing))
	if no {
		r.next = nil
	}
	return no
}

// undisturbed takes in what others have done, who may do more meanwhile, and then does
// something while they do not.
func (r *powerRun) undisturbed(do func()) {
	if r.crew == nil || !r.opts.Shared {
		do()
		return
	}
	nested := r.crew.nested
	for range 2 {
		_, err := r.s.followed(r.s.gen.Load())
		r.did(err)
		r.crew.nested = true
	}
	r.s.background.Wait()
	do()
	r.crew.nested = nested
}

// othersMayAct has, perhaps, the handle that is at work die, or another one do something before
// that goes on.
func (r *powerRun) othersMayAct(where string) {
	c := r.crew
	if c.acting == nil {
		return
	}
	if r.rng.Float64() < dieChance {
		r.die(where)
	}
	if c.nested || !r.opts.Shared || len(c.members) < 2 || r.rng.Float64() > visitChance {
		return
	}
	next := r.next
	if r.resolve(); r.next == nil && next != nil && next != r.last() && r.last().revision != next.revision {
		r.next = next
		return // nobody sees it yet
	}
	m := c.members[r.rng.IntN(len(c.members))]
	if m == c.acting || r.lab.failed != nil {
		return
	}
	r.note("%s, handle %d", where, m.id)
	c.nested = true
	r.act(m, func() {
		switch n := r.rng.IntN(10); {
		case n < 5:
			r.write(r.rng.IntN(3) == 0, r.transaction()...)
		case n < 7:
			r.sync()
		case n < 9 && !r.copying: // it would wait for that one
			r.compact()
		default:
			r.checkpoint()
		}
	})
	c.nested = false
	r.note("and on")
}

// workTogether has a handle do something, or makes others of the crew.
func (r *powerRun) workTogether() {
	if r.openFirst(); r.lab.failed != nil {
		return
	}
	c := r.crew
	m := c.members[r.rng.IntN(len(c.members))]
	switch n := r.rng.IntN(100); {
	case n < 6:
		r.act(m, func() { r.die("idle") })
	case n < 14:
		r.act(m, r.dieAppending)
	case n < 30:
		if r.opts.Shared && len(c.members) < crewSize {
			r.join()
		}
	case n < 34:
		r.leave(m)
	case n < 37:
		r.closeAll()
		r.opts.Shared = r.rng.IntN(2) == 0
		r.openFirst()
	default:
		r.by(r.operate)
	}
	if again := c.again; again != nil && r.rng.IntN(2) == 0 {
		c.again = nil
		r.by(func() { r.write(r.rng.IntN(4) == 0, *again) })
	}
}

// dieAppending has a handle die when it has stored some records behind the tail, all of a
// transaction or not, and not moved it. The kernel may write what it likes of that.
func (r *powerRun) dieAppending() {
	var muts []mutation
	for _, i := range r.rng.Perm(keyCount)[:1+r.rng.IntN(3)] {
		muts = append(muts, mutation{key: keyName(i), size: r.size(keyName(i))})
	}
	r.note("%v, and no further", muts)
	r.undisturbed(func() {})
	running := r.s.closing
	r.s.closing = halted
	g, err := r.s.lockWrites(context.Background())
	if !r.did(err) {
		return
	}
	st := r.stored(g, muts, 1+r.rng.IntN(len(muts)))
	r.s.closing = running
	r.crew.left, r.crew.leftAt, r.crew.again = st, g.end.Load(), &muts[0]
	r.lab.appending++
	r.disk.writeBack(r.rng)
	for range 2 {
		r.moment("in an append")
	}
	r.die("in an append")
}

// stored stores the first n records of a transaction behind the tail, and returns what the store would
// show with them, nil for what it shows without.
func (r *powerRun) stored(g *generation, muts []mutation, n int) *storeState {
	st := &storeState{revision: r.last().revision, keys: make(map[string]string), muts: muts}
	for k, v := range r.last().keys {
		st.keys[k] = v
	}
	entries, size := make([]codec.Entry, len(muts)), int64(0)
	for i, m := range muts {
		e := &entries[i]
		*e = codec.Entry{Key: []byte(m.key), Value: r.value(m.size)}
		r.s.stamp(g, e, uint64(i+1))
		st.revision, st.keys[m.key] = e.Revision, string(e.Value)
		size += crc.RecordSize(e.Size())
	}
	off, err := r.s.room(g, size, len(muts))
	if !r.did(err) {
		return nil
	}
	if r.opts.Shared {
		g.writtenWord().Store(uint64(off + size))
	}
	for i := range entries[:n] {
		flags := crc.FlagMore
		if i == len(entries)-1 {
			flags = 0
		}
		g.encode(&entries[i], entries[i].Size(), off, flags)
		off += crc.RecordSize(entries[i].Size())
	}
	if n < len(entries) {
		return nil
	}
	return st
}

// writeBack makes some of the pages durable that were written to, as the kernel may at any time.
func (d *powerDisk) writeBack(r *rand.Rand) {
	for _, name := range byCreation(d.current) {
		n := d.current[name]
		for off := int64(0); off < int64(len(n.durable)); off += pageSize {
			if r.IntN(2) == 0 {
				n.syncRange(off, min(pageSize, int64(len(n.durable))-off), false)
			}
		}
	}
}
