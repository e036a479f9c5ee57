// Package kvhttp serves a page about a store, for who looks after the program that has it open: the
// figures, and where the bytes of the file are.
//
//	http.Handle("GET /debug/store", kvhttp.Handler(store))
//
// It shows no key and no value, but the path of the file, and drawing the map reads all of the log:
// serve it where operators get at it, and nobody else.
package kvhttp

import (
	"bytes"
	"context"
	_ "embed"
	"html/template"
	"net/http"
	"strconv"
	"time"

	"github.com/mmapkv/mmapkv/internal/spacemap"
	"github.com/mmapkv/mmapkv/kv"
)

const (
	mapColumns, mapRows = 80, 20
	// smallLog is the length of a log, in bytes, up to which the map is drawn unasked: a tenth of a
	// second, with values of 100 bytes.
	smallLog = 64 << 20
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{"group": group}).Parse(pageText))

// page is what the template shows.
type page struct {
	Path     string
	At       time.Time
	Open     bool // else there is nothing but the count of damage
	Figures  []kv.Figure
	Poisoned error
	Space    template.HTML // empty: not drawn, for it was not asked for, or for
	MapError error
	LogBytes int64
}

// Handler returns a handler of GET and HEAD that serves the page: one HTML document, with neither
// scripts nor other files. It stands beside any use of s, and any number of requests. The figures
// cost one Stats. The map costs a pass over the log: so it is drawn unasked only up to 64 MiB, and
// else by a link (?map=1); one request at a time draws it, and one that is gone stops. While it is
// drawn, a file that a compaction has replaced stays on the disk. Of a store that is closed, or
// cannot be read, the status is 503.
func Handler(s *kv.Store) http.Handler {
	drawing := make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			header.Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		p := describe(r.Context(), s, r.URL.Query().Get("map") != "", drawing)
		var b bytes.Buffer // whole before the first byte goes out: a template cannot fail halfway
		if err := pageTemplate.Execute(&b, p); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		header.Set("Content-Type", "text/html; charset=utf-8")
		header.Set("Content-Length", strconv.Itoa(b.Len()))
		header.Set("Cache-Control", "no-store")
		header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		if !p.Open {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write(b.Bytes()) // the client may be gone
	})
}

// describe reads what the page shows, with the map if it was asked for or takes no time.
func describe(ctx context.Context, s *kv.Store, draw bool, drawing chan struct{}) *page {
	st := s.Stats()
	p := &page{Path: s.Path(), At: time.Now().UTC(), Open: st.Generation != 0}
	if p.Open && (draw || st.Tail <= smallLog) {
		m, of, err := readSpace(ctx, s, drawing)
		if err == nil {
			st, p.Space = of, m.SVG(of.FileBytes, mapColumns)
		}
		p.MapError = err
	}
	p.Figures, p.Poisoned, p.LogBytes = st.Figures(), st.Poisoned, st.Tail
	return p
}

// readSpace reads the log when no other request does.
func readSpace(ctx context.Context, s *kv.Store, drawing chan struct{}) (*spacemap.Map, kv.Stats, error) {
	select {
	case drawing <- struct{}{}:
		defer func() { <-drawing }()
		return spacemap.Read(ctx, s, mapColumns*mapRows, func(*kv.Record, int64) {})
	case <-ctx.Done():
		return nil, kv.Stats{}, ctx.Err()
	}
}

// group writes n with a comma between thousands.
func group(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
