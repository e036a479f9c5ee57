package kvexpvar_test

import (
	"encoding/json"
	"expvar"
	"fmt"
	"log"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/mmapkv/mmapkv/kv/kvexpvar"
)

func ExampleVar() {
	store, err := kv.OpenMem(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	expvar.Publish("sessions", kvexpvar.Var(store)) // package expvar serves it on /debug/vars
	if err := store.Put([]byte("alice"), []byte("1")); err != nil {
		log.Fatal(err)
	}

	var figures map[string]int64
	if err := json.Unmarshal([]byte(expvar.Get("sessions").String()), &figures); err != nil {
		log.Fatal(err)
	}
	fmt.Println("keys:", figures["keys"])
	fmt.Println("puts and deletes so far:", figures["mutations_total"])
	// Output:
	// keys: 1
	// puts and deletes so far: 1
}
