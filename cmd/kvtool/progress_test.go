package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Goal: a bar comes only after a while, names what goes on, and is taken away; in a
// pipe, and with --quiet, there is none. Method: a clock that is put back.
func TestProgress(t *testing.T) {
	for _, test := range []struct {
		name string
		on   bool
		ago  time.Duration
		want bool
	}{
		{"not for long", true, 0, false},
		{"for a while", true, 2 * progressAfter, true},
		{"not on a terminal", false, 2 * progressAfter, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			p := (&tool{err: f}).progress()
			if p.on {
				t.Error("a file is taken for a terminal")
			}
			p.on = test.on
			p.at("compact", 1, 100)
			p.start = p.start.Add(-test.ago)
			p.at("compact", 50, 100)
			p.at("compact", 60, 200)
			p.end()
			p.end()
			b, err := os.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(string(b), "compact"); got != test.want {
				t.Errorf("a bar: %v, want %v: %q", got, test.want, b)
			}
			if p.bar != nil {
				t.Error("the bar is still there")
			}
		})
	}
}

// Goal: what tells nothing of how far it is has a bar too, which gives way to one that
// knows more, without another wait. Method: a clock that is put back, and a look at what
// is shown while it runs.
func TestProgressDuring(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := (&tool{err: f}).progress()
	p.on = true
	shows := func(op string) bool {
		for range 1000 {
			b, err := os.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), op) {
				return true
			}
			time.Sleep(5 * time.Millisecond)
		}
		return false
	}
	err = p.during("open", func() error {
		p.mu.Lock()
		p.start = p.start.Add(-2 * progressAfter)
		p.mu.Unlock()
		if !shows("open ") {
			t.Error("no bar")
		}
		p.at("recover", 1, 100)
		if !shows("recover ") {
			t.Error("no bar of what is known")
		}
		return os.ErrInvalid
	})
	if err != os.ErrInvalid || p.bar != nil || p.op != "" {
		t.Errorf("error %v, bar %v of %q", err, p.bar, p.op)
	}
	if err := p.during("close", func() error { return nil }); err != nil || p.bar != nil {
		t.Errorf("error %v, bar %v", err, p.bar)
	}
	if b, err := os.ReadFile(f.Name()); err != nil || strings.Contains(string(b), "close") {
		t.Errorf("a bar for nothing: %q, %v", b, err)
	}
}
