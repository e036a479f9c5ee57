package kv_test

import (
	"errors"
	"fmt"
	"log"
	"path/filepath"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/kv"
)

// ages returns a map in memory, for the examples.
func ages() *kv.Map[string, int] {
	store, err := kv.OpenMem(nil)
	if err != nil {
		log.Fatal(err)
	}
	ages, err := kv.NewMap(store, "ages", codec.String{}, codec.Int{})
	if err != nil {
		log.Fatal(err)
	}
	return ages
}

func ExampleMap() {
	ages := ages()
	defer ages.Store().Close()
	if err := ages.Put("Ada", 36); err != nil {
		log.Fatal(err)
	}
	n, err := ages.Get("Ada")
	fmt.Println(n, err)
	_, err = ages.Get("Bob")
	fmt.Println(err == kv.ErrNotFound) // never a zero
	n, err = ages.GetOr("Bob", 18)
	fmt.Println(n, err)
	// Output:
	// 36 <nil>
	// true
	// 18 <nil>
}

func ExampleMap_LoadOrStore() {
	ages := ages()
	defer ages.Store().Close()
	fmt.Println(ages.LoadOrStore("Ada", 36))
	fmt.Println(ages.LoadOrStore("Ada", 37))
	// Output:
	// 36 false <nil>
	// 36 true <nil>
}

func ExampleMap_Compute() {
	ages := ages()
	defer ages.Store().Close()
	_ = ages.Put("Ada", 36)
	err := ages.Compute("Ada", func(old int, ok bool) (int, kv.Op) {
		if !ok {
			return 0, kv.Keep
		}
		return old + 1, kv.Write
	})
	n, _ := ages.Get("Ada")
	fmt.Println(n, err)
	// Output: 37 <nil>
}

// A transaction over two maps of one store.
func ExampleMap_In() {
	ages := ages()
	defer ages.Store().Close()
	towns, err := kv.NewMap(ages.Store(), "towns", codec.String{}, codec.String{})
	if err != nil {
		log.Fatal(err)
	}
	err = ages.Store().Update(func(tx *kv.Tx) error {
		if err := ages.In(tx).Put("Ada", 36); err != nil {
			return err
		}
		return towns.In(tx).Put("Ada", "London")
	})
	town, _ := towns.Get("Ada")
	fmt.Println(town, err)
	// Output: London <nil>
}

func ExampleMapTx() {
	ages := ages()
	defer ages.Store().Close()
	_ = ages.Put("Ada", 36)
	err := ages.Update(func(tx *kv.MapTx[string, int]) error {
		n, err := tx.Get("Ada")
		if err != nil {
			return err
		}
		if err := tx.Delete("Ada"); err != nil {
			return err
		}
		return tx.Put("Ada Lovelace", n)
	})
	all, _ := kv.Collect(ages)
	fmt.Println(all, err)
	// Output: map[Ada Lovelace:36] <nil>
}

func ExampleMapIter() {
	ages := ages()
	defer ages.Store().Close()
	_ = ages.Put("Ada", 36)
	_ = ages.Put("Bob", 18)
	it := ages.Iter()
	for name, age := range it.All() {
		fmt.Println(name, age)
	}
	if err := it.Err(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// Ada 36
	// Bob 18
}

func ExampleMap_Swap() {
	ages := ages()
	defer ages.Store().Close()
	_ = ages.Put("Ada", 36)
	fmt.Println(ages.Swap("Ada", 37))
	fmt.Println(ages.LoadAndDelete("Ada"))
	fmt.Println(ages.LoadAndDelete("Ada"))
	// Output:
	// 36 true <nil>
	// 37 true <nil>
	// 0 false <nil>
}

// An entry that expires, and one that a Put without a deadline keeps.
func ExampleMap_PutTTL() {
	ages := ages()
	defer ages.Store().Close()
	_ = ages.PutTTL("Ada", 36, 20*time.Millisecond)
	_ = ages.PutTTL("Bob", 18, 20*time.Millisecond)
	_ = ages.Put("Bob", 19)
	time.Sleep(40 * time.Millisecond)
	fmt.Println(kv.Collect(ages))
	// Output: map[Bob:19] <nil>
}

// What a tool finds of a map, and of a key of the store that is one of it.
func ExampleMapInfo() {
	ages := ages()
	defer ages.Store().Close()
	_ = ages.Put("Ada", 36)
	info, err := ages.Store().MapInfo("ages")
	fmt.Println(info.Name, info.Keys, info.Values, err)
	it := ages.Store().Iter(info.Prefix())
	for key := range it.All() {
		name, rest, ok := kv.SplitKey(key)
		fmt.Println(name, string(rest), ok)
	}
	if err := it.Err(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// ages string int64 <nil>
	// ages Ada true
}

func ExampleAdd() {
	ages := ages()
	defer ages.Store().Close()
	_, _ = kv.Add(ages, "Ada", 36) // an absent key counts as 0
	fmt.Println(kv.Add(ages, "Ada", 1))
	// Output: 37 <nil>
}

func ExampleCollect() {
	ages := ages()
	defer ages.Store().Close()
	_ = ages.Put("Ada", 36)
	fmt.Println(kv.Collect(ages))
	// Output: map[Ada:36] <nil>
}

func ExampleCompareAndSwap() {
	ages := ages()
	defer ages.Store().Close()
	_ = ages.Put("Ada", 36)
	fmt.Println(kv.CompareAndSwap(ages, "Ada", 36, 37))
	fmt.Println(kv.CompareAndSwap(ages, "Ada", 36, 38))
	// Output:
	// true <nil>
	// false <nil>
}

// A value that moves in from where the program had it before.
func ExampleValueOptions() {
	store, done := open(nil) // for its directory
	defer done()
	theme, err := kv.OpenValue(filepath.Join(filepath.Dir(store.Path()), "theme.mmkv"), &kv.ValueOptions[string]{
		Default: "light",
		Migrate: func() (string, bool, error) { return "dark", true, nil }, // such as from a file
	})
	if err != nil {
		log.Fatal(err)
	}
	defer theme.Close()
	fmt.Println(theme.Load())
	// Output: dark <nil>
}

func ExampleOp() {
	store, done := open(nil)
	defer done()
	_ = store.Put([]byte("tries"), []byte("x"))
	_ = store.Compute([]byte("tries"), func(old []byte, ok bool) ([]byte, kv.Op) {
		return nil, kv.Remove
	})
	has, err := store.Has([]byte("tries"))
	fmt.Println(has, err)
	// Output: false <nil>
}

func ExampleStore_PutTTL() {
	store, done := open(nil)
	defer done()
	_ = store.PutTTL([]byte("session"), []byte("token"), 20*time.Millisecond)
	time.Sleep(40 * time.Millisecond)
	_, err := store.Get([]byte("session"))
	fmt.Println(err == kv.ErrNotFound)
	// Output: true
}

// One buffer for many reads: nothing is allocated.
func ExampleStore_GetAppend() {
	store, done := open(nil)
	defer done()
	_ = store.Put([]byte("k"), []byte("value"))
	buf := make([]byte, 0, 64)
	buf, err := store.GetAppend(buf[:0], []byte("k"))
	fmt.Println(string(buf), err)
	// Output: value <nil>
}

// What fn wrote happens together, or not at all.
func ExampleStore_Update() {
	store, done := open(nil)
	defer done()
	refused := errors.New("refused")
	err := store.Update(func(tx *kv.Tx) error {
		if err := tx.Put([]byte("k"), []byte("v")); err != nil {
			return err
		}
		return refused
	})
	fmt.Println(err == refused, store.Len())
	// Output: true 0
}
