package kvtest_test

import (
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/mmapkv/mmapkv/kv/kvtest"
)

// testOrders is a test of one's own, of a program that must tell its user that the disk is full,
// and must not lose what it has confirmed.
func testOrders(t *testing.T) {
	disk := kvtest.NewDisk(t)
	orders, err := kv.OpenMap[int, string](disk.Path("orders"), &kv.Options{Durability: kv.SyncAlways})
	if err != nil {
		t.Fatal(err)
	}
	defer orders.Close()
	if err := orders.Put(1, "tea"); err != nil {
		t.Fatal(err)
	}

	disk.Fail(kvtest.OpGrow, syscall.ENOSPC)
	if err := orders.Put(2, string(make([]byte, 1<<20))); !errors.Is(err, kv.ErrFull) {
		t.Errorf("on a full disk: %v", err)
	}
	disk.Mend()

	for seed := range uint64(100) {
		after := disk.Cut(rand.New(rand.NewPCG(seed, 0)))
		left, err := kv.OpenMap[int, string](after.Path("orders"), nil)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if order, err := left.Get(1); order != "tea" {
			t.Errorf("seed %d: %q, %v", seed, order, err)
		}
		left.Close()
	}
}

func ExampleDisk() {
	_ = testOrders // which go test runs, under a name that begins with Test
}
