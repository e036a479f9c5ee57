// Package mmapfile maps a file so that the mapping can grow without moving, locks it, and turns
// the memory faults that a mapping brings into errors. It also hands out anonymous memory
// outside the Go heap.
//
//	f, err := mmapfile.Create("page.bin", 0o600, 4096)
//	if err != nil { ... }
//	defer f.Close()
//	m := f.Mapping()
//	copy(m.Bytes()[64:], "hello") // in the kernel's page cache: the death of the process leaves it
//	err = f.Sync(64, 5)           // on the device
//	runtime.KeepAlive(m)
//
// It is for files that one machine reads and writes as memory. It is not for network file
// systems, on which it opens files to be read only, nor for files that others cut short at will. It
// knows bytes and lengths only: no record, no log. It never logs and never tries again by itself,
// but for calls that a signal interrupted and, once, for address space that the garbage collector
// can still give back.
//
// All methods of a [File] and a [Mapping] may be called from several goroutines at once; what they
// write into the same bytes is for them to agree upon, by [Mapping.Word] for instance. Several
// processes may map one file: the bytes are coherent between them.
//
// # One reservation, one mapping
//
// A [File] maps more than its file: a reservation of address space, all of it over the same
// file, of which only the prefix that the file has filled is accessible.
//
//	base            base+length          base+reservation
//	| file, readable     | PROT_NONE           |
//	|<----- Bytes() ---->|<--- grows into ---->|
//
// Growth ([File.Grow], or [File.Refresh] where another process has grown the file) makes the next
// pages accessible, and base stays: no slice taken before is invalidated. It is two areas (VMAs) of
// the kernel's table a file; advice and protection over a part of it add one each. Only when a
// reservation is outgrown is the file mapped anew, in a much larger one, and published as another
// [Mapping]. The old one stays, and shows the same bytes, for whoever holds it.
//
// # Lifetime of mapped bytes
//
// Mapped memory is not Go memory: a slice of it does not keep it mapped. The *Mapping (or the
// *Region) does, and is unmapped when the garbage collector proves that nobody holds it; so
// whoever reads the bytes ends with [runtime.KeepAlive] of it. A *File holds its current Mapping,
// also after Close.
//
// # Durability
//
// What is stored in the mapping is in the kernel's page cache at once. [File.Sync] makes a range of
// it durable, [File.SyncFile] all of it with the file's length, and a [Dir] the names. After an error
// of either nobody can tell what is on the device, and trying again does not tell either.
//
// # Faults
//
// Touching mapped bytes whose page cannot be had (the file was truncated by somebody, the
// device failed, a copy-on-write file system is full) raises a signal and not an error. A
// [Guard] around the code that touches turns it into a [*FaultError]. This holds for the
// guarded goroutine only.
//
// # Locks and waiting
//
// [File.TryLock] is for the one who writes a file. On Linux there are also [File.TryShare] for those
// who write it together, a [ByteLock] for whatever they take in turns, and a [NameLock] for the path,
// whatever file is there. None of them waits, each binds only those who ask for it, and the kernel
// frees it when the process dies. An [Event] is for waiting. [Users] tells, on Linux, who has the
// file open.
//
// # Errors
//
// An error of the operating system is an [*fs.PathError] with the system call. It matches the
// system's own number and, where the caller can do something about it, a sentinel of this package
// too: [ErrNoSpace] of Grow, for instance, says that nothing changed and that it works again
// once there is space. An offset that a caller made up is [ErrRange], or panics in [Mapping.Word] and
// [Mapping.Event].
//
// # Where it works
//
// Linux, macOS and FreeBSD, on little-endian machines. Elsewhere the package compiles and
// [Open], [Create], [CreateMemory], [OpenMemory], [OpenDir] and [NewRegion] return an error
// that matches [errors.ErrUnsupported]; so do, on macOS and FreeBSD, the methods that are for Linux.
package mmapfile
