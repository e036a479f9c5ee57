package kv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/mmapkv/mmapkv/kv"
)

// damaged makes a store of two entries, of which a byte of the first has gone bad.
func damaged() (path string, done func()) {
	dir, err := os.MkdirTemp("", "mmapkv")
	if err != nil {
		log.Fatal(err)
	}
	path = filepath.Join(dir, "damaged.mmkv")
	store, err := kv.Open(path, nil)
	if err != nil {
		log.Fatal(err)
	}
	_ = store.Put([]byte("greeting"), []byte("hello"))
	_ = store.Put([]byte("farewell"), []byte("bye"))
	if err := store.Close(); err != nil {
		log.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(b, []byte("hello"), []byte("jello"), 1), 0o600); err != nil {
		log.Fatal(err)
	}
	return path, func() { os.RemoveAll(dir) }
}

func ExampleCorruptError() {
	path, done := damaged()
	defer done()
	_, err := kv.Open(path, nil)
	var damage *kv.CorruptError
	if errors.As(err, &damage) {
		fmt.Println(len(damage.Ranges), "range:", damage.What)
	}
	fmt.Println(errors.Is(err, kv.ErrCorrupt))
	// Output:
	// 1 range: record sum mismatch
	// true
}

func ExampleRange() {
	path, done := damaged()
	defer done()
	store, err := kv.Open(path, &kv.Options{Salvage: true})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	for _, r := range store.Stats().Missing {
		fmt.Printf("bytes [%d, %d)\n", r.Off, r.Off+r.Len)
	}
	// Output: bytes [8192, 8240)
}

func ExampleSuspect() {
	path, done := damaged()
	defer done()
	store, err := kv.Open(path, &kv.Options{Salvage: true})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	for s, err := range store.Suspects(context.Background()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("at %d: %s, deleted: %v\n", s.Off, s.Key, s.Deleted)
	}
	// Output: at 8192: greeting, deleted: false
}

func ExampleViolation() {
	path, done := damaged()
	defer done()
	store, err := kv.Open(path, &kv.Options{Salvage: true})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	report, err := store.Verify(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	for _, v := range report.Violations {
		fmt.Println(v)
	}
	// Output: offset 8192: 48 bytes hold no record that verifies
}

// The store's Durability decides for every write; PutDurable and Tx.Durable for one.
func ExampleDurability() {
	store, done := open(&kv.Options{Durability: kv.SyncManual})
	defer done()
	_ = store.Put([]byte("a"), []byte("1"))
	fmt.Println(store.Stats().DurableRevision)
	if err := store.Sync(); err != nil { // the durability point of all before
		log.Fatal(err)
	}
	fmt.Println(store.Stats().DurableRevision)
	// Output:
	// 0
	// 1
}

// One writer at a time, and any number who read beside it and follow what it writes.
func ExampleOpen() {
	store, done := open(nil)
	defer done()
	_, err := kv.Open(store.Path(), nil)
	fmt.Println(errors.Is(err, kv.ErrLocked))
	reader, err := kv.Open(store.Path(), &kv.Options{ReadOnly: true})
	if err != nil {
		log.Fatal(err)
	}
	defer reader.Close()
	_ = store.Put([]byte("k"), []byte("v"))
	value, err := reader.Get([]byte("k"))
	fmt.Println(string(value), err)
	// Output:
	// true
	// v <nil>
}

// One write that a power cut must not undo, in a store that syncs once a second.
func ExampleStore_PutDurable() {
	store, done := open(nil)
	defer done()
	if err := store.PutDurable([]byte("order/7"), []byte("paid")); err != nil {
		log.Fatal(err)
	}
	fmt.Println(store.Stats().DurableRevision)
	// Output: 1
}

func ExampleEvent() {
	store, done := open(nil)
	defer done()
	_ = store.Put([]byte("k"), []byte("v"))
	for e := range store.Watch(context.Background(), nil) {
		if e.Err != nil {
			log.Fatal(e.Err)
		}
		fmt.Printf("revision %d: %s=%s, for ever: %v\n", e.Revision, e.Key, e.Value, e.Expiry.IsZero())
		break
	}
	// Output: revision 1: k=v, for ever: true
}

func ExampleCompactInfo() {
	store, done := open(&kv.Options{Hooks: &kv.Hooks{
		Compacted: func(info kv.CompactInfo, err error) {
			fmt.Println("generation", info.Generation, "keys", info.Keys, err)
		},
	}})
	defer done()
	_ = store.Put([]byte("k"), []byte("old"))
	_ = store.Put([]byte("k"), []byte("new"))
	if _, err := store.Compact(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output: generation 2 keys 1 <nil>
}

func ExampleFileInfo() {
	store, done := open(nil)
	_ = store.Put([]byte("k"), []byte("v"))
	path := store.Path()
	info, err := kv.Inspect(path)
	fmt.Println(info.Generation, info.Tail, err)
	done()
	_, err = kv.Inspect(path)
	fmt.Println(errors.Is(err, os.ErrNotExist))
	// Output:
	// 1 8224 <nil>
	// true
}

func ExampleRecord() {
	store, done := open(nil)
	defer done()
	_ = store.Put([]byte("k"), []byte("v"))
	_ = store.Delete([]byte("k"))
	for r, err := range store.Records(context.Background()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d %s deleted=%v live=%v\n", r.Revision, r.Key, r.Deleted, r.Live)
	}
	// Output:
	// 1 k deleted=false live=false
	// 2 k deleted=true live=false
}

// For a system that collects numbers, and has no adapter yet.
func ExampleFigure() {
	store, err := kv.OpenMem(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	_ = store.Put([]byte("greeting"), []byte("hello"))
	stats := store.Stats()
	for _, figure := range stats.Figures() {
		if figure.Name == "keys" || figure.Counter && figure.Value > 0 {
			fmt.Println(figure.Name, figure.Value)
		}
	}
	// Output:
	// keys 1
	// mutations_total 1
}
