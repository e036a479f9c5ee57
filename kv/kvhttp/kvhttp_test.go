package kvhttp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/mmapkv/mmapkv/kv/kvtest"
)

// get returns what h answers to a request for the page.
func get(h http.Handler, method, query string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, "/debug/store"+query, nil))
	return w
}

// Goal: the page has all figures and the map, of now; no key, no value, no script and no other
// file; and the name of the file is text, whatever it is.
// Method: a store with a hostile name, read between two puts.
func TestPage(t *testing.T) {
	path := t.TempDir() + `/<script>alert(1)<|script>&"'.mmkv`
	s, err := kv.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	h := Handler(s)
	for n := range 2 {
		if err := s.Put([]byte("secret"+strconv.Itoa(n)), bytes.Repeat([]byte("hidden"), 1000)); err != nil {
			t.Fatal(err)
		}
		w := get(h, http.MethodGet, "")
		body := w.Body.String()
		if w.Code != http.StatusOK || !strings.Contains(body, "<svg ") || !strings.Contains(body, `class="live"`) {
			t.Fatalf("%d: %s", w.Code, body)
		}
		st := s.Stats()
		for _, f := range st.Figures() {
			row := fmt.Sprintf(`<tr><th scope="row">%s</th><td class="n">%s</td><td>%s</td></tr>`, f.Name, group(f.Value), html.EscapeString(f.Help))
			if !strings.Contains(body, row) {
				t.Errorf("no row %s", row)
			}
		}
		for _, never := range []string{"secret", "hidden", "<script", " src=", "@import", "url("} {
			if strings.Contains(body, never) {
				t.Errorf("the page has %q", never)
			}
		}
		if !strings.Contains(body, "&lt;script&gt;alert(1)&lt;|script&gt;&amp;") {
			t.Error("the page does not have the path")
		}
		for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Length": strconv.Itoa(len(body))} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if policy := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none';") {
			t.Errorf("policy %q", policy)
		}
	}
}

// Goal: only GET and HEAD are served; HEAD has no body; a closed store is 503, and says so.
func TestStatus(t *testing.T) {
	s, err := kv.OpenMem(nil)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(Handler(s))
	defer server.Close()
	status := func(method string, want int) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: %s, want %d", method, response.Status, want)
		}
		if want == http.StatusMethodNotAllowed && response.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: allowed is %q", method, response.Header.Get("Allow"))
		}
	}
	status(http.MethodGet, http.StatusOK)
	status(http.MethodHead, http.StatusOK)
	status(http.MethodPost, http.StatusMethodNotAllowed)
	status(http.MethodDelete, http.StatusMethodNotAllowed)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	status(http.MethodGet, http.StatusServiceUnavailable)
	status(http.MethodHead, http.StatusServiceUnavailable)
	if body := get(Handler(s), http.MethodGet, "?map=1").Body.String(); !strings.Contains(body, "The store is closed") || !strings.Contains(body, "corruptions_total") {
		t.Errorf("of a closed store: %s", body)
	}
}

// Goal: a long log is read only when that was asked for, by one request at a time, and by none that
// is gone. Method: a log longer than the limit; a request that has the turn and keeps it.
func TestLongLog(t *testing.T) {
	s := kvtest.Open(t, &kv.Options{Durability: kv.SyncManual})
	value := make([]byte, 4<<20)
	for n := range byte(17) {
		if err := s.Put([]byte{n}, value); err != nil {
			t.Fatal(err)
		}
	}
	drawing := make(chan struct{}, 1)
	if p := describe(t.Context(), s, false, drawing); p.Space != "" || p.MapError != nil {
		t.Errorf("unasked: map %v, %v", p.Space != "", p.MapError)
	}
	if p := describe(t.Context(), s, true, drawing); p.Space == "" || p.MapError != nil {
		t.Errorf("asked: map %v, %v", p.Space != "", p.MapError)
	}
	drawing <- struct{}{}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if p := describe(gone, s, true, drawing); !errors.Is(p.MapError, context.Canceled) {
		t.Errorf("of a request that is gone: %v", p.MapError)
	}
	<-drawing
	h := Handler(s)
	if body := get(h, http.MethodGet, "").Body.String(); !strings.Contains(body, `<a href="?map=1">`) || strings.Contains(body, "<svg ") {
		t.Errorf("unasked: %s", body)
	}
	if body := get(h, http.MethodGet, "?map=1").Body.String(); !strings.Contains(body, "<svg ") {
		t.Errorf("asked: %s", body)
	}
}

// Goal: the page stands beside writers and compactions. Method: requests at once while both go on.
func TestBusyStore(t *testing.T) {
	s := kvtest.Open(t, nil)
	h := Handler(s)
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for range 10 {
				if w := get(h, http.MethodGet, ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "<svg ") {
					t.Errorf("%d: %s", w.Code, w.Body)
				}
			}
		})
	}
	for n := range 400 {
		if err := s.Put([]byte{byte(n)}, make([]byte, 100)); err != nil {
			t.Error(err)
		}
		if n%100 == 99 {
			if _, err := s.Compact(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	readers.Wait()
}

// Goal: numbers are grouped. Method: a table.
func TestGroup(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 12345678: "12,345,678", -1: "-1", -123: "-123", -1234: "-1,234"} {
		if got := group(n); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
	}
}
