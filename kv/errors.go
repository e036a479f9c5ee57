package kv

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/crc"
	"github.com/mmapkv/mmapkv/mmapfile"
)

// The errors of this package, to be matched with errors.Is. A miss is ErrNotFound
// as it is. What else a method returns is an *Error that wraps one of them, or an error
// of the operating system (fs.ErrNotExist, fs.ErrPermission, syscall.EROFS ...).
var (
	// ErrNotFound: the key is absent, deleted or expired.
	ErrNotFound = errors.New("key not found")
	// ErrClosed: the store, or the transaction or iterator, is over.
	ErrClosed = errors.New("store is closed")
	// ErrLocked: another open handle writes this store; the text names its process. See
	// Options.LockTimeout.
	ErrLocked = errors.New("store is in use by another writer")
	// ErrReadOnly: a mutation through a handle that only reads.
	ErrReadOnly = errors.New("store is open read-only")
	// ErrCorrupt: bytes before the durable mark fail a check. errors.As with
	// *CorruptError tells the byte ranges, unless it is the header. See also
	// Stats.Corruptions and Hooks.Corrupted.
	ErrCorrupt = errors.New("store is corrupt")
	// ErrTooLarge: a key, value or transaction above its limit, or a sum of Add.
	ErrTooLarge = errors.New("too large")
	// ErrFull: the disk, the quota, Options.MaxSize or the address space is
	// used up. Nothing changed; writing works again once there is space.
	ErrFull = errors.New("no space")
	// ErrFormat: the file is not a store.
	ErrFormat = errors.New("not a store")
	// ErrVersion: the file was written by a later release of this package.
	ErrVersion = errors.New("format of a later release: update this program")
	// ErrFault: a byte of the mapped file could not be had.
	ErrFault = errors.New("the file was cut short beneath the store, its disk failed, or a copy-on-write one is full: close, look at the disk, open again")
	// ErrCodec: a map was written with other codecs; the text names both.
	ErrCodec = errors.New("map has other codecs")
	// ErrCompacted: WatchFrom asks for changes of which a compaction, or Clear, has left some
	// behind.
	ErrCompacted = errors.New("the log does not have all changes since that revision any more: Watch anew")
	// ErrPoisoned: an earlier sync failed, or a store into the mapping did, so that
	// nobody can tell what the device holds. Reading goes on; Close and open again
	// to write.
	ErrPoisoned = errors.New("store takes no more writes since a sync or a write failed half-way: open it again")
)

// Error says which operation failed, on which store, and why.
type Error struct {
	Op     string // "open", "get", "put", ...
	Path   string // of the store
	Offset int64  // bytes from the start of the file; 0: nowhere in particular
	Err    error
}

func (e *Error) Error() string {
	if e.Offset > 0 {
		return fmt.Sprintf("mmapkv: %s %s: at offset %d: %v", e.Op, e.Path, e.Offset, e.Err)
	}
	return fmt.Sprintf("mmapkv: %s %s: %v", e.Op, e.Path, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Range is a run of bytes of the file.
type Range struct {
	Off int64 // bytes from the start of the file
	Len int64 // bytes
}

// CorruptError lists the damaged byte ranges of a store. It matches ErrCorrupt.
type CorruptError struct {
	Path   string
	Ranges []Range
	What   string // the first check that failed
}

func (e *CorruptError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v: %s; damaged bytes:", ErrCorrupt, e.What)
	for i, r := range e.Ranges {
		if i == 8 {
			fmt.Fprintf(&b, " and %d more ranges", len(e.Ranges)-i)
			break
		}
		fmt.Fprintf(&b, " [%d,%d)", r.Off, r.Off+r.Len)
	}
	b.WriteString("; restore a backup, or open with Options.Salvage to read what is left")
	return b.String()
}

// Is makes errors.Is(err, ErrCorrupt) true.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// publicErrors pairs what the lower packages report with the error of this
// package that a caller matches.
var publicErrors = []struct{ low, public error }{
	{mmapfile.ErrNoSpace, ErrFull},
	{mmapfile.ErrNoAddressSpace, ErrFull},
	{syscall.ENOSPC, ErrFull}, // of link and rename: a directory can be full too
	{syscall.EDQUOT, ErrFull},
	{mmapfile.ErrNotRegular, ErrFormat},
	{mmapfile.ErrShrunk, ErrFault},
	{mmapfile.ErrRemote, errors.ErrUnsupported},
	{mmapfile.ErrNamed, fs.ErrInvalid},
	{crc.ErrEmpty, ErrFormat},
	{crc.ErrMagic, ErrFormat},
	{crc.ErrShort, ErrCorrupt},
	{crc.ErrVersion, ErrVersion},
	{crc.ErrIncompatible, ErrVersion},
	{crc.ErrHeaderSum, ErrCorrupt},
	{crc.ErrReserved, ErrCorrupt},
	{crc.ErrHeaderField, ErrCorrupt},
	{crc.ErrFlags, ErrVersion},
	{crc.ErrBounds, ErrCorrupt},
	{crc.ErrNoRecord, ErrCorrupt},
	{crc.ErrSum, ErrCorrupt},
	{codec.ErrEntry, ErrCorrupt},
	{errOrder, ErrCorrupt},
	{errTwoHeaders, ErrCorrupt},
}

// wrap makes err the *Error of operation op. Every error leaves the package
// through it, once, so that no damage goes unnoticed.
func (s *Store) wrap(op string, off int64, err error) error {
	var already *Error
	if err == nil || errors.As(err, &already) {
		return err
	}
	wrapped := wrapError(op, s.path, off, err)
	s.foundIn(wrapped.(*Error))
	return wrapped
}

func wrapError(op, path string, off int64, err error) error {
	var already *Error
	if err == nil || errors.As(err, &already) {
		return err
	}
	poisoned := errors.Is(err, ErrPoisoned) // whatever else is wrong: something has changed
	var locked *mmapfile.LockedError
	var fault *mmapfile.FaultError
	var pathErr *fs.PathError
	switch {
	case errors.As(err, &locked):
		err = fmt.Errorf("%w: %w", ErrLocked, err)
	case errors.As(err, &fault):
		off = fault.Off
		err = fmt.Errorf("%w: %w", ErrFault, err)
	case errors.As(err, &pathErr) && (pathErr.Path == path || strings.HasPrefix(pathErr.Path, path+ownSuffix)):
		err = stripPath{err, pathErr}
	}
	for _, p := range publicErrors {
		if !poisoned && errors.Is(err, p.low) && !errors.Is(err, p.public) {
			err = fmt.Errorf("%w: %w", p.public, err)
			break
		}
	}
	return &Error{Op: op, Path: path, Offset: off, Err: err}
}

// stripPath is an error whose text leaves out the path of the fs.PathError in it,
// for that stands in the Error around it already.
type stripPath struct {
	error
	in *fs.PathError
}

func (e stripPath) Error() string {
	return strings.Replace(e.error.Error(), e.in.Error(), e.in.Op+": "+e.in.Err.Error(), 1)
}

func (e stripPath) Unwrap() error { return e.error }
