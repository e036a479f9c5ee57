package kv

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// Store is an open store. Its methods may be called from any number of
// goroutines. Get, View, Has and GetMany never wait for anybody, but where a ReadOnly or
// Shared handle has something new to take in. Iter, Records, Verify,
// WriteTo, Watch and Stats wait for the step in which a writer brings the index up to
// date. Writers wait for each other.
type Store struct {
	path string  // absolute, symbolic links resolved; immutable
	opts Options // defaults spelled out; immutable
	disk disk    // immutable

	gen   atomic.Pointer[generation] // nil after Close; replaced under follow
	clock clock

	// mu is the write lock. It is held while a record is appended and published
	// and while a Compute or Update runs its function, and never while a writer
	// waits for a durability point.
	mu   sync.Mutex
	gate gate // before mu, for all who mutate

	sync    syncer
	tick    ticker
	poison  atomic.Pointer[error] // the sync that failed; nil: none did
	compact chan struct{}         // holds a token while nobody compacts
	follow  sync.Mutex            // one reader catches up at a time, of a handle that follows others; before sync and index.mu
	follows bool                  // others write what this handle reads; immutable
	turns   turns                 // of a Shared store
	company nameLock              // of a Shared store; immutable
	waiting waiting

	spawning   sync.Mutex     // orders spawn and Close
	background sync.WaitGroup // goroutines that Close waits for
	closing    context.Context
	stop       context.CancelCauseFunc
	closeOnce  sync.Once
	closeErr   error

	checkpointing  atomic.Bool // somebody takes a checkpoint in the background
	checkpointFrom time.Time   // owned by who set checkpointing: not before it

	compactKicked atomic.Bool  // a compaction is about to start or under way
	compactFrom   atomic.Int64 // dead bytes at which the next one may start by itself

	syncs, grows, compactions atomic.Uint64
	corruptions               corruptions
}

// Open opens the store at path, and creates it if there is none and opts do not
// say ReadOnly. The zero Options, or nil, are right for most programs.
//
// One handle at a time may write a store: a second Open gets ErrLocked, naming
// the process. Any number may open it ReadOnly, from any process, at any time.
//
// After a kill or a power cut Open recovers by itself: the store is in the state
// after some prefix of the writes, at or beyond the last durability point. A
// damaged store is refused with ErrCorrupt (see CorruptError, Options.Salvage);
// ErrFormat and ErrVersion refuse other files; nothing on disk is changed then.
//
// After Close, Open takes much the same time at any number of keys; after a kill or
// a power cut it reads what was written since the last checkpoint (see
// Options.CheckpointBytes), or, without one, the whole log. What it has not read, it
// verifies in the background, and each read verifies its record until then: damage
// there is ErrCorrupt when it is met, and Hooks.Corrupted hears of it.
func Open(path string, opts *Options) (*Store, error) {
	s, err := openOn(diskAt(path), path, opts)
	if err != nil {
		return nil, err
	}
	g := s.gen.Load()
	s.finishResume(g)
	s.checkpointIfDue(g)
	return s, nil
}

func openOn(d disk, path string, opts *Options) (*Store, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, wrapError("open", path, 0, err)
	}
	resolved, err := resolve(path)
	for _, suffix := range []string{nextSuffix, indexSuffix, newIndexSuffix} {
		if err == nil && !o.ReadOnly && strings.HasSuffix(resolved, suffix) {
			// Another store's holder would take it for its own, and remove it.
			err = fmt.Errorf("%w: names that end with %q are not for stores", fs.ErrInvalid, suffix)
		}
	}
	if err != nil {
		return nil, wrapError("open", path, 0, err)
	}
	return openStore(d, resolved, o)
}

// openStore opens the store that d has at path; o is complete.
func openStore(d disk, path string, o Options) (*Store, error) {
	s := &Store{path: path, opts: o, disk: d, compact: make(chan struct{}, 1), follows: o.Shared || o.ReadOnly && !o.Salvage}
	s.compact <- struct{}{}
	s.sync.init()
	s.closing, s.stop = context.WithCancelCause(context.Background())
	g, err := s.openGeneration()
	if err != nil {
		s.stop(err)
		return nil, s.wrap("open", 0, err)
	}
	if g.synced.Load() == g.end.Load() || !o.Shared {
		s.sync.durable = g.revision.Load() // settled
	}
	s.gen.Store(g)
	s.compactFrom.Store(s.compactFloor())
	s.startTicker()
	if err := s.leaveFailed(g); err != nil {
		s.Close()
		return nil, s.wrap("open", 0, err)
	}
	if kind := g.mapped.FileSystem(); strings.Contains(kind, "fuse") && !o.ReadOnly {
		o.Logger.Warn("a FUSE file system may keep neither mappings nor locks coherent", "path", path, "kind", kind)
	}
	return s, nil
}

