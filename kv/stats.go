package kv

import (
	"math"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// Stats are the figures of a store at one moment. Counters begin at Open.
type Stats struct {
	Keys       int64  // expired ones that no compaction has left behind included
	Records    int64  // in the log
	Revision   uint64 // of the newest mutation
	Generation uint64

	LiveBytes  int64 // of records that the index points at
	DeadBytes  int64 // of all else in the log: other records, and gaps (see Options.SyncAligned)
	Tail       int64 // offset one past the last record
	FileBytes  int64 // length of the file; FileBytes - Tail is slack
	IndexBytes int64 // of memory, outside the heap

	DurableTail     int64  // the log up to it is past its durability point
	DurableRevision uint64 // mutations up to it are

	Checkpoint int64 // the log up to it is covered by the checkpoint; 0: there is none

	Syncs, Grows, Compactions uint64
	// Corruptions counts how often damage was met: by Open, by reads (see
	// Options.VerifyReads), Verify, Compact and WriteTo, and in what a ReadOnly or Shared handle takes
	// in. What is met twice counts twice.
	Corruptions uint64

	Missing  []Range // what Options.Salvage passed over
	Poisoned error   // ErrPoisoned, wrapping the sync that failed; or nil
}

// Stats returns the figures of now. They are read one by one while writers go
// on, so that they need not fit each other to the byte. After Close, and where a
// read would fail, they are 0, but for Corruptions. They may wait as Len does.
func (s *Store) Stats() Stats {
	g, err := s.enter()
	if err != nil || g.index.loadNoted() != 0 {
		return Stats{Corruptions: s.corruptions.count.Load()}
	}
	durable, err := s.durable(g)
	if err != nil && !s.opts.Salvage { // which tells what is missing all the same
		return Stats{Corruptions: s.corruptions.count.Load()}
	}
	return Stats{
		Keys: g.index.keys.Load(), Records: g.count.Load(), Revision: g.revision.Load(), Generation: g.header.Generation,
		LiveBytes: g.live.Load(), DeadBytes: g.dead(), Tail: g.end.Load(), FileBytes: g.file.Size(), IndexBytes: g.index.bytes(),
		DurableTail: durable.Off, DurableRevision: durable.Revision, Checkpoint: g.checkpoint.Load(),
		Syncs: s.syncs.Load(), Grows: s.grows.Load(), Compactions: s.compactions.Load(),
		Corruptions: s.corruptions.count.Load(),
		Missing:     append([]Range(nil), g.missing...), Poisoned: s.poisoned(),
	}
}

// durable returns what is past its durability point, to a reader's knowledge or
// to the writer's own.
func (s *Store) durable(g *generation) (mark crc.Mark, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(g.mapped, &err)
	if s.opts.ReadOnly {
		return g.durableMark(), nil
	}
	s.sync.mu.Lock()
	defer s.sync.mu.Unlock()
	// Of a Shared store others may have synced more; what this handle had synced may have no
	// mark yet. While it leads, or when that failed, the name of the file may not be durable
	// that has the mark.
	if mark := g.durableMark(); s.opts.Shared && !s.sync.busy && s.poisoned() == nil && mark.Revision > s.sync.durable {
		return mark, nil
	}
	return crc.Mark{Off: g.synced.Load(), Revision: s.sync.durable}, nil
}

// FileInfo is what the header of a store's file says, without its log.
type FileInfo struct {
	Path              string
	Version           uint32 // of the format
	Compatible        uint32 // flags
	Incompatible      uint32 // flags
	StoreID           [16]byte
	Generation        uint64
	Created           time.Time // the store
	GenerationCreated time.Time // this file of it
	Tail              int64     // as published last; after a power cut it may lag
	FileBytes         int64
	DurableTail       int64 // the durable mark
	DurableRevision   uint64
	Holder            int // process that writes the store, or wrote a Shared one last, if it is alive; 0: none
	// LastHolder is the process that is noted as holder of the write lock, be it alive
	// or not: without a Holder it was killed, or lost its power, with the store open,
	// or has left a Shared store to others. 0: the last one let go in order.
	LastHolder int
	ThisBoot   bool // the note is of the present boot of the machine
}

// FormatVersion is the version of the format that this package writes and reads.
const FormatVersion = crc.Version

// Inspect reads the header of the store at path, without a lock and without
// reading the log, so that it is quick at any size and next to any writer. It
// needs the header to be sound, and nothing else: if it is not, the error is
// ErrCorrupt, or ErrFormat or ErrVersion for a file that is no store of this version.
func Inspect(path string) (info FileInfo, err error) {
	resolved, err := resolve(path)
	if err != nil {
		return info, wrapError("inspect", path, 0, err)
	}
	f, err := osDisk{}.Open(resolved, mmapfile.ReadOnly)
	if err != nil {
		return info, wrapError("inspect", resolved, 0, err)
	}
	defer f.Close()
	h, err := readHeader(f)
	if err == nil {
		err = h.refuse(resolved)
	}
	if err != nil {
		return info, wrapError("inspect", resolved, 0, err)
	}
	info, err = describe(f, &h.Header)
	info.Path, info.DurableTail, info.DurableRevision = resolved, h.mark.Off, h.mark.Revision
	return info, wrapError("inspect", resolved, 0, err)
}

func describe(f file, h *crc.Header) (info FileInfo, err error) {
	guard := mmapfile.EnterGuard()
	defer guard.Exit(f.mapped(), &err)
	m := f.Mapping()
	defer runtime.KeepAlive(m)
	pid, thisBoot := holder(m)
	return FileInfo{
		Version: h.Version, Compatible: h.Compatible, Incompatible: h.Incompatible, StoreID: h.StoreID, Generation: h.Generation,
		Created: time.Unix(0, h.Created), GenerationCreated: time.Unix(0, h.GenerationCreated),
		Tail: int64(m.Word(crc.TailOff).Load() &^ crc.Superseded), FileBytes: f.Size(), Holder: liveHolder(m),
		LastHolder: pid, ThisBoot: thisBoot,
	}, nil
}

// holder returns the process that is noted as the holder of the write lock, 0 for
// none, and whether it noted the present boot.
func holder(m *mmapfile.Mapping) (pid int, thisBoot bool) {
	noted, boot := m.Word(crc.HolderOff).Load(), m.Word(crc.BootOff).Load()
	if noted > math.MaxInt32 {
		noted = 0 // no process
	}
	return int(noted), boot != 0 && boot == mmapfile.BootID()
}

// liveHolder returns the process that writes the file, or 0 if there is none: it
// noted itself and the boot that it lives in, and has not been killed since.
func liveHolder(m *mmapfile.Mapping) int {
	pid, thisBoot := holder(m)
	if pid == 0 || !thisBoot {
		return 0
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return 0
	}
	defer p.Release()
	if p.Signal(syscall.Signal(0)) == os.ErrProcessDone {
		return 0
	}
	return pid
}
