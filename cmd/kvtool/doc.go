// Kvtool is the operator's tool for stores of package kv: it reads them while other processes
// write them, and checks, compacts, exports and explains them. It knows no file format: all
// that it prints comes through package kv.
//
//	go install ./cmd/kvtool       # in a clone
//	kvtool info settings.mmkv
//
// # What to ask for
//
//   - What is in it: get, scan, watch, export. The entries of typed maps are shown by their codecs:
//     numbers, times and JSON as such.
//   - How it was: history (every version of a key that is still in the log).
//   - How it is: info (who has it open, how full it is, what is not synced yet), inspect (where the
//     space goes; --html: as a page), stats (its figures; --prom: for Prometheus), check (every
//     invariant).
//   - Changing it: set, delete, import (JSON lines, CSV, bbolt, MMKV).
//   - Keeping it: backup and restore, compact; repair, which writes what is left of a damaged store
//     to a new one.
//   - Trying it: demo, and bench (what a store is like on this machine and this device).
//   - Having it at hand: completion (of verbs, flags and keys), man (pages from the command tree).
//
// kvtool help VERB has each one's flags and examples.
//
// # Beside programs
//
// The verbs that read take no lock and change nothing: they work while others write the store. Those
// that write work beside programs that share it; where one has it for itself they fail, or wait for
// it with --wait. Restore wants a store that nobody has open.
//
// # In scripts
//
// Data goes to stdout and all else, progress too, to stderr, and --quiet leaves the progress out.
// Most verbs print JSON with --json. The exit code is 0 when it is done, 1 for an error, 2 for wrong
// usage, 3 for a key that is not there, 4 for damage, and 5 for a store that is in use: kvtool help
// exit-codes.
package main