// leaveFailed writes the next generation of a file whose sync has failed once.
func (s *Store) leaveFailed(g *generation) error {
	if s.opts.ReadOnly {
		return nil
	}
	failed, err := g.hasFailed()
	if err != nil || !failed {
		return err
	}
	s.opts.Logger.Warn("a sync of the file has failed: what it holds is written anew", "path", s.path)
	_, err = s.nextGeneration(context.Background(), "open", false)
	return err
}

// resolve makes path absolute and follows symbolic links, so that a compaction
// replaces the store and not a link to it.
func resolve(path string) (string, error) {
	if path == "" {
		return "", fmt.Errorf("%w: no path", fs.ErrInvalid)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if target, err := filepath.EvalSymlinks(abs); err == nil {
		return target, nil
	}
	if fi, err := os.Lstat(abs); err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		return "", fmt.Errorf("%w: symbolic link to a file that is not there", fs.ErrNotExist)
	}
	return abs, nil
}

// openGeneration opens, or creates, the file at the path and recovers it.
func (s *Store) openGeneration() (*generation, error) {
	if s.opts.ReadOnly {
		return s.openToFollow()
	}
	if s.opts.Shared {
		return s.openToShare()
	}
	f, before, err := s.claimFile(s.claimAlone)
	if err != nil {
		return nil, err
	}
	g, err := s.openAlone(f, before)
	if err != nil {
		refuse(f, cmp.Or(before, &head{}))
	}
	return g, err
}

// openToFollow opens the file at the path, which others may write.
func (s *Store) openToFollow() (*generation, error) {
	f, err := s.disk.Open(s.path, s.mode())
	if err != nil {
		return nil, err
	}
	id, err := f.Identity()
	if err != nil {
		f.Close()
		return nil, err
	}
	g, err := s.load(f, id, s.opts.Shared)
	if err != nil {
		f.Close()
	}
	return g, err
}

// openAlone recovers the file f, which nobody else writes, and which was what before says, or, with
// nil, has just been created.
func (s *Store) openAlone(f file, before *head) (*generation, error) {
	var id mmapfile.Identity
	if before != nil {
		id = before.identity
	}
	g, err := s.load(f, id, false)
	if err == nil && before != nil {
		// A compaction, or a checkpoint, that was cut off left them; only the lock's
		// holder makes either.
		s.disk.Remove(s.path + nextSuffix)
		s.disk.Remove(s.path + newIndexSuffix)
		// Whoever created or renamed the file may have died before it synced its name.
		if err = s.settle(g, before.holder != 0); err != nil {
			g.setFailed()
		}
		err = errors.Join(err, syncDir(s.disk, filepath.Dir(s.path)))
	}
	return g, err
}

func (s *Store) mode() mmapfile.Mode {
	if s.opts.ReadOnly {
		return mmapfile.ReadOnly
	}
	return mmapfile.ReadWrite
}

// letGo closes a file, and with it releases the lock, having set the holder.
func letGo(f file, holder uint64) error {
	// The holder is informative only: a fault in setting it is nobody's concern.
	_ = setHolder(f, holder)
	return f.Close()
}

func setHolder(f file, holder uint64) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(f.mapped(), &err)
	f.Mapping().Word(crc.HolderOff).Store(holder)
	return nil
}

// load checks the header of f, which was id before anybody wrote to it, and makes the
// index, from a checkpoint if there is one, else from the log. With shared, others may be
// writing the file: the log ends where its tail word says.
func (s *Store) load(f file, id mmapfile.Identity, shared bool) (*generation, error) {
	h, err := s.readHeader(f)
	if err != nil {
		return nil, err
	}
	if h.BaseRevision > maxRevision {
		return nil, errOrder
	}
	h.identity, h.shared = id, shared
	if g, err := s.resume(f, &h); g != nil {
		return g, err
	}
	if !s.opts.ReadOnly && !shared {
		// One that does not fit now must not fit by chance later.
		s.disk.Remove(s.path + indexSuffix)
	}
	for {
		g := s.newGeneration(f, &h)
		if err := s.recover(g, &h); err != errCame {
			return g, err
		}
	}
}

