package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mmapkv/mmapkv/codec"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// coder shows bytes, and takes what people and programs write for them, by the name of a
// codec. The zero coder is that of bytes of which nothing is known.
type coder struct {
	name    string
	codec   codec.Named              // its Codec is nil if ByName does not know the name
	message protoreflect.MessageType // of a protobuf message whose descriptor was given
	types   messageTypes             // of the same file as message
	form    form                     // hex and base64 are of the bytes, whatever the codec
	whole   bool                     // show nothing from which fromJSON would not make the same
}

// protoPrefix begins the name of a codec of protobuf messages; the message's follows.
const protoPrefix = "proto:"

func newCoder(name string, f form, types messageTypes) coder {
	c := coder{name: name, form: f, types: types}
	c.codec, _ = codec.ByName(name)
	if message, ok := strings.CutPrefix(name, protoPrefix); ok {
		c.message = types.find(message)
	}
	return c
}

// isMessage tells whether the bytes are those of a protobuf message.
func (c *coder) isMessage() bool { return strings.HasPrefix(c.name, protoPrefix) }

// isText tells whether people write what the bytes are themselves.
func (c *coder) isText() bool {
	switch c.name {
	case "bytes", "string", "text":
		return true
	}
	return c.codec.Codec == nil && !c.isMessage()
}

// showing is what a coder makes of bytes.
type showing int

const (
	asBytes showing = iota // bytes that may be text
	asText                 // printable text: a JSON string
	asJSON                 // one JSON value, without white space
)

// show returns what b stands for. What does not decode is an error.
func (c *coder) show(b []byte) ([]byte, showing, error) {
	switch {
	case c.message != nil:
		text, err := c.types.show(c.message, b, c.whole)
		return text, asJSON, err
	case c.isMessage() && c.whole:
		return nil, 0, errors.New("a protobuf message of which the descriptor is not known (--proto)")
	case c.isMessage():
		text, err := appendFields(nil, b, 0)
		return text, asJSON, err
	case c.codec.Codec == nil:
		return b, asBytes, nil
	}
	v, err := c.codec.Decode(b)
	if err != nil {
		return nil, 0, err
	}
	switch v := v.(type) {
	case []byte:
		return v, asBytes, nil
	case string:
		return []byte(v), asBytes, nil
	case time.Time:
		if v.Year() < 0 || v.Year() > 9999 {
			return nil, 0, fmt.Errorf("the year %d is none of RFC 3339", v.Year())
		}
		return v.AppendFormat(nil, time.RFC3339Nano), asText, nil
	case json.RawMessage:
		text, err := compactJSON(v)
		return text, asJSON, err
	case float32:
		return showFloat(float64(v), v)
	case float64:
		return showFloat(v, v)
	}
	return fmt.Append(nil, v), asJSON, nil
}

// showFloat shows a number: JSON has none that are infinite, or no number.
func showFloat(f float64, v any) ([]byte, showing, error) {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return fmt.Append(nil, v), asText, nil
	}
	return fmt.Append(nil, v), asJSON, nil
}

func compactJSON(v []byte) ([]byte, error) {
	if !utf8.Valid(v) {
		return nil, errors.New("JSON that is not valid UTF-8")
	}
	var b bytes.Buffer
	err := json.Compact(&b, v)
	return b.Bytes(), err
}

// write writes b for a person; text is how plain bytes are written.
func (c *coder) write(w stringWriter, b []byte, text func(stringWriter, []byte)) {
	if c.form == formHex || c.form == formBase64 {
		c.form.write(w, b, text)
		return
	}
	shown, as, err := c.show(b)
	switch {
	case err != nil:
		w.WriteString(`undecoded:"`)
		escape(w, b, escapeText)
		w.WriteString(`"`)
	case as == asBytes:
		text(w, shown)
	default:
		escape(w, shown, escapeJSONText)
	}
}

// field writes b as a field of a JSON object: name, or name_base64 if it is no text or does
// not decode, and then why, as name_undecoded.
func (c *coder) field(w stringWriter, name string, b []byte) {
	shown, as, err := c.show(b)
	switch {
	case err != nil:
		w.WriteString(`"` + name + `_base64":"`)
		writeBase64(w, b)
		w.WriteString(`","` + name + `_undecoded":`)
		why, _ := printable(err.Error()).MarshalJSON()
		w.Write(why)
	case as == asBytes:
		writeField(w, name, shown)
	case as == asText:
		w.WriteString(`"` + name + `":"`)
		escape(w, shown, escapeJSON)
		w.WriteString(`"`)
	default:
		w.WriteString(`"` + name + `":`)
		escape(w, shown, escapeJSONText)
	}
}

// parse returns the bytes that s stands for; what names s in the error.
func (c *coder) parse(what, s string) ([]byte, error) {
	if c.form == formHex || c.form == formBase64 {
		b, err := c.form.parse(what, s)
		if err != nil {
			return nil, err
		}
		return c.take(what, b)
	}
	b, err := c.fromText(s)
	if err != nil {
		return nil, usagef("%s: %v", what, err)
	}
	return b, nil
}

// take is parse of what stdin or a file holds, whose form has been taken off already.
func (c *coder) take(what string, b []byte) (taken []byte, err error) {
	switch {
	case c.form == formHex || c.form == formBase64:
		taken, err = b, c.check(b)
	case c.isText():
		taken = b
	default:
		taken, err = c.fromText(strings.TrimSpace(string(b)))
	}
	if err != nil {
		return nil, usagef("%s: %v", what, err)
	}
	return taken, nil
}

// prefix returns the bytes that the keys begin with which s begins.
func (c *coder) prefix(s string) ([]byte, error) {
	if s != "" && !c.isText() && c.form == formText {
		return nil, usagef("keys of %s have no beginnings as text; --key-format hex takes those of their bytes", c.name)
	}
	return c.form.parse("the prefix", s)
}

// fromText returns the bytes of what a person wrote.
func (c *coder) fromText(s string) ([]byte, error) {
	switch {
	case c.message != nil:
		return c.types.parse(c.message, []byte(s))
	case c.isMessage():
		return nil, fmt.Errorf("%s is taken as JSON by its descriptor: --proto names its file", c.name)
	case c.codec.Codec == nil:
		return []byte(s), nil
	}
	v, err := c.codec.Parse(s)
	if err != nil {
		return nil, err
	}
	return c.codec.Append(nil, v)
}

// fromJSON returns the bytes of a JSON value, as field writes it.
func (c *coder) fromJSON(raw []byte) ([]byte, error) {
	switch {
	case c.isText():
		if raw[0] != '"' {
			return nil, errors.New("is not a string")
		}
	case c.name == "json" || c.isMessage() || raw[0] != '"':
		return c.fromText(string(raw))
	}
	text, err := unquote(raw)
	if err != nil {
		return nil, err
	}
	return c.fromText(text)
}

// check tells whether b are bytes that the codec writes, as far as can be said without its type.
func (c *coder) check(b []byte) error {
	switch {
	case c.message != nil:
		_, err := c.types.decode(c.message, b)
		return err
	case c.codec.Codec == nil:
		return nil
	}
	_, err := c.codec.Decode(b)
	return err
}
