package kv_test

import (
	"fmt"
	"log"
	"os"

	"github.com/mmapkv/mmapkv/kv"
)

func ExampleUser() {
	store, done := open(nil)
	defer done()
	users, _, err := kv.Users(store.Path())
	if err != nil {
		log.Fatal(err)
	}
	for _, u := range users {
		fmt.Println(u.PID == os.Getpid(), u.Access, u.Writing)
	}
	// Output: true exclusive true
}

func ExampleAccess() {
	store, done := open(&kv.Options{Shared: true})
	defer done()
	_ = store.Put([]byte("k"), []byte("v"))
	users, _, err := kv.Users(store.Path())
	if err != nil {
		log.Fatal(err)
	}
	for _, u := range users {
		fmt.Println(u.Access == kv.AccessShared, u.Access)
	}
	// Output: true shared
}