// newGeneration makes the generation of the file f with header h.
func (s *Store) newGeneration(f file, h *head) *generation {
	g := newGeneration(f, h.Header)
	g.marks.Store(h.nextMark)
	g.marksSynced = h.nextMark
	g.checkpointAt.Store(s.opts.CheckpointBytes)
	if h.damage != nil {
		g.missing, g.reached = append(g.missing, h.lost), append(g.reached, 0)
	}
	return g
}

// head is what a file's header says.
type head struct {
	crc.Header
	damage     error // why header and copy are not both as they were; nil: the header is sound
	lost       Range // what is damaged, if damage says so
	mark       crc.Mark
	unmarked   bool   // the mutable page was lost, and with it the knowledge of what was synced
	unreadable bool   // the mutable page cannot even be read
	nextMark   uint64 // slot
	holder     uint64
	boot       uint64
	identity   mmapfile.Identity // of the file, before it was locked
	shared     bool              // others may be writing the file, and have been since before it was opened
}

// immutablePart is where the immutable part of a header lies, and copyPart its copy.
var (
	immutablePart = Range{Off: 0, Len: crc.ImmutableSize}
	copyPart      = Range{Off: crc.CopyOff, Len: crc.ImmutableSize}
)

// readHeader reads the header of f. To salvage, its copy is as good.
func (s *Store) readHeader(f file) (head, error) {
	h, err := readHeader(f)
	if err == nil && !s.opts.Salvage {
		err = h.refuse(s.path)
	}
	return h, err
}

// refuse returns why a header is not to be believed unless there is no better one.
func (h *head) refuse(path string) error {
	var fault *mmapfile.FaultError
	if h.damage == nil || errors.As(h.damage, &fault) {
		return h.damage
	}
	return &CorruptError{Path: path, Ranges: []Range{h.lost}, What: h.damage.Error()}
}

func readHeader(f file) (h head, err error) {
	m := f.Mapping()
	defer runtime.KeepAlive(m)
	log := m.Bytes()
	b := log[:min(len(log), crc.HeaderSize)]
	err = guarded(f, func() (err error) { h.Header, err = crc.DecodeHeader(b); return err })
	var copied crc.Header
	copyErr := guarded(f, func() (err error) { copied, err = crc.DecodeCopy(b); return err })
	switch {
	case err != nil && copyErr != nil:
		return h, err
	case err != nil:
		h.Header, h.damage, h.lost = copied, fmt.Errorf("%w, though its copy is whole", err), immutablePart
	case copyErr == nil && copied != h.Header:
		h.damage, h.lost = errTwoHeaders, copyPart
		if firstRecord(f.mapped(), log, &copied) < firstRecord(f.mapped(), log, &h.Header) {
			h.Header, h.lost = copied, immutablePart
		}
	}
	err = guarded(f, func() error {
		h.mark, h.nextMark = crc.DecodeMark(b, &h.Header), crc.NextMark(b, &h.Header)
		h.holder, h.boot = m.Word(crc.HolderOff).Load(), m.Word(crc.BootOff).Load()
		return nil
	})
	if err != nil {
		h.damage, h.lost, h.unreadable = cmp.Or(h.damage, err), Range{crc.Page, crc.HeaderSize - crc.Page}, true
		h.mark = crc.Mark{Off: crc.HeaderSize, Revision: h.BaseRevision}
	}
	h.unmarked = (copyErr != nil || copied != h.Header) && h.mark.Off == crc.HeaderSize
	return h, nil
}

// guarded runs fn, which reads the mapping of f.
func guarded(f file, fn func() error) (err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(f.mapped(), &err)
	return fn()
}

// errTwoHeaders: one of the two pages is another file's. Which one, only the records
// can tell; if it is the first, none of them verifies by it, and the store would
// look empty.
var errTwoHeaders = errors.New("the file header and its copy are those of two files")

