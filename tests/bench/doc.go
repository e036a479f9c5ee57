// Bench measures mmapkv beside the stores that people would use instead of it, and
// beside what the machine can do at best. Every store gets the same work, at equal
// durability, configured as its own documents advise (see the notes that the table
// prints); each (store, workload, size) runs in a process of its own, the stores by
// turns.
//
//	cd tests/bench && GOWORK=off go run . -h
//
// Reading order: store.go, workload.go, run.go, companion.go, table.go, goals.go; then an
// adapter.
//
// It is for 64-bit Linux: it reads /proc, asks for huge pages and allocates with
// fallocate. The peers are compiled there only, so that nobody waits for them who
// builds the module for another system.
package main
