package main

import (
	"strings"
	"testing"
)

// Goal: a key takes no more columns than there are, stays readable where it can,
// and never does anything to a terminal.
func TestCanvasFit(t *testing.T) {
	ascii, full := canvas{ascii: true}, canvas{}
	for _, test := range []struct {
		name    string
		c       canvas
		key     string
		columns int
		want    string
	}{
		{"it fits", ascii, "greeting", 8, "greeting"},
		{"one too long", ascii, "greetings", 8, "greet..."},
		{"control bytes", ascii, "\x1b[2J", 20, `"\x1b[2J"`},
		{"not ASCII, in ASCII", ascii, "é鍵", 20, `"\u00e9\u9375"`},
		{"not ASCII", full, "é鍵", 20, "é鍵"},
		{"wide, cut", full, "鍵鍵鍵鍵", 7, "鍵鍵..."},
		{"wide, whole", full, "鍵鍵鍵", 6, "鍵鍵鍵"},
		{"empty", ascii, "", 8, `""`},
		{"huge", ascii, strings.Repeat("x", 60_000), 8, "xxxxx..."},
		{"huge and binary", ascii, strings.Repeat("\x00", 60_000), 8, `"\x00...`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.c.fit([]byte(test.key), test.columns); got != test.want {
				t.Errorf("drawn as %q, want %q", got, test.want)
			}
		})
	}
}

// Goal: the locale decides by the variable that counts, as in setlocale.
func TestLocaleIsUTF8(t *testing.T) {
	for _, test := range []struct {
		name, all, ctype, lang string
		want                   bool
	}{
		{"nothing set", "", "", "", false},
		{"LANG", "", "", "de_DE.UTF-8", true},
		{"LANG, lower case", "", "", "C.utf8", true},
		{"LC_CTYPE over LANG", "", "C", "de_DE.UTF-8", false},
		{"LC_ALL over all", "C.UTF-8", "C", "C", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("LC_ALL", test.all)
			t.Setenv("LC_CTYPE", test.ctype)
			t.Setenv("LANG", test.lang)
			if got := localeIsUTF8(); got != test.want {
				t.Errorf("UTF-8: %v, want %v", got, test.want)
			}
		})
	}
}
