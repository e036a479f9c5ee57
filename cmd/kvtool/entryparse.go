package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

// entry is an entry as import reads it.
type entry struct {
	key, value []byte
	expires    time.Time // zero: never
}

// parseEntry reads the JSON object of an entry, and keeps nothing of line. It takes
// nothing for granted: a line that writeEntry would not have meant is an error,
// never another entry. encoding/json would take a field twice, or in another case,
// and put other characters in the place of what is no text; and it would copy a
// line of a gigabyte several times over. Of a typed map, keys and values are what its codecs
// make of them.
func parseEntry(line []byte, m *mapping) (e entry, err error) {
	if !utf8.Valid(line) {
		return e, errors.New("not valid UTF-8 (bytes that are none belong into key_base64 and value_base64)")
	}
	fields, err := entryFieldsOf(line, m)
	if err != nil {
		return e, err
	}
	if e.key, err = fields.bytes("key", &m.keys); err != nil {
		return e, err
	}
	if e.value, err = fields.bytes("value", &m.values); err != nil {
		return e, err
	}
	if raw, ok := fields["expires"]; ok {
		text, err := unquote(raw)
		if err == nil {
			e.expires, err = time.Parse(time.RFC3339Nano, text)
		}
		if err != nil {
			return e, fmt.Errorf("expires: %s is no time such as 2006-01-02T15:04:05.999Z", raw)
		}
	}
	return e, nil
}

// entryFields are the values of a JSON object by their names, quotes and escapes of
// strings included. They alias the line.
type entryFields map[string][]byte

// entryFieldsOf splits a JSON object that holds nothing but strings, each by the
// name of a field of an entry, and, for key and value of a typed map, any JSON.
func entryFieldsOf(line []byte, m *mapping) (entryFields, error) {
	var err error
	fields := entryFields{}
	s := splitter{rest: line}
	if !s.skip('{') {
		return nil, errors.New("not a JSON object")
	}
	for more := !s.skip('}'); more; more = !s.skip('}') {
		if len(fields) > 0 && !s.skip(',') {
			return nil, s.unexpected("a comma or the end of the object")
		}
		quoted, ok := s.str()
		if !ok {
			return nil, s.unexpected("the name of a field, in quotes")
		}
		name := string(quoted[1 : len(quoted)-1])
		switch name {
		case "key", "key_base64", "value", "value_base64", "expires":
		case "key_undecoded", "value_undecoded":
			if m.prefix == nil {
				return nil, fmt.Errorf("%s: an entry of no map has no such field", quoted)
			}
		default:
			return nil, fmt.Errorf("%.100s: an entry has no such field", quoted)
		}
		if _, ok := fields[name]; ok {
			return nil, fmt.Errorf("%s: is there twice", name)
		}
		if !s.skip(':') {
			return nil, s.unexpected("a colon")
		}
		if name == "key" && !m.keys.isText() || name == "value" && !m.values.isText() {
			if fields[name], err = s.value(); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			continue
		}
		if fields[name], ok = s.str(); !ok {
			return nil, fmt.Errorf("%s: is not a string that ends", name)
		}
	}
	if s.space(); len(s.rest) > 0 {
		return nil, errors.New("more follows the object")
	}
	return fields, nil
}

// splitter takes JSON apart from its beginning on.
type splitter struct{ rest []byte }

func (s *splitter) space() { s.rest = bytes.TrimLeft(s.rest, " \t\r\n") }

// skip skips white space and then c, if c follows.
func (s *splitter) skip(c byte) bool {
	s.space()
	if len(s.rest) == 0 || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

// str skips white space and returns the string that follows, with its quotes. It
// looks only for the end: the escapes are checked by unquote.
func (s *splitter) str() (quoted []byte, ok bool) {
	if s.space(); len(s.rest) == 0 || s.rest[0] != '"' {
		return nil, false
	}
	for i := 1; i < len(s.rest); i++ {
		switch c := s.rest[i]; {
		case c == '\\':
			i++
		case c < ' ':
			return nil, false
		case c == '"':
			quoted = s.rest[:i+1]
			s.rest = s.rest[i+1:]
			return quoted, true
		}
	}
	return nil, false
}

// value skips white space and returns the JSON value that follows, whatever it is.
func (s *splitter) value() (value json.RawMessage, err error) {
	d := json.NewDecoder(bytes.NewReader(s.rest))
	if err = d.Decode(&value); err == io.EOF || err == io.ErrUnexpectedEOF {
		err = errors.New("is cut short")
	}
	s.rest = s.rest[d.InputOffset():]
	return value, err
}

func (s *splitter) unexpected(wanted string) error {
	switch {
	case len(s.rest) == 0:
		return fmt.Errorf("cut short: %s should follow", wanted)
	case s.rest[0] == '"':
		return fmt.Errorf("cut short, or %s should stand before %.20q", wanted, s.rest)
	}
	return fmt.Errorf("%s should stand before %.20q", wanted, s.rest)
}

// bytes returns the bytes of the field name, which is there as c shows them or as base64.
func (f entryFields) bytes(name string, c *coder) ([]byte, error) {
	raw, isText := f[name]
	encoded, isBase64 := f[name+"_base64"]
	switch {
	case isText && isBase64:
		return nil, fmt.Errorf("both %s and %s_base64 are there", name, name)
	case isText:
		b, err := c.fromJSON(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return b, nil
	case isBase64:
		b, err := unquoteBase64(encoded)
		if err != nil {
			return nil, fmt.Errorf("%s_base64: %w", name, err)
		}
		return b, nil
	}
	return nil, fmt.Errorf("neither %s nor %s_base64 is there", name, name)
}

func unquote(raw []byte) (text string, err error) {
	if err := json.Unmarshal(raw, &text); err != nil {
		return "", errors.New("is not a JSON string: an escape is wrong")
	}
	if halfSurrogate(raw) {
		return "", errors.New(`holds half of a surrogate pair (\ud800 to \udfff), which is no text`)
	}
	return text, nil
}

func unquoteBase64(raw []byte) ([]byte, error) {
	encoded := raw[1 : len(raw)-1]
	if bytes.IndexByte(encoded, '\\') >= 0 { // some write \/ for /
		text, err := unquote(raw)
		if err != nil {
			return nil, err
		}
		encoded = []byte(text)
	}
	if bytes.ContainsAny(encoded, "\r\n") { // which the decoder would pass over
		return nil, errors.New("illegal base64 data: a line break")
	}
	return base64.StdEncoding.Strict().AppendDecode(nil, encoded)
}

// halfSurrogate tells whether a valid JSON string has an escape that stands for no
// character. encoding/json would put U+FFFD in its place, silently.
func halfSurrogate(raw []byte) bool {
	high := false // a high half is just before
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			if high {
				return true
			}
			continue
		}
		i++
		if raw[i] != 'u' {
			if high {
				return true
			}
			continue
		}
		var unit [2]byte
		hex.Decode(unit[:], raw[i+1:i+5])
		i += 4
		isHigh, isLow := unit[0]>>2 == 0xd8>>2, unit[0]>>2 == 0xdc>>2
		if isLow != high {
			return true
		}
		high = isHigh
	}
	return high
}
