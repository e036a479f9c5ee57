package kv

import (
	"fmt"
	"io/fs"
	"log/slog"
	"time"
)

// Limits. Going over one is ErrTooLarge, and nothing has changed.
const (
	MaxKeySize   = 64 << 10 // bytes of a key
	MaxValueSize = 1 << 30  // bytes of a value
	MaxTxSize    = 1 << 30  // bytes of all keys and values of one transaction
)

// Durability says when a write reaches its durability point, after which it
// survives a power cut. Whatever the choice, a write that returned survives the
// death of the process.
type Durability int

const (
	// SyncPeriodic syncs in the background: a sync that covers a write begins at
	// the latest SyncEvery after the write returned, or once SyncBytes more have
	// been written.
	SyncPeriodic Durability = iota
	// SyncAlways makes each write return after its durability point. Writers
	// that wait at the same time share one sync.
	SyncAlways
	// SyncManual leaves it to Sync and Close.
	SyncManual
)

func (d Durability) String() string {
	switch d {
	case SyncPeriodic:
		return "periodic"
	case SyncAlways:
		return "always"
	case SyncManual:
		return "manual"
	}
	return fmt.Sprintf("Durability(%d)", int(d))
}

// Options are the settings of Open. The zero value, and nil, are right for most
// programs. Open copies them and never writes to them.
type Options struct {
	// ReadOnly opens without any lock, next to a writer or not, and follows
	// what the writer does. Mutations return ErrReadOnly. The first read that
	// finds something new takes it in, at the cost of what is new, and reads
	// beside it wait for that; after a compaction, the cost is that of opening
	// the store.
	ReadOnly bool
	// Shared opens the store to write it together with other handles that are Shared, of this
	// process and others. Each write, and each Update, waits for its turn, has what all others
	// wrote before it, and is atomic for all. A Get sees every write that returned before it
	// began, whoever made it, and costs one load more if nothing is new, else what it takes to
	// take that in. A Shared handle and one that is not exclude each other: ErrLocked says who
	// has the store open. ReadOnly handles follow either. A process that dies holds nobody up.
	// It is not to be had together with SyncAligned, nor on macOS and FreeBSD
	// (errors.ErrUnsupported).
	Shared bool
	// Perm are the permission bits of a new file, whatever the umask.
	// Default 0600.
	Perm fs.FileMode
	// LockTimeout is how long Open waits for another writer to let go, and a write of a Shared
	// store for its turn, which another process may keep as long as the function of its Update
	// runs. Then they return ErrLocked. Default 0: Open waits for no writer, but for a turn of
	// those who share, as a write does, 10 s.
	LockTimeout time.Duration
	// Durability says when writes become durable. Default SyncPeriodic.
	Durability Durability
	// SyncEvery is the longest that a write of SyncPeriodic waits for its sync to
	// begin, and the resolution of the time kept with each entry. Default 1 s.
	SyncEvery time.Duration
	// SyncBytes starts a background sync of SyncPeriodic once so many bytes
	// have been written since the last. Default 64 MiB; negative: never.
	SyncBytes int64
	// SyncAligned begins a new page of 4 KiB after each durability point, so that no
	// page which holds durable records is ever written to again. It is for devices
	// that may destroy what they are writing when the power fails, rather than leave
	// it old or new. A durable write then takes a page at least, however small it is;
	// writes that share a sync share its last page. It may be set and unset from one
	// Open to the next; but after a power cut the first Open, be it ReadOnly, must have
	// it too, or it may take what was destroyed in flight for corruption, and refuse.
	// Default: off; see RELIABILITY.md for what it costs.
	SyncAligned bool
	// MaxSize bounds the file, in bytes; at the bound writes return ErrFull.
	// Default 0: 8 TiB, the limit of the format.
	MaxSize int64
	// CompactAt is the share of dead and expired bytes in the log at which a
	// compaction starts in the background, once at least 4 MiB, or an eighth of
	// MaxSize, are dead. A Put or Delete that finds no space compacts too.
	// Default 0.36, so that the log stays within 1.57 times its live bytes, and
	// each byte that is overwritten costs the copying of 1.8; negative: only Compact
	// compacts.
	CompactAt float64
	// CheckpointBytes is how much may be written until the index is saved again, in the
	// background, in a file beside the store, NAME.mmapkv-index: a checkpoint. Open
	// then reads only what was written since. Close leaves one too, but for logs that
	// are shorter than a 128th of it, so that Open takes much the same time at any
	// number of keys. The file takes some 13 bytes a key, and may be deleted at any time
	// without loss. Default 32 MiB; negative: no checkpoint is taken or used.
	CheckpointBytes int64
	// Salvage opens a corrupt store all the same, read-only and as it is at that
	// moment, with every record that verifies; Stats().Missing tells which bytes
	// do not, or cannot be read, and Suspects what keys they may have held. A key whose
	// newest record is among them has the value of an earlier one, be it deleted or not,
	// and of a transaction a part may show.
	Salvage bool
	// VerifyReads checks the sum of each record on its way to the caller, whatever
	// reads it: Get, GetAppend, View, Has, GetMany, Lookup, Compute and
	// CompareAndSwap, a transaction's Get and Has, and of every record that they
	// pass, Iter and Records. Bytes that have changed beneath the open store are then
	// ErrCorrupt, with the offset, and never a wrong value nor a key that seems
	// absent. A Get then takes 1.1 times as long with values of 100 bytes, and 1.2 times
	// with 64 KiB; Records hashes the whole log, and Iter what it yields. Without it the sums are
	// checked when the store is opened, by Verify and WriteTo, and by Compact of what it copies.
	VerifyReads bool
	// Logger hears of recovery, compaction, failed syncs and damage, and, at the level
	// of debugging, of checkpoints. Default: silent.
	Logger *slog.Logger
	// Hooks are called when something happens. Default: none.
	Hooks *Hooks
}