// firstRecord returns where the first record lies that verifies by header h, or the
// end of the log.
func firstRecord(mapped *mmapfile.File, log []byte, h *crc.Header) int64 {
	scan := scanner{mapped: mapped, log: log, header: h, off: crc.HeaderSize - crc.Align}
	scan.resync()
	return scan.off
}

// claimFile opens the file at the path for writing, creating it if need be, and has claim lock
// it, which tells what the header said before; with neither that nor an error, another file is
// at the path by now. It returns no header of a new file.
func (s *Store) claimFile(claim func(f file) (before *head, err error)) (f file, before *head, err error) {
	deadline := time.Now().Add(s.opts.LockTimeout)
	again := false
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		f, err = s.disk.Open(s.path, mmapfile.ReadWrite)
		if errors.Is(err, fs.ErrNotExist) {
			f, err = s.create()
			if errors.Is(err, fs.ErrExist) && !again {
				again = true
				continue // somebody else was first
			}
			return f, nil, err
		}
		if err != nil {
			return nil, nil, err
		}
		if before, err = claim(f); err == nil && before != nil {
			return f, before, nil
		}
		refuse(f, before)
		// Where those who share keep each other waiting, that has been waited for.
		var locked *mmapfile.LockedError
		waits := errors.As(err, &locked) && !(s.opts.Shared && locked.Shared) && time.Now().Add(wait).Before(deadline)
		if err != nil && !waits {
			return nil, nil, err
		}
		time.Sleep(wait)
	}
}

// refuse closes a file which was claimed, if before is not nil, and leaves it as it was.
func refuse(f file, before *head) {
	if before == nil {
		f.Close()
		return
	}
	letGo(f, before.holder)
}

// claimAlone locks f for one who writes alone.
func (s *Store) claimAlone(f file) (before *head, err error) {
	// To lock writes to the file: not before it is known to be a store.
	h, err := s.readHeader(f)
	if err == nil {
		h.identity, err = f.Identity()
	}
	if err == nil {
		err = lockAlone(f)
	}
	if err != nil {
		return nil, err
	}
	if err := s.refuseCompany(h.holder); err != nil {
		return &h, err
	}
	if still, err := s.stillThere(f); err != nil || !still {
		letGo(f, h.holder)
		return nil, err
	}
	return &h, nil
}

// stillThere tells whether f, which has just been locked, is the file to use. The lock is on
// the inode: a compaction may have put another at the path meanwhile. And who closed the file
// may have made it shorter than it is mapped: it would look as if it could take more.
func (s *Store) stillThere(f file) (bool, error) {
	at, err := f.IsAt(s.path)
	if err == nil && at {
		err = f.Refresh()
	}
	return at && !shrank(f), err
}

// shrank tells whether f has been cut since it was mapped, as who closes it does: what is mapped
// beyond its end faults.
func shrank(f file) bool { return int64(len(f.Mapping().Bytes())) > f.Size() }

const (
	ownSuffix  = ".mmapkv-"         // of all that lies beside a store
	newSuffix  = ownSuffix + "new-" // + random: a store that has not got its name yet
	nextSuffix = ownSuffix + "next" // the generation that a compaction writes
	minExtent  = 32 << 10           // bytes: the length of a new store
)

// create makes an empty store. It gets its name only when it is whole: a crash
// leaves either nothing at the path or an empty store.
func (s *Store) create() (file, error) {
	var random [8]byte
	rand.Read(random[:])
	temp := s.path + newSuffix + hex.EncodeToString(random[:])
	now := time.Now().UnixNano()
	h := crc.Header{Generation: 1, Created: now, GenerationCreated: now}
	rand.Read(h.StoreID[:])
	f, err := s.createFile(temp, &h, minExtent)
	if err != nil {
		return nil, err
	}
	err = f.SyncFile()
	if err == nil && s.opts.Shared {
		_, err = f.TryLockByte(turnLock, false) // nobody else has the file
	}
	if err == nil {
		// Link and not rename: whoever loses the race must not replace the winner.
		err = s.disk.Link(temp, s.path)
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
			err = fmt.Errorf("a store needs a file system with hard links: %w", err)
		}
	}
	s.disk.Remove(temp)
	if err == nil {
		err = syncDir(s.disk, filepath.Dir(s.path))
	}
	if err != nil {
		letGo(f, 0) // it may have its name
		return nil, err
	}
	return f, nil
}

