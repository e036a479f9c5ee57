// Sessions is a web server whose users stay logged in when it is killed and started again: a
// session store behind net/http, to be copied.
//
// A session lies under the hash of its ID, so that who reads the file, or a backup of it, cannot
// take it over; and it is put with a TTL, so that nobody has to sweep the expired ones: they are absent
// from that moment on, and a compaction leaves their bytes behind. Each visit puts the end off,
// though not more often than once in a tenth of the TTL, in a transaction: a session that was
// ended meanwhile does not come back.
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"html/template"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/kv"
)

const usage = `Usage: sessions [-f STORE] [-addr ADDRESS] [-ttl D] [-insecure]

Serves a page that knows who is logged in. Any name will do, with the password
"example": put your own check into authenticate. The cookie is for HTTPS only; on
localhost browsers make an exception, and -insecure sends it without.

Exit codes: 0 interrupted, after the requests under way; 1 an error; 2 wrong usage.

`

func main() {
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	path := flag.String("f", "sessions.mmkv", "the `store` of the sessions")
	addr := flag.String("addr", "localhost:8080", "the `address` to serve")
	ttl := flag.Duration("ttl", 24*time.Hour, "how long a session outlives the last visit")
	insecure := flag.Bool("insecure", false, "send the cookie over plain HTTP too")
	flag.Parse()
	if flag.NArg() != 0 || *ttl < time.Second {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *path, *addr, *ttl, !*insecure); err != nil {
		fmt.Fprintln(os.Stderr, "sessions:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, path, addr string, ttl time.Duration, secure bool) (err error) {
	s, err := openSessions(path, ttl, secure)
	if err != nil {
		return err
	}
	// Closing syncs; the handlers are through by then.
	defer func() { err = errors.Join(err, s.m.Store().Close()) }()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	server := &http.Server{
		Handler:           handler(s),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	return server.Shutdown(patience)
}

// session is what is kept of one.
type session struct {
	User  string
	Begun time.Time
	Seen  time.Time // when its end was last put off
}

// sessions are those of all users, by the hash of the session's ID.
type sessions struct {
	m      *kv.Map[string, session]
	ttl    time.Duration
	secure bool
}

func openSessions(path string, ttl time.Duration, secure bool) (*sessions, error) {
	store, err := kv.Open(path, nil)
	if err != nil {
		return nil, err
	}
	m, err := kv.NewMap(store, "sessions", codec.String{}, codec.JSON[session]{})
	if err != nil {
		store.Close()
		return nil, err
	}
	return &sessions{m: m, ttl: ttl, secure: secure}, nil
}

// keyOf returns where the session with that ID lies. The ID is as random as the hash is long:
// there is nothing to guess, and no salt is needed.
func keyOf(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

// begin begins a session, with a new ID: one that was there before the login is worth nothing after it.
func (s *sessions) begin(w http.ResponseWriter, user string) error {
	id, now := rand.Text(), time.Now()
	if err := s.m.PutTTL(keyOf(id), session{User: user, Begun: now, Seen: now}, s.ttl); err != nil {
		return err
	}
	http.SetCookie(w, s.cookie(id, 0))
	return nil
}

// get returns the session of a request, and puts its end off; kv.ErrNotFound if there is none.
func (s *sessions) get(r *http.Request) (v session, err error) {
	c, err := r.Cookie(s.name())
	if err != nil {
		return session{}, kv.ErrNotFound
	}
	key := keyOf(c.Value)
	if v, err = s.m.Get(key); err != nil || time.Since(v.Seen) < s.ttl/10 {
		return v, err
	}
	err = s.m.Update(func(tx *kv.MapTx[string, session]) error {
		if v, err = tx.Get(key); err != nil {
			return err // it was ended just now
		}
		v.Seen = time.Now()
		return tx.PutTTL(key, v, s.ttl)
	})
	return v, err
}

// end ends the session of a request, if it has one. It returns when that is durable: a session
// that a user ended must not come back with a power cut. (One that is lost in it is a login more.)
func (s *sessions) end(w http.ResponseWriter, r *http.Request) error {
	c, err := r.Cookie(s.name())
	if err != nil {
		return nil
	}
	http.SetCookie(w, s.cookie("", -1))
	if err := s.m.Delete(keyOf(c.Value)); err != nil {
		return err
	}
	return s.m.Sync()
}

// name is that of the cookie. With the prefix __Host- a browser takes it from this host alone.
func (s *sessions) name() string {
	if s.secure {
		return "__Host-session"
	}
	return "session"
}

func (s *sessions) cookie(id string, maxAge int) *http.Cookie {
	return &http.Cookie{Name: s.name(), Value: id, Path: "/", MaxAge: maxAge, Secure: s.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

// authenticate is where a program looks the user up.
func authenticate(user, password string) bool { return user != "" && password == "example" }

var page = template.Must(template.New("page").Parse(`<!doctype html>
<title>sessions</title>
{{if .User}}<p>Hello, {{.User}}, logged in since {{.Begun.Format "2 January 15:04:05"}}.
<form method=post action=/logout><button>Log out</button></form>
{{else}}<form method=post action=/login>
<input name=user placeholder=name> <input name=password type=password placeholder=password> <button>Log in</button>
</form>{{end}}
`))

// handler serves the page, and takes no login or logout that another site's page sends.
func handler(s *sessions) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		v, err := s.get(r)
		if err != nil && !errors.Is(err, kv.ErrNotFound) {
			fail(w, err)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		if err := page.Execute(w, v); err != nil {
			log.Print(err)
		}
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
		user := r.PostFormValue("user")
		if !authenticate(user, r.PostFormValue("password")) {
			http.Error(w, "wrong name or password", http.StatusForbidden)
			return
		}
		if err := errors.Join(s.end(w, r), s.begin(w, user)); err != nil {
			fail(w, err)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		if err := s.end(w, r); err != nil {
			fail(w, err)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	return http.NewCrossOriginProtection().Handler(mux)
}

// fail tells the log what is wrong, and the user that something is.
func fail(w http.ResponseWriter, err error) {
	log.Print(err)
	http.Error(w, "the session store failed; try again", http.StatusInternalServerError)
}
