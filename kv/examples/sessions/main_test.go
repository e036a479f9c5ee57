package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain is the program itself where a test has started it as such.
func TestMain(m *testing.M) {
	if os.Getenv("RUN_SESSIONS") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func program(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "RUN_SESSIONS=1")
	return cmd
}

// serve starts the server, and returns its address.
func serve(t *testing.T, path string) (*exec.Cmd, string) {
	t.Helper()
	cmd := program("-f", path, "-addr", "127.0.0.1:0", "-insecure")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if !ok {
		t.Fatalf("said %q", line)
	}
	return cmd, addr
}

// browser is a client that keeps cookies.
func browser(t *testing.T) *http.Client {
	jar, err := cookiejar.New(nil)
	must(t, err)
	return &http.Client{Jar: jar, Timeout: 10 * time.Second}
}

// body is what a request is answered with, after redirections.
func body(t *testing.T, resp *http.Response, err error) string {
	t.Helper()
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return string(b)
}

var login = url.Values{"user": {"Ada <b>"}, "password": {"example"}}

// Goal: who is logged in stays so when the server is killed, and who logged out does not come
// back. Method: the program, killed and started again, and interrupted in the end.
func TestRestart(t *testing.T) {
	path, b := filepath.Join(t.TempDir(), "sessions"), browser(t)
	server, addr := serve(t, path)
	resp, err := b.PostForm(addr+"/login", login)
	if got := body(t, resp, err); !strings.Contains(got, "Hello, Ada &lt;b&gt;") {
		t.Fatalf("after the login: %s", got)
	}
	old := b.Jar.Cookies(resp.Request.URL)[0]
	must(t, server.Process.Kill())
	server.Wait()

	server, addr = serve(t, path) // at another port, of which cookies know nothing
	resp, err = b.Get(addr)
	if got := body(t, resp, err); !strings.Contains(got, "Hello") {
		t.Errorf("after a kill: %s", got)
	}
	resp, err = b.PostForm(addr+"/logout", nil)
	if got := body(t, resp, err); strings.Contains(got, "Hello") {
		t.Errorf("after the logout: %s", got)
	}
	b.Jar.SetCookies(resp.Request.URL, []*http.Cookie{old})
	resp, err = b.Get(addr)
	if got := body(t, resp, err); strings.Contains(got, "Hello") {
		t.Errorf("with the cookie of a session that was ended: %s", got)
	}
	must(t, server.Process.Signal(syscall.SIGTERM))
	if err := server.Wait(); err != nil {
		t.Errorf("interrupted: %v", err)
	}
}

// Goal: sessions end, though visits put that off; cookies are for this host, HTTPS and no script;
// what is wrong or of another site is refused. Method: the handler alone.
func TestHandler(t *testing.T) {
	const ttl = 2 * time.Second
	s, err := openSessions(filepath.Join(t.TempDir(), "sessions"), ttl, true)
	must(t, err)
	defer s.m.Store().Close()
	h := handler(s)
	do := func(method, path, form string, cookie *http.Cookie, header ...string) *http.Response {
		r := httptest.NewRequest(method, "https://example.com"+path, strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if cookie != nil {
			r.AddCookie(cookie)
		}
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result()
	}
	for _, tc := range []struct {
		name, form string
		header     []string
	}{
		{"a wrong password", "user=a&password=b", nil},
		{"too long a form", "user=" + strings.Repeat("a", 5<<10) + "&password=example", nil},
		{"another site", login.Encode(), []string{"Sec-Fetch-Site", "cross-site"}},
	} {
		if r := do("POST", "/login", tc.form, nil, tc.header...); r.StatusCode != http.StatusForbidden || len(r.Cookies()) > 0 {
			t.Errorf("%s: %s, %v", tc.name, r.Status, r.Cookies())
		}
	}
	c := do("POST", "/login", login.Encode(), nil).Cookies()[0]
	if !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || !strings.HasPrefix(c.Name, "__Host-") || len(c.Value) < 26 {
		t.Errorf("cookie %v", c)
	}
	known := func() bool {
		b, err := io.ReadAll(do("GET", "/", "", c).Body)
		must(t, err)
		return bytes.Contains(b, []byte("Hello"))
	}
	for end := time.Now().Add(2 * ttl); time.Now().Before(end); time.Sleep(ttl / 8) {
		if !known() {
			t.Fatal("the session ended in spite of the visits")
		}
	}
	time.Sleep(ttl + ttl/4)
	if known() {
		t.Error("the session outlived its time")
	}
}

// Goal: wrong usage and errors are told apart, and told. Method: a table.
func TestErrors(t *testing.T) {
	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"-h"}, 0, "Usage"},
		{[]string{"more"}, 2, "Usage"},
		{[]string{"-ttl", "1ms"}, 2, "Usage"},
		{[]string{"-f", "/nowhere/at all"}, 1, "no such file"},
		{[]string{"-f", filepath.Join(t.TempDir(), "s"), "-addr", "nowhere"}, 1, "nowhere"},
	} {
		out, err := program(tc.args...).CombinedOutput()
		var exit *exec.ExitError
		code := 0
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		}
		if code != tc.code || !bytes.Contains(out, []byte(tc.says)) {
			t.Errorf("%q: exit code %d, %s", tc.args, code, out)
		}
	}
}