// createFile makes a locked file with a header and no record. It draws what is
// random in each generation, and writes it to h.
func (s *Store) createFile(path string, h *crc.Header, size int64) (file, error) {
	var random [16]byte
	rand.Read(random[:])
	h.Salt = binary.LittleEndian.Uint64(random[:])
	h.HashSeed = binary.LittleEndian.Uint64(random[8:])
	h.Version = crc.Version
	f, err := s.disk.Create(path, s.opts.Perm, size)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, crc.HeaderSize)
	crc.EncodeHeader(buf, h)
	putTail(buf, crc.HeaderSize)
	binary.LittleEndian.PutUint64(buf[crc.BootOff:], mmapfile.BootID())
	// One page after the other: the kernel caches what is written at once in one
	// piece, and would write the immutable page again whenever the other changes.
	for off := int64(0); err == nil && off < crc.HeaderSize; off += crc.Page {
		_, err = f.WriteAt(buf[off:off+crc.Page], off)
	}
	if err == nil && s.opts.Shared {
		err = errors.Join(f.TryShare(), takePresence(f), setHolder(f, uint64(os.Getpid())))
	} else if err == nil {
		err = lockAlone(f)
	}
	if err != nil {
		f.Close()
		s.disk.Remove(path)
		return nil, err
	}
	return f, nil
}

// lockAlone takes the file's lock for one who writes alone.
func lockAlone(f file) error {
	if err := f.TryLock(crc.HolderOff); err != nil {
		return err
	}
	return takePresence(f)
}

// putTail sets the tail word in the header of a file that nobody has open yet.
func putTail(header []byte, word uint64) { binary.LittleEndian.PutUint64(header[crc.TailOff:], word) }

// spawn runs fn on a goroutine that Close waits for, unless the store is closing.
func (s *Store) spawn(fn func()) {
	s.spawning.Lock()
	defer s.spawning.Unlock()
	if s.closing.Err() != nil {
		return
	}
	s.background.Go(fn)
}

// letGoOf closes the file of g for good, with a checkpoint if all of it is durable.
func (s *Store) letGoOf(g *generation, durable bool) error {
	var checkpoint file
	if durable {
		checkpoint = s.lastCheckpoint(g)
	}
	if checkpoint == nil {
		return letGo(g.file, 0)
	}
	defer checkpoint.Close()
	_ = setHolder(g.file, 0)
	if err := markClosed(checkpoint, g); err != nil {
		s.opts.Logger.Warn("the checkpoint does not say that the store was closed", "path", s.path, "err", err)
	}
	return g.file.Close()
}

// Path returns the path of the file, absolute and with symbolic links resolved; of a
// store in memory it is empty.
func (s *Store) Path() string {
	if s.memory() != nil {
		return ""
	}
	return s.path
}

// Close syncs what has been written, trims the slack off the file, and releases
// the lock and the descriptor. Readers that are under way finish; everything
// that begins later returns ErrClosed. The error is that of the last sync: with
// it, what was written since the last durability point may be lost in a power
// cut. Further calls return the same.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.spawning.Lock()
		s.stop(ErrClosed)
		s.spawning.Unlock()
		s.tick.timer.Stop()
		s.waiting.end()
		s.background.Wait()
		<-s.compact // one that the program runs ends early
		s.mu.Lock()
		defer s.mu.Unlock()
		alone := !s.opts.ReadOnly && (!s.opts.Shared || s.closesAlone())
		s.follow.Lock() // a reader may be switching generations
		defer s.follow.Unlock()
		s.sync.lead(0)
		g := s.gen.Load()
		durable, err := uint64(0), error(nil)
		switch {
		case alone:
			durable, err = s.syncAndTrim(g)
			err = errors.Join(err, s.letGoOf(g, err == nil))
		case s.opts.Shared:
			durable, err = s.syncLog(g)
			err = errors.Join(err, g.file.Close())
		default:
			err = g.file.Close()
		}
		if s.company != nil {
			s.company.Close()
		}
		s.gen.Store(nil)
		if s.memory() != nil && g.file.Size() >= compactGC {
			go runtime.GC() // the memory is free once it is unmapped
		}
		s.closeErr = s.wrap("close", 0, err)
		s.sync.leave(durable)
	})
	return s.closeErr
}
