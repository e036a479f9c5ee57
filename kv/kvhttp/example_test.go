package kvhttp_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/mmapkv/mmapkv/kv/kvhttp"
)

func ExampleHandler() {
	store, err := kv.OpenMem(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	mux := http.NewServeMux()
	mux.Handle("GET /debug/store", kvhttp.Handler(store)) // on an address that only operators get at

	server := httptest.NewServer(mux)
	defer server.Close()
	response, err := http.Get(server.URL + "/debug/store")
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(response.Status, response.Header.Get("Content-Type"))
	fmt.Println("a map:", strings.Contains(string(page), "<svg "))
	// Output:
	// 200 OK text/html; charset=utf-8
	// a map: true
}
