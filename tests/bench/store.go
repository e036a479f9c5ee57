//go:build linux && !386 && !arm

package main

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

// Store is a store as the workloads see it. All but Close may be called from
// several goroutines.
type Store interface {
	// Get returns the value of key in memory of the caller's own, or errMiss.
	Get(key []byte) ([]byte, error)
	// Put keeps neither slice. Where the store was opened durable, it returns after
	// the sync.
	Put(key, value []byte) error
	Delete(key []byte) error
	// Each calls fn with every entry, in the order that costs the store least. The
	// slices are valid until fn returns.
	Each(fn func(key, value []byte) error) error
	Close() error
}

// errMiss: the key is not there.
var errMiss = errors.New("no such key")

// What only some stores have.
type (
	// batcher puts many entries in one transaction; durable if the store is.
	batcher interface {
		PutBatch(keys, values [][]byte) error
	}
	syncer interface {
		Sync() error
	}
	manyGetter interface {
		GetMany(keys [][]byte, fn func(i int, value []byte, ok bool) error) error
	}
	appender interface {
		GetAppend(dst, key []byte) ([]byte, error)
	}
	viewer interface {
		View(key []byte, fn func(value []byte) error) error
	}
	// compacter gives back the disk space of what is dead.
	compacter interface {
		Compact() error
	}
	// watcher tells of what is there and of every change, until ctx ends.
	watcher interface {
		Watch(ctx context.Context, prefix []byte) iter.Seq[kv.Event]
	}
	// statser tells figures that only the store knows, by the metric's name.
	statser interface {
		Stats() map[string]float64
	}
)

// config is what a store is opened for.
type config struct {
	durable bool  // each Put returns after its sync; else about the last second may be lost
	writers int   // goroutines that will Put at the same time
	keys    int64 // that the store will hold
	value   int   // bytes of each value

	withoutCheckpoints bool   // for mmapkv alone
	access             access // for mmapkv alone
}

// access is how one process of several opens a store.
type access int

const (
	owner    access = iota // it writes, and nobody else
	follower               // it reads, beside whoever writes
	sharer                 // it writes, as others do
)

// bytes of all keys and values.
func (c config) bytes() int64 { return c.keys * int64(keySize+c.value) }

// adapter makes a kind of store usable.
type adapter struct {
	name       string
	module     string // whose version the header names; empty: the standard library's, or this module's
	persistent bool
	// grouped: its documents say to put many entries by transactions of many, and so
	// does the workload fill.
	grouped bool
	// rests: it moves entries in the background for long, and Compact ends that.
	rests bool
	// note says how it is configured, why, and where that is advised.
	note string
	open func(dir string, c config) (Store, error)
	// file is the name in dir of the one file that all else can be rebuilt from;
	// empty: there is none.
	file string
}

// adapters are all stores, in the order of the tables.
var adapters = []adapter{
	mmapkvAdapter,
	mapAdapter, syncMapAdapter, xsyncAdapter,
	bboltAdapter, badgerAdapter, pebbleAdapter, buntdbAdapter, goleveldbAdapter, sqliteAdapter,
}

func adapterOf(name string) (adapter, bool) {
	i := slices.IndexFunc(adapters, func(a adapter) bool { return a.name == name })
	if i < 0 {
		return adapter{}, false
	}
	return adapters[i], true
}

// everySecond calls sync once a second, for stores that have no such thing of their
// own, until the returned function is called, which returns the first error.
func everySecond(sync1 func() error) (stop func() error) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	var first error
	wg.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				if err := sync1(); err != nil && first == nil {
					first = err
				}
			}
		}
	})
	return func() error {
		close(done)
		wg.Wait()
		return first
	}
}
