// Package kv is a persistent map: keys and values are Go types, or bytes; reads come straight
// from a memory-mapped file, and what was written is still there after the process
// dies, or after a power cut, as the durability that was asked for says.
//
//	visits, err := kv.OpenMap[string, int]("visits.mmkv", nil)
//	if err != nil { ... }
//	defer visits.Close()
//	err = visits.Put("/about", 1)
//	n, err := visits.Get("/about")
//
// It is for settings, sessions, caches that must survive, queues and indexes: data of one
// machine, at the speed of memory. It is not for data larger than the address space, for
// ranges in the order of keys, for SQL, or for network file systems.
//
// # Opening
//
// [Open] opens the store at a path, and creates it if there is none; nil [Options] are right for
// most programs. A store is one file. Beside it lies NAME.mmapkv-index, a saved copy of the
// index by which the next Open is quick: it may be deleted at any time. Whatever else is there
// (NAME.mmapkv-next, NAME.mmapkv-new-*) is left over from an operation that was cut off, and
// may be deleted while nobody has the store open.
//
// [Store.Close] syncs and lets go. A program that is killed without it loses no write that
// returned: the next Open recovers by itself.
//
// # Keys and values
//
// A [Store] maps bytes to bytes. [Store.Put], [Store.Delete], [Store.Compute],
// [Store.CompareAndSwap] and [Store.Update] are each atomic. Slices given to the store may be
// used again at once. How long those live that it returns goes by the way of reading:
//
//   - [Store.Get] returns a copy, which belongs to the caller.
//   - [Store.GetAppend] appends the value to a slice of the caller's, and need not allocate.
//   - [Store.View] gives a function the file's own bytes, valid until it returns.
//   - [Store.GetMany] reads many keys at once, for much less than a Get each; bytes as with View.
//   - [Store.Iter] gives the loop's body the file's own bytes, valid until it ends.
//
// All methods of Store may be called from any number of goroutines. Get, GetAppend, View, Has
// and GetMany take no lock and wait for nobody, whatever writers, growth and compaction do; a
// handle that is ReadOnly or Shared takes in first what others have published. Writes take turns.
//
// # Go types
//
// A [Map] is a map of Go types, with the verbs of sync.Map and an error beside each result.
// [OpenMap] opens a file as one map, whose codecs go by the types. [NewMap] takes a store, a name
// and two codecs of package codec: several maps in one file, which share no key.
//
//	users, err := kv.NewMap(store, "users", codec.Uint64{}, codec.JSON[User]{})
//	ages, err := kv.NewMap(store, "ages", codec.String{}, codec.Uint8{})
//
// The codecs' names are kept with the data, and with others it is [ErrCodec], not a wrong value. A
// tool that has not the types finds them by [Store.Maps]. An absent key is never a zero: it is
// [ErrNotFound], or ok false. What a map returns belongs to the caller.
//
// [Add], [Collect] and [CompareAndSwap] are functions, since they ask more of the types. A
// [Value] is one value in a file, such as settings, with a default and a migration.
//
// # Transactions
//
// What the function of [Store.Update] writes through its [Tx] happens together, or, where the
// function returns an error or panics, not at all. Readers see all of it or none, and so does
// recovery. [Map.Update] is that for one map; [Map.In] is for several maps in one transaction.
//
//	err := store.Update(func(tx *kv.Tx) error {
//		if err := users.In(tx).Put(7, user); err != nil {
//			return err
//		}
//		return ages.In(tx).Put(user.Name, 36)
//	})
//
// A function that is given to Update or Compute holds up all other writers: let it be short, and
// let it write by its transaction alone.
//
// # Durability points
//
// A write that returned is in the kernel's page cache: the death of the process cannot undo it.
// After its durability point a power cut cannot either. [Options.Durability] says when that is:
//
//   - [SyncPeriodic], the default: a sync in the background, which begins a second after the write
//     at the latest ([Options.SyncEvery]).
//   - [SyncAlways]: before the write returns. Writers that wait at the same time share one sync.
//   - [SyncManual]: when [Store.Sync] or Close does.
//
// [Store.PutDurable] and [Tx.Durable] do it for one write, whatever the mode. After an unclean
// end Open shows the state after some prefix of the writes, at or beyond the last durability
// point, and never half of an Update.
//
// # Iteration
//
// An [Iter] is a snapshot: what is written after [Store.Iter] is not in it, and writers go on. The
// entries come in the order in which they were last written. A prefix chooses entries and does
// not make it cheaper: the cost is that of reading every record that is not dead. What cannot be
// read ends the loop, so ask [Iter.Err] after it; a [MapIter] has the same two methods.
//
//	it := store.Iter([]byte("user/"))
//	for key, value := range it.All() {
//		fmt.Printf("%s: %d bytes\n", key, len(value))
//	}
//	if err := it.Err(); err != nil { ... }
//
// # Deadlines
//
// An entry of [Store.PutTTL] or [Store.PutUntil] is absent from a moment on, to the millisecond.
// The moment is kept with the entry: closing and opening do not prolong it, and a clock set
// back revives nothing. Put, Compute and CompareAndSwap write an entry without a deadline.
// [Store.Len] counts entries that have expired until a compaction leaves them behind.
//
// # Watching
//
// [Store.Watch] yields the entries under a prefix as they are, and then each change to them as it
// happens, in this process or another; [Store.WatchFrom] resumes after a revision. Writers wait for
// nobody who watches, and who watches takes next to no processor while nothing happens. That an
// entry expires is no event: the [Event] of the write says when it will. [Map.Watch] tells of Go
// values, and [Value.Watch] yields the value, and then what it becomes.
//
// # Several processes
//
// One handle writes a store, a second one gets [ErrLocked], and any number may follow it with
// [Options.ReadOnly], in any process and without a lock. With [Options.Shared], on Linux, several
// processes write it, each write in a turn of its own: Compute, CompareAndSwap and Update are then
// atomic between processes as they are between goroutines, and a read sees every write that
// returned before it began, whoever made it. A process that dies holds nobody up.
//
// A store in memory only ([OpenMem]) is for one process, or for those that get its descriptor
// ([Store.File], [OpenFile]). [Users] tells, on Linux, who has a store open.
//
// # Space
//
// The file is a log that is appended to. Where enough of it is dead, by default some 36 % (see
// [Options.CompactAt]), a compaction in the background copies the live records to a new file, which
// takes the old one's place; [Store.Compact] does it at once, and [Store.Clear] is one that copies
// nothing. A compaction takes as much free disk as what is live and what is written meanwhile. The
// old file's blocks are free once no reader maps it any more. The index lies in memory, outside of
// the Go heap: some 15 to 23 bytes a key. [Options.MaxSize] bounds the file.
//
// # Backup
//
// [Store.WriteTo] writes a consistent and verified copy while the store is in use. The copy is a
// store: to restore it, put it at the path while nobody has the store open. [Store.Verify] checks
// every invariant and changes nothing.
//
// # Errors and what to do
//
// A miss is [ErrNotFound], as it is; an error of a function that the caller gave is returned as
// it is. Any other error of an operation is an [*Error], to be matched with [errors.Is]: against
// those of this package, here with what to do, and against the operating system's
// (fs.ErrPermission ...).
//
//   - [ErrFull]: nothing changed. Make space, or raise [Options.MaxSize], and write on.
//   - [ErrTooLarge]: nothing changed. See the limits below.
//   - [ErrLocked]: close the other writer, which the text names, wait for it with
//     [Options.LockTimeout], or open ReadOnly or, all of them, Shared. A write of a Shared store
//     returns it too, where its turn does not come.
//   - [ErrReadOnly], [ErrClosed]: the program's own mistake.
//   - [ErrCodec]: open the map with the codecs that the text names. An error that matches
//     [codec.ErrValue] says that a value, or a key, is not what its codec writes.
//   - [ErrCompacted]: call Watch, and forget the keys that it does not yield.
//   - [ErrPoisoned]: a sync failed, and nobody can tell what the device holds. Reading goes on;
//     Close, look at the device, and Open again.
//   - [ErrFault]: bytes of the file could not be had. Close, look at the disk, and Open again.
//   - [ErrCorrupt]: restore a backup, or read what is left with [Options.Salvage]; [CorruptError] has
//     the byte ranges, and [Store.Suspects] the keys that were probably in them.
//   - [ErrFormat]: it is another kind of file. [ErrVersion]: update this program.
//
// Damage is an error and never a wrong value: Open checks every sum, or, of what a checkpoint
// spared it to read, whoever reads it first. Bytes that change beneath the open store are met by
// every read with [Options.VerifyReads], and without it by Verify, WriteTo and Compact. A store is
// never repaired without being asked: Open cuts off what a crash left half-written behind the last
// durability point, and refuses all else.
//
// # Limits
//
// A key has at most [MaxKeySize] bytes, 64 KiB, a value [MaxValueSize], 1 GiB, and a transaction
// [MaxTxSize], 1 GiB; a key or a value may be empty. A map's name and a zero byte count towards the
// length of each of its keys. A file has at most 8 TiB, and 1 GiB on 32-bit systems. The package
// works on Linux, macOS and FreeBSD, on little-endian machines, and writes to local file systems
// only: elsewhere Open returns an error that matches [errors.ErrUnsupported].
//
// # Observability
//
// [Store.Stats] has the figures of now; kv/kvexpvar, kv/kvotel and kv/kvhttp show them on
// /debug/vars, to OpenTelemetry and as a page, and [Stats.Figures] is for what shows them
// elsewhere. [Hooks] are called after syncs, growth and compaction, with what they took, for the
// progress of what takes long, and for damage; [Options.Logger] hears of what an operator should
// know. [Inspect] reads the header of a store that another process may be writing,
// [Store.Records] the history that is still in the log.
package kv
