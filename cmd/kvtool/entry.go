package main

import (
	"bytes"
	"time"
	"unicode/utf8"

	"github.com/mmapkv/mmapkv/kv"
)

// The JSON object of an entry, one a line, that export and scan --json print and
// import reads:
//
//	key, value                text, where the bytes are valid UTF-8
//	key_base64, value_base64  otherwise: standard base64
//	expires                   RFC 3339, where there is a deadline
//
// Where they are of a map, map is its name, if the verb was not asked for this one, and key and
// value are what their codecs say: a number, true, any JSON. Those that do not decode are in
// base64, and key_undecoded and value_undecoded say why; as key_base64 and value_base64 are
// always the bytes that the store has.
//
// A value that as text would be longer than the longest base64 is base64 too, so
// that no line is longer than maxLine.
const (
	maxTextValue = (kv.MaxValueSize + 2) / 3 * 4
	maxLine      = maxTextValue + 6*kv.MaxKeySize + 256
)

// writeExpires writes the deadline of an entry, if it has one.
func writeExpires(w stringWriter, at time.Time) {
	if !at.IsZero() {
		w.WriteString(`,"expires":"` + at.UTC().Format(time.RFC3339Nano) + `"`)
	}
}

func writeField(w stringWriter, name string, b []byte) {
	w.WriteString(`"` + name)
	if utf8.Valid(b) && escapedLen(b, escapeJSON) <= maxTextValue {
		w.WriteString(`":"`)
		escape(w, b, escapeJSON)
	} else {
		w.WriteString(`_base64":"`)
		writeBase64(w, b)
	}
	w.WriteString(`"`)
}

// appendJSON appends valid UTF-8 as a JSON string.
func appendJSON(dst, b []byte) []byte {
	w := bytes.NewBuffer(dst)
	w.WriteByte('"')
	escape(w, b, escapeJSON)
	w.WriteByte('"')
	return w.Bytes()
}

// jsonKey is a key within another JSON object, as writeField writes it.
type jsonKey struct {
	Key       *printable `json:"key,omitempty"`
	KeyBase64 []byte     `json:"key_base64,omitempty"`
}

func newJSONKey(key []byte) jsonKey {
	if !utf8.Valid(key) {
		return jsonKey{KeyBase64: key}
	}
	text := printable(key)
	return jsonKey{Key: &text}
}
