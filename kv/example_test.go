package kv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/kv"
)

// open opens a store in a temporary directory, for the examples.
func open(opts *kv.Options) (store *kv.Store, done func()) {
	dir, err := os.MkdirTemp("", "mmapkv")
	if err != nil {
		log.Fatal(err)
	}
	store, err = kv.Open(filepath.Join(dir, "example.mmkv"), opts)
	if err != nil {
		log.Fatal(err)
	}
	return store, func() {
		if err := store.Close(); err != nil {
			log.Fatal(err)
		}
		os.RemoveAll(dir)
	}
}

// TestMain runs the examples, and all else, in a directory of their own.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "mmapkv")
	if err == nil {
		err = os.Chdir(dir)
	}
	if err != nil {
		log.Fatal(err)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func Example() {
	store, err := kv.Open("hello.mmkv", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	if err := store.Put([]byte("greeting"), []byte("hello")); err != nil {
		log.Fatal(err)
	}
	value, err := store.Get([]byte("greeting"))
	fmt.Println(string(value), err)
	// Output: hello <nil>
}

func ExampleOpenMem() {
	store, err := kv.OpenMem(&kv.Options{MaxSize: 64 << 20})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	store.Put([]byte("greeting"), []byte("hello"))

	// For a child: exec.Cmd.ExtraFiles; there it is os.NewFile(3, "store").
	file, err := store.File()
	if err != nil {
		log.Fatal(err)
	}
	follower, err := kv.OpenFile(file, &kv.Options{ReadOnly: true})
	if err != nil {
		log.Fatal(err)
	}
	defer follower.Close()
	file.Close()
	store.Put([]byte("greeting"), []byte("hello again"))
	value, err := follower.Get([]byte("greeting"))
	fmt.Println(string(value), err)
	// Output: hello again <nil>
}

func ExampleStore_Lookup() {
	store, done := open(nil)
	defer done()
	store.PutTTL([]byte("session"), []byte("token"), time.Hour)
	r, err := store.Lookup([]byte("session"))
	fmt.Printf("%s revision %d, an hour: %v, %v\n", r.Value, r.Revision, time.Until(r.Expiry) > 59*time.Minute, err)
	// Output: token revision 1, an hour: true, <nil>
}

func ExampleStore() {
	store, done := open(nil)
	defer done()
	store.Put([]byte("a"), []byte("1"))
	store.PutTTL([]byte("session"), []byte("token"), time.Hour)
	store.Delete([]byte("a"))
	_, err := store.Get([]byte("a"))
	fmt.Println(err == kv.ErrNotFound, store.Len())
	// Output: true 1
}

func ExampleStore_View() {
	store, done := open(nil)
	defer done()
	store.Put([]byte("text"), []byte("no copy is made of this"))
	err := store.View([]byte("text"), func(value []byte) error {
		fmt.Println(len(value)) // value is valid until here
		return nil
	})
	fmt.Println(err)
	// Output:
	// 23
	// <nil>
}

func ExampleStore_GetMany() {
	store, done := open(nil)
	defer done()
	store.Put([]byte("a"), []byte("1"))
	store.Put([]byte("c"), []byte("3"))
	keys := [][]byte{[]byte("a"), []byte("b"), []byte("c")}
	store.GetMany(keys, func(i int, value []byte, ok bool) error {
		fmt.Printf("%s %q %v\n", keys[i], value, ok)
		return nil
	})
	// Output:
	// a "1" true
	// b "" false
	// c "3" true
}

func ExampleStore_Compute() {
	store, done := open(nil)
	defer done()
	for range 3 {
		store.Compute([]byte("visits"), func(old []byte, ok bool) ([]byte, kv.Op) {
			var n int
			fmt.Sscan(string(old), &n)
			return fmt.Append(nil, n+1), kv.Write
		})
	}
	n, _ := store.Get([]byte("visits"))
	fmt.Printf("%s\n", n)
	// Output: 3
}

func ExampleStore_CompareAndSwap() {
	store, done := open(nil)
	defer done()
	won, _ := store.CompareAndSwap([]byte("leader"), nil, []byte("me")) // nil: if absent
	again, _ := store.CompareAndSwap([]byte("leader"), nil, []byte("you"))
	fmt.Println(won, again)
	// Output: true false
}

func ExampleTx() {
	store, done := open(nil)
	defer done()
	store.Put([]byte("alice"), []byte("100"))
	err := store.Update(func(tx *kv.Tx) error {
		if err := tx.Put([]byte("alice"), []byte("60")); err != nil {
			return err
		}
		if err := tx.Put([]byte("bob"), []byte("40")); err != nil {
			return err
		}
		tx.Durable() // Update returns after the durability point
		return nil
	})
	bob, _ := store.Get([]byte("bob"))
	fmt.Println(string(bob), err)

	err = store.Update(func(tx *kv.Tx) error {
		tx.Delete([]byte("alice"))
		return errors.New("changed my mind")
	})
	alice, _ := store.Get([]byte("alice"))
	fmt.Println(string(alice), err)
	// Output:
	// 40 <nil>
	// 60 changed my mind
}

func ExampleIter() {
	store, done := open(nil)
	defer done()
	for _, key := range []string{"user/1", "user/2", "group/1"} {
		store.Put([]byte(key), []byte("x"))
	}
	it := store.Iter([]byte("user/")) // a snapshot: what comes after it is not in it
	store.Put([]byte("user/3"), []byte("late"))
	for key, value := range it.All() {
		fmt.Printf("%s=%s\n", key, value)
	}
	if err := it.Err(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// user/1=x
	// user/2=x
}

func ExampleOptions() {
	store, done := open(&kv.Options{
		Durability: kv.SyncAlways, // each write returns after its durability point
		MaxSize:    1 << 30,
		CompactAt:  -1, // only Compact compacts
	})
	defer done()
	store.Put([]byte("k"), []byte("v"))
	fmt.Println(store.Stats().DurableRevision)
	// Output: 1
}

func ExampleHooks() {
	store, done := open(&kv.Options{Hooks: &kv.Hooks{
		Synced: func(bytes int64, took time.Duration, err error) { fmt.Println("synced", bytes, "bytes:", err) },
	}})
	defer done()
	store.PutDurable([]byte("k"), []byte("v"))
	// Output: synced 32 bytes: <nil>
}

func ExampleStore_Compact() {
	store, done := open(nil)
	defer done()
	for i := range 100 {
		store.Put([]byte("k"), fmt.Append(nil, i))
	}
	info, err := store.Compact(context.Background())
	fmt.Println(info.Keys, info.After < info.Before, err)
	// Output: 1 true <nil>
}

func ExampleStore_WriteTo() {
	store, done := open(nil)
	defer done()
	store.Put([]byte("k"), []byte("v"))
	backup, err := os.CreateTemp("", "backup")
	if err != nil {
		log.Fatal(err)
	}
	defer os.Remove(backup.Name())
	if _, err := store.WriteTo(backup); err != nil {
		log.Fatal(err)
	}
	backup.Close()
	copied, err := kv.Open(backup.Name(), &kv.Options{ReadOnly: true})
	if err != nil {
		log.Fatal(err)
	}
	defer copied.Close()
	fmt.Println(copied.Len())
	// Output: 1
}

func ExampleReport() {
	store, done := open(nil)
	defer done()
	store.Put([]byte("k"), []byte("v"))
	report, err := store.Verify(context.Background())
	fmt.Println(report.Keys, report.Violations, err)
	// Output: 1 [] <nil>
}

func ExampleStats() {
	store, done := open(nil)
	defer done()
	store.Put([]byte("k"), []byte("v"))
	store.Put([]byte("k"), []byte("w"))
	st := store.Stats()
	fmt.Println(st.Keys, st.Records, st.LiveBytes, st.DeadBytes)
	// Output: 1 2 32 32
}

func ExampleInspect() {
	store, done := open(nil)
	defer done()
	info, err := kv.Inspect(store.Path()) // works while a process writes the store
	fmt.Println(info.Version, info.Generation, info.Holder == os.Getpid(), err)
	// Output: 1 1 true <nil>
}

func ExampleStore_Records() {
	store, done := open(nil)
	defer done()
	store.Put([]byte("k"), []byte("old"))
	store.Put([]byte("k"), []byte("new"))
	for r, err := range store.Records(context.Background()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d %s=%s live=%v\n", r.Revision, r.Key, r.Value, r.Live)
	}
	// Output:
	// 1 k=old live=false
	// 2 k=new live=true
}

func ExampleError() {
	_, err := kv.Open("/dev/null", nil)
	var e *kv.Error
	fmt.Println(errors.Is(err, kv.ErrFormat), errors.As(err, &e) && e.Op == "open")
	fmt.Println(err)
	// Output:
	// true true
	// mmapkv: open /dev/null: not a store: open: not a regular file: character device
}

func ExampleStore_Suspects() {
	dir, _ := os.MkdirTemp("", "suspects")
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "store")
	store, err := kv.Open(path, nil)
	if err != nil {
		log.Fatal(err)
	}
	store.Put([]byte("greeting"), []byte("hello"))
	store.Put([]byte("farewell"), []byte("bye"))
	store.Close()

	// A byte of the first value goes bad.
	b, _ := os.ReadFile(path)
	os.WriteFile(path, bytes.Replace(b, []byte("hello"), []byte("jello"), 1), 0o600)

	_, err = kv.Open(path, nil)
	fmt.Println(errors.Is(err, kv.ErrCorrupt))
	store, err = kv.Open(path, &kv.Options{Salvage: true})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	fmt.Println(len(store.Stats().Missing), "range is missing,", store.Len(), "key is left")
	for suspect, err := range store.Suspects(context.Background()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("probably lost: %s\n", suspect.Key)
	}
	// Output:
	// true
	// 1 range is missing, 1 key is left
	// probably lost: greeting
}

func ExampleStore_Watch() {
	store, done := open(nil)
	defer done()
	_ = store.Put([]byte("job/1"), []byte("queued"))
	for e := range store.Watch(context.Background(), []byte("job/")) {
		switch {
		case e.Err != nil:
			log.Fatal(e.Err)
		case e.Deleted:
			fmt.Printf("%s is gone\n", e.Key)
			return
		}
		fmt.Printf("%s is %s\n", e.Key, e.Value)
		if string(e.Value) == "queued" { // most often another goroutine, or another process
			_ = store.Put(e.Key, []byte("done"))
		} else {
			_ = store.Delete(e.Key)
		}
	}
	// Output:
	// job/1 is queued
	// job/1 is done
	// job/1 is gone
}

func ExampleStore_WatchFrom() {
	store, done := open(nil)
	defer done()
	_ = store.Put([]byte("a"), []byte("1"))
	dealtWith := store.Stats().Revision // to be kept by whoever resumes
	_ = store.Put([]byte("b"), []byte("2"))
	for e := range store.WatchFrom(context.Background(), nil, dealtWith) {
		if errors.Is(e.Err, kv.ErrCompacted) {
			fmt.Println("begin with Watch")
			return
		}
		fmt.Printf("%s is %s\n", e.Key, e.Value)
		if string(e.Key) == "c" {
			break
		}
		_ = store.Put([]byte("c"), []byte("3"))
	}
	// Output:
	// b is 2
	// c is 3
}

func ExampleOpenMap() {
	dir, err := os.MkdirTemp("", "mmapkv")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	visits, err := kv.OpenMap[string, int](filepath.Join(dir, "visits.mmkv"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer visits.Close()
	for _, page := range []string{"/", "/about", "/"} {
		if _, err := kv.Add(visits, page, 1); err != nil {
			log.Fatal(err)
		}
	}
	n, err := visits.Get("/")
	fmt.Println(n, err)
	// Output: 2 <nil>
}

func ExampleNewMap() {
	store, err := kv.OpenMem(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	type user struct{ Name string }
	users, err := kv.NewMap(store, "users", codec.Uint32{}, codec.JSON[user]{})
	if err != nil {
		log.Fatal(err)
	}
	if err := users.Put(7, user{"Ada"}); err != nil {
		log.Fatal(err)
	}
	_, err = kv.NewMap(store, "users", codec.String{}, codec.JSON[user]{})
	fmt.Println(errors.Is(err, kv.ErrCodec))
	// Output: true
}

func ExampleStore_Maps() {
	store, err := kv.OpenMem(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	ages, err := kv.NewMap(store, "ages", codec.String{}, codec.Uint8{})
	if err != nil {
		log.Fatal(err)
	}
	if err := ages.Put("Ada", 36); err != nil {
		log.Fatal(err)
	}

	// A tool, which has no Go types.
	maps, err := store.Maps()
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range maps {
		values, _ := codec.ByName(m.Values)
		it := store.Iter(m.Prefix())
		for key, bytes := range it.All() {
			_, name, _ := kv.SplitKey(key)
			v, err := values.Decode(bytes)
			fmt.Printf("%s: %s is %v %v\n", m.Name, name, v, err)
		}
	}
	// Output: ages: Ada is 36 <nil>
}

func ExampleValue() {
	dir, err := os.MkdirTemp("", "mmapkv")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	type settings struct {
		Theme string
		Size  int
	}
	value, err := kv.OpenValue(filepath.Join(dir, "settings.mmkv"), &kv.ValueOptions[settings]{Default: settings{"light", 12}})
	if err != nil {
		log.Fatal(err)
	}
	defer value.Close()
	now, err := value.Update(func(s settings) (settings, error) {
		s.Theme = "dark"
		return s, nil
	})
	fmt.Println(now, err)
	// Output: {dark 12} <nil>
}