// Hooks are functions that the store calls from the goroutine that did the
// work. They must be quick, safe for concurrent use, and must not call the
// store. Each may be nil.
type Hooks struct {
	// Progress tells how far a long operation ("recover", "compact", "verify")
	// is, in bytes of the log, a few times a second at most.
	Progress func(op string, done, total int64)
	// Synced is called after each sync of the log.
	Synced func(bytes int64, took time.Duration, err error)
	// Grown is called after each growth of the file.
	Grown func(from, to int64, took time.Duration, err error)
	// Compacted is called after each compaction.
	Compacted func(info CompactInfo, err error)
	// Corrupted is called when damage is found: by Open, whether it refuses the
	// store or salvages it, by a read (see Options.VerifyReads), by Verify, Compact or WriteTo,
	// or in what a ReadOnly or Shared handle takes in. It is called once for each place, and
	// for the first 1024 places only; Stats().Corruptions counts on. err must not be
	// changed.
	Corrupted func(err *CorruptError)
}

// withDefaults returns a copy in which every default is spelled out.
func (o *Options) withDefaults() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	if c.Perm == 0 {
		c.Perm = 0o600
	}
	if c.SyncEvery == 0 {
		c.SyncEvery = time.Second
	}
	if c.SyncBytes == 0 {
		c.SyncBytes = 64 << 20
	}
	if c.MaxSize == 0 || c.MaxSize > maxFileSize {
		c.MaxSize = maxFileSize
	}
	if c.CheckpointBytes == 0 {
		c.CheckpointBytes = 32 << 20
	}
	if c.CompactAt == 0 {
		c.CompactAt = 0.36
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Hooks == nil {
		c.Hooks = &Hooks{}
	}
	c.ReadOnly = c.ReadOnly || c.Salvage
	c.Shared = c.Shared && !c.ReadOnly
	switch {
	case c.Durability < SyncPeriodic || c.Durability > SyncManual:
		return c, fmt.Errorf("%w: Options.Durability is %v", fs.ErrInvalid, c.Durability)
	case c.Shared && c.SyncAligned:
		return c, fmt.Errorf("%w: Options.Shared and Options.SyncAligned exclude each other", fs.ErrInvalid)
	case c.SyncEvery < 0:
		return c, fmt.Errorf("%w: Options.SyncEvery is %v", fs.ErrInvalid, c.SyncEvery)
	case c.MaxSize < minExtent:
		return c, fmt.Errorf("%w: Options.MaxSize is %d, below the smallest store, %d", fs.ErrInvalid, c.MaxSize, minExtent)
	case c.Perm&^fs.ModePerm != 0 || c.Perm&0o600 != 0o600:
		return c, fmt.Errorf("%w: Options.Perm is %v: the owner must be able to read and write, and only permission bits count", fs.ErrInvalid, c.Perm)
	case c.CompactAt >= 1 || c.CompactAt != c.CompactAt:
		return c, fmt.Errorf("%w: Options.CompactAt is %v, not below 1", fs.ErrInvalid, c.CompactAt)
	}
	return c, nil
}
