package mmapfile_test

import (
	"fmt"
	"log"
	"os"

	"github.com/mmapkv/mmapkv/mmapfile"
)

// Byte locks belong to an open File, so that two of them exclude each other in one process too.
func ExampleByteLock() {
	f, path, done := create()
	defer done()
	const compaction mmapfile.ByteLock = 1 // what it stands for is agreed upon
	other, err := mmapfile.Open(path, mmapfile.ReadWrite)
	if err != nil {
		log.Fatal(err)
	}
	defer other.Close()
	fmt.Println(f.TryLockByte(compaction, false))
	fmt.Println(other.TryLockByte(compaction, false))
	// Output:
	// true <nil>
	// false <nil>
}

func ExampleNameLock() {
	_, path, done := create()
	defer done()
	a, err := mmapfile.OpenName(path)
	if err != nil {
		log.Fatal(err)
	}
	defer a.Close()
	b, err := mmapfile.OpenName(path)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	fmt.Println(b.Shared())
	fmt.Println(a.Share())
	fmt.Println(b.Shared())
	// Output:
	// false <nil>
	// <nil>
	// true <nil>
}

func ExampleUser() {
	f, path, done := create()
	defer done()
	if err := f.TryLock(0); err != nil {
		log.Fatal(err)
	}
	users, _, err := mmapfile.Users(path, path+".draft")
	if err != nil {
		log.Fatal(err)
	}
	for _, u := range users {
		fmt.Println(u.PID == os.Getpid(), u.Lock == mmapfile.ExclusiveLock)
	}
	// Output: true true
}

// Lock says how a process, here this one, holds the file as a whole.
func ExampleLock() {
	f, path, done := create()
	defer done()
	if err := f.TryShare(); err != nil {
		log.Fatal(err)
	}
	users, _, err := mmapfile.Users(path, path+".draft")
	if err != nil {
		log.Fatal(err)
	}
	for _, u := range users {
		fmt.Println(u.Lock == mmapfile.SharedLock)
	}
	// Output: true
}
