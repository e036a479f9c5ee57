package main

import (
	"errors"
	"os"
)

// coloring is when output is coloured.
type coloring string

const (
	colorAuto   coloring = "auto"
	colorAlways coloring = "always"
	colorNever  coloring = "never"
)

// coloring is a pflag.Value.
func (c *coloring) String() string { return string(*c) }
func (c *coloring) Type() string   { return "auto|always|never" }
func (c *coloring) Set(s string) error {
	switch coloring(s) {
	case colorAuto, colorAlways, colorNever:
		*c = coloring(s)
		return nil
	}
	return errors.New("must be auto, always or never")
}

// palette is whether colours may be used.
type palette bool

// palette returns that of f: by itself only a terminal that knows colours has any, and
// only if NO_COLOR is not set (no-color.org).
func (t *tool) palette(f *os.File) palette {
	switch t.color {
	case colorAlways:
		return true
	case colorNever:
		return false
	}
	return palette(isTerminal(f) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "" && !isDumb())
}

// isDumb tells whether the terminal obeys nothing.
func isDumb() bool { return os.Getenv("TERM") == "dumb" }

// ink is a colour, as the parameter of the terminal's sequence SGR.
type ink string

const (
	inkPlain ink = ""
	inkGood  ink = "32" // green
	inkWarn  ink = "33" // yellow
	inkBad   ink = "31" // red
	inkAlarm ink = "1;31"
	inkFaint ink = "2"
)

// paint returns text in a colour.
func (p palette) paint(with ink, text string) string {
	if !p || with == inkPlain || text == "" {
		return text
	}
	return "\x1b[" + string(with) + "m" + text + "\x1b[0m"
}
