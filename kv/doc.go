// Package kv is a persistent map: keys and values are bytes, reads come straight
// from a memory-mapped file, and what was written is still there after the
// process dies, or after a power cut, as the durability that was asked for says.
//
//	store, err := kv.Open("settings.mmkv", nil)
//	if err != nil { ... }
//	defer store.Close()
//	err = store.Put([]byte("greeting"), []byte("hello"))
//	value, err := store.Get([]byte("greeting"))
//
// A store is one file. Everything beside it (NAME.mmapkv-next, NAME.mmapkv-new-*) is left over
// from an operation that was cut off, and may be deleted while nobody has the
// store open.
//
// # Reading and writing
//
// All methods of Store may be called from any number of goroutines. Get, View,
// Has and GetMany take no lock and wait for nobody, whatever writers, growth and
// compaction do; a handle that is ReadOnly or Shared takes in first what others have
// published. Writes take turns. Put, Delete, Compute, CompareAndSwap and
// Update are atomic. Slices given to the store may be used again at once; slices
// that Get returns belong to the caller; slices that View, GetMany and Iter pass
// to a function are the file's own bytes, valid until that function returns.
//
// # Go types
//
// Map is a map of Go types over a Store, with the verbs of sync.Map; several lie in one store,
// each by its name. Value is one value in a file. Package codec turns values into bytes.
//
// # Several processes
//
// One handle writes a store, and any number may follow it ReadOnly, in any process. With
// Options.Shared several processes write it, each write in a turn of its own: Compute,
// CompareAndSwap and Update are then atomic between processes as they are between
// goroutines, and a read sees every write that returned before it began, whoever made it.
//
// A store in memory only (OpenMem) is for one process, or for those that get its descriptor.
//
// # Durability
//
// A write that returned is in the kernel's page cache: the death of the process
// cannot undo it. Options.Durability says when it is on the device too. After an
// unclean end, Open shows the state after some prefix of the writes, at or beyond
// the last durability point, and never half of an Update.
//
// # Watching
//
// Watch yields the entries under a prefix as they are, and then each change to them as it
// happens, in this process or another; WatchFrom resumes after a revision. Writers wait for
// nobody who watches, and who watches takes next to no processor while nothing happens.
//
// # Errors
//
// A miss is ErrNotFound, as it is. Any other error is an *Error, to be matched
// with errors.Is. When a sync fails the store is poisoned: reads go on, writes
// return ErrPoisoned, since nobody can tell what the device holds.
//
// Damage is ErrCorrupt, never a wrong value: Open checks every sum, and with
// Options.VerifyReads so does each read. Stats().Corruptions counts it,
// Hooks.Corrupted and the Logger are told. Options.Salvage reads what is left.
package kv
