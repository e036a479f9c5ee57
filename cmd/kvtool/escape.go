package main

import (
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// escaping says which bytes stand for those that cannot be printed as they are:
// control characters, bytes that are not UTF-8, and characters that do not show
// or that turn the writing direction round.
type escaping int

const (
	escapeControl  escaping = iota // as escapeText, but quotes and backslashes stand for themselves
	escapeText                     // the inside of a Go string literal
	escapeJSON                     // the inside of a JSON string; its input must be UTF-8
	escapeJSONText                 // as escapeJSON, of a whole JSON value: its quotes and backslashes stand for themselves
)

// stringWriter is what bufio.Writer and strings.Builder have in common.
type stringWriter interface {
	io.Writer
	io.StringWriter
}

// escape writes b, escaped. It needs no memory in proportion to b. Errors of w
// are for its Flush.
func escape(w stringWriter, b []byte, how escaping) {
	var buf [16]byte
	plain := 0 // b[plain:i] can be written as it is
	for i := 0; i < len(b); {
		r, n := rune(b[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRune(b[i:])
		}
		if as := how.append(buf[:0], r, b[i:i+n]); len(as) > 0 {
			w.Write(b[plain:i])
			w.Write(as)
			plain = i + n
		}
		i += n
	}
	w.Write(b[plain:])
}

// append appends what stands for the rune r, which is made of raw: nothing if that
// is r itself.
func (how escaping) append(dst []byte, r rune, raw []byte) []byte {
	invalid := r == utf8.RuneError && len(raw) == 1
	isJSON := how == escapeJSON || how == escapeJSONText
	switch {
	case (how == escapeText || how == escapeJSON) && (r == '"' || r == '\\'):
		return append(dst, '\\', byte(r))
	case !invalid && (' ' <= r && r < 0x7f || strconv.IsPrint(r)):
		return dst
	case r == '\n':
		return append(dst, `\n`...)
	case r == '\t':
		return append(dst, `\t`...)
	case r == '\r':
		return append(dst, `\r`...)
	case !isJSON && (invalid || r < utf8.RuneSelf):
		return appendHex(append(dst, `\x`...), rune(raw[0]), 2)
	case !isJSON && r > 0xffff:
		return appendHex(append(dst, `\U`...), r, 8)
	case r > 0xffff:
		high, low := utf16.EncodeRune(r)
		return appendHex(append(appendHex(append(dst, `\u`...), high, 4), `\u`...), low, 4)
	}
	return appendHex(append(dst, `\u`...), r, 4)
}

func appendHex(dst []byte, r rune, digits int) []byte {
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		dst = append(dst, "0123456789abcdef"[r>>shift&0xf])
	}
	return dst
}

// escapedLen returns how many bytes escape would write.
func escapedLen(b []byte, how escaping) int64 {
	var n counter
	escape(&n, b, how)
	return int64(n)
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(b []byte) (int, error)       { *c += counter(len(b)); return len(b), nil }
func (c *counter) WriteString(s string) (int, error) { *c += counter(len(s)); return len(s), nil }

// writeText writes b as it is where that cannot be misread, else as a Go string
// literal: in quotes, escaped.
func writeText(w stringWriter, b []byte) {
	if isPlain(b) {
		w.Write(b)
		return
	}
	w.WriteString(`"`)
	escape(w, b, escapeText)
	w.WriteString(`"`)
}

// isPlain tells whether b shows as it is: printable text that no quote begins, and
// not empty.
func isPlain(b []byte) bool {
	return len(b) > 0 && b[0] != '"' && escapedLen(b, escapeControl) == int64(len(b)) && utf8.Valid(b)
}

// printable is text that is printed within a JSON object and may hold anything:
// encoding/json alone would let through what a terminal obeys.
type printable string

func (p printable) MarshalJSON() ([]byte, error) {
	b := []byte(p)
	if !utf8.Valid(b) {
		b = []byte(string([]rune(string(p)))) // as encoding/json does
	}
	return appendJSON(nil, b), nil
}
