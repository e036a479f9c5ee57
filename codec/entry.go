package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"google.golang.org/protobuf/encoding/protowire"
)

//go:generate protoc -I .. --go_out=.. --go_opt=module=github.com/mmapkv/mmapkv codec/entry.proto

// ErrEntry is wrapped, with what is wrong, by every error of Decode.
var ErrEntry = errors.New("malformed entry")

// Kind says what an entry does to its key.
type Kind uint8

const (
	Put    Kind = iota // the key has the value from here on
	Delete             // a tombstone: the key is absent from here on
)

// Entry is one put or delete.
type Entry struct {
	Key      []byte
	Revision uint64 // number of the mutation, > 0
	Written  int64  // unix seconds, coarse
	Expiry   int64  // unix milliseconds; 0: never
	Kind     Kind
	Value    []byte // of a Put; not written for a Delete, nil when decoded from one
}

// Field numbers of entry.proto.
const (
	fieldKey      protowire.Number = 1
	fieldRevision protowire.Number = 2
	fieldWritten  protowire.Number = 3
	fieldExpiry   protowire.Number = 4
	fieldKind     protowire.Number = 5
	fieldValue    protowire.Number = 15
)

// Tags as written: each is one byte, as the field numbers are below 16.
const (
	tagKey      = byte(fieldKey<<3) | byte(protowire.BytesType)
	tagRevision = byte(fieldRevision<<3) | byte(protowire.VarintType)
	tagWritten  = byte(fieldWritten<<3) | byte(protowire.VarintType)
	tagExpiry   = byte(fieldExpiry<<3) | byte(protowire.VarintType)
	tagKind     = byte(fieldKind<<3) | byte(protowire.VarintType)
	tagValue    = byte(fieldValue<<3) | byte(protowire.BytesType)
)

// Size returns the exact number of bytes that Append adds for e.
func (e *Entry) Size() int {
	n := 1 + protowire.SizeBytes(len(e.Key)) + 1 + protowire.SizeVarint(e.Revision)
	if e.Written != 0 {
		n += 1 + protowire.SizeVarint(uint64(e.Written))
	}
	if e.Expiry != 0 {
		n += 1 + protowire.SizeVarint(uint64(e.Expiry))
	}
	if e.Kind != Put {
		return n + 1 + protowire.SizeVarint(uint64(e.Kind))
	}
	return n + 1 + protowire.SizeBytes(len(e.Value))
}

// Append appends the bytes of e to dst and returns the extended slice, as append does: there is no allocation if dst has e.Size() bytes of
// capacity left. It does not judge e: with Revision 0 or a Kind of its own invention the bytes are such as Decode refuses.
func Append(dst []byte, e *Entry) []byte {
	dst = protowire.AppendBytes(append(dst, tagKey), e.Key)
	dst = protowire.AppendVarint(append(dst, tagRevision), e.Revision)
	if e.Written != 0 {
		dst = protowire.AppendVarint(append(dst, tagWritten), uint64(e.Written))
	}
	if e.Expiry != 0 {
		dst = protowire.AppendVarint(append(dst, tagExpiry), uint64(e.Expiry))
	}
	if e.Kind != Put {
		return protowire.AppendVarint(append(dst, tagKind), uint64(e.Kind))
	}
	return protowire.AppendBytes(append(dst, tagValue), e.Value)
}

// Decode reads the entry that p holds, from its first byte to its last. Key and Value alias p, their capacity ends with them, and they are
// not nil when present. Every error matches ErrEntry and says what is wrong and at which byte of p. Only an error allocates, and the cost
// does not depend on the lengths of key and value.
func Decode(p []byte) (Entry, error) {
	var e Entry
	last := byte(0)
	for at := 0; at < len(p); {
		// Every known tag is one byte, and a varint follows it. Tags order as field numbers do.
		tag := p[at]
		v, n := protowire.ConsumeVarint(p[at+1:])
		if tag <= last || n < 0 {
			return decodeSlowly(p)
		}
		last = tag
		at += 1 + n
		switch tag {
		case tagKey, tagValue:
			if v > uint64(len(p)-at) {
				return decodeSlowly(p)
			}
			end := at + int(v)
			if tag == tagKey {
				e.Key = p[at:end:end]
			} else {
				e.Value = p[at:end:end]
			}
			at = end
		case tagRevision:
			e.Revision = v
		case tagWritten:
			e.Written = int64(v)
		case tagExpiry:
			e.Expiry = int64(v)
		case tagKind:
			if v > uint64(Delete) {
				return decodeSlowly(p)
			}
			e.Kind = Kind(v)
		default:
			return decodeSlowly(p)
		}
	}
	if e.incomplete() != "" {
		return decodeSlowly(p)
	}
	return e, nil
}

// decodeSlowly is Decode for all that Decode does not take itself: unknown fields, tags in more than one byte, and whatever is malformed, for which
// it has the words.
func decodeSlowly(p []byte) (Entry, error) {
	var e Entry
	last := protowire.Number(0)
	for at := 0; at < len(p); {
		num, typ, n := protowire.ConsumeTag(p[at:])
		if n < 0 {
			return Entry{}, malformed("bad tag", at)
		}
		if wrong := misplaced(last, num); wrong != "" {
			return Entry{}, malformed(wrong, at)
		}
		m, wrong := e.decodeField(num, typ, p[at+n:])
		if m < 0 {
			return Entry{}, malformed(wrong, at)
		}
		last = num
		at += n + m
	}
	if wrong := e.incomplete(); wrong != "" {
		return Entry{}, malformed(wrong, len(p))
	}
	return e, nil
}

// misplaced returns what is wrong with field num where the field before it is last, 0 for none.
func misplaced(last, num protowire.Number) string {
	switch {
	case last == 0 && num != fieldKey:
		return "the first field is not the key"
	case num <= last:
		return "field numbers do not ascend"
	case num > fieldValue:
		return "field beyond the value"
	}
	return ""
}

// decodeField reads the value of field num from the start of b. It returns the number of bytes that it took, or a negative one and what is
// wrong.
func (e *Entry) decodeField(num protowire.Number, typ protowire.Type, b []byte) (n int, wrong string) {
	switch num {
	case fieldKey, fieldValue:
		if typ != protowire.BytesType {
			return -1, "wrong wire type"
		}
		v, n := protowire.ConsumeBytes(b)
		if num == fieldKey {
			e.Key = v[:len(v):len(v)]
		} else {
			e.Value = v[:len(v):len(v)]
		}
		return n, "key or value cut short"
	case fieldRevision, fieldWritten, fieldExpiry, fieldKind:
		if typ != protowire.VarintType {
			return -1, "wrong wire type"
		}
		v, n := protowire.ConsumeVarint(b)
		switch num {
		case fieldRevision:
			e.Revision = v
		case fieldWritten:
			e.Written = int64(v)
		case fieldExpiry:
			e.Expiry = int64(v)
		case fieldKind:
			if v > uint64(Delete) { // before the conversion: protobuf would cut it to 32 bits
				return -1, "unknown kind"
			}
			e.Kind = Kind(v)
		}
		return n, "bad varint"
	default:
		return protowire.ConsumeFieldValue(num, typ, b), "unknown field cut short"
	}
}

// incomplete returns what is missing in, or too much for, an entry of which all fields have been read.
func (e *Entry) incomplete() string {
	switch {
	case e.Key == nil:
		return "no key"
	case e.Revision == 0:
		return "no revision"
	case e.Kind == Put && e.Value == nil:
		return "put without a value"
	case e.Kind == Delete && e.Value != nil:
		return "delete with a value"
	}
	return ""
}

// malformed words an error of Decode.
func malformed(wrong string, at int) error {
	return fmt.Errorf("%w: %s at byte %d", ErrEntry, wrong, at)
}

// Key returns the key of the entry that p holds, aliasing p: the same as Decode returns, wherever Decode returns an entry. Elsewhere
// it is false, or some bytes of p: it reads no further than the key.
func Key(p []byte) ([]byte, bool) {
	if len(p) >= 2 && p[0] == tagKey && p[1] < 0x80 {
		if end := 2 + int(p[1]); end <= len(p) {
			return p[2:end:end], true
		}
	}
	start, end := longKey(p)
	return p[start:end:end], end > 0
}

// HasKey tells whether Key returns key.
func HasKey(p, key []byte) bool {
	if n := len(key); n < 0x80 && len(p) >= 2+n && p[0] == tagKey && int(p[1]) == n {
		return string(p[2:2+n]) == string(key)
	}
	k, ok := Key(p)
	return ok && string(k) == string(key)
}

// longKey returns the bounds of a key in p that is longer than 127 bytes or strangely encoded; end 0 if there is none.
func longKey(p []byte) (start, end int) {
	num, typ, n := protowire.ConsumeTag(p)
	if n < 0 || num != fieldKey || typ != protowire.BytesType {
		return 0, 0
	}
	key, m := protowire.ConsumeBytes(p[n:])
	if m < 0 {
		return 0, 0
	}
	return n + m - len(key), n + m
}

// Value returns the value, aliasing p, and the expiry in unix milliseconds (0: never) of the put that p holds: the same as Decode returns,
// wherever Decode returns a put. ok is false for a delete, and for a p in which there is no value to be found; of other malformed bytes
// it may return some.
func Value(p []byte) (value []byte, expiry int64, ok bool) {
	if _, at := usual(p); at > 0 {
		return p[at:len(p):len(p)], 0, true
	}
	return unusualValue(p)
}

// unusualValue is Value for what may have its fields anywhere.
func unusualValue(p []byte) (value []byte, expiry int64, ok bool) {
	at := 0
	if len(p) >= 2 && p[0] == tagKey && p[1] < 0x80 {
		at = 2 + int(p[1])
	} else if _, at = longKey(p); at == 0 {
		return nil, 0, false
	}
	for at < len(p) {
		tag := p[at]
		at++
		switch tag {
		case tagRevision, tagWritten:
			// The last byte of a varint is the first one without the top bit.
			if rest := p[at:]; len(rest) >= 8 {
				if last := ^binary.LittleEndian.Uint64(rest) & 0x8080808080808080; last != 0 {
					at += bits.TrailingZeros64(last)/8 + 1
					continue
				}
			}
			_, n := protowire.ConsumeVarint(p[at:])
			if n < 0 {
				return nil, 0, false
			}
			at += n
		case tagExpiry:
			v, n := protowire.ConsumeVarint(p[at:])
			if n < 0 {
				return nil, 0, false
			}
			at, expiry = at+n, int64(v)
		case tagValue:
			n, m := uint64(0), 1
			if at < len(p) && p[at] < 0x80 {
				n = uint64(p[at])
			} else if n, m = protowire.ConsumeVarint(p[at:]); m < 0 {
				return nil, 0, false
			}
			if at += m; n != uint64(len(p)-at) {
				return nil, 0, false
			}
			return p[at:len(p):len(p)], expiry, true
		default:
			return rareValue(p)
		}
	}
	return nil, 0, false
}

// KeyValue returns what Key and Value return, and whether both have something.
func KeyValue(p []byte) (key, value []byte, expiry int64, ok bool) {
	if end, at := usual(p); at > 0 {
		return p[2:end:end], p[at:len(p):len(p)], 0, true
	}
	if key, ok = Key(p); ok {
		value, expiry, ok = unusualValue(p)
	}
	return key, value, expiry, ok
}

// usual returns where the key ends and the value begins in the put of a key of up to 127 bytes and a value of up to 16 KiB that never
// expires; at is 0 for anything else. It is fast because where the fields lie is not computed but foretold by the processor, as it is the
// same in most entries.
func usual(p []byte) (end, at int) {
	if len(p) < 2+18 || p[0] != tagKey || p[1] >= 0x80 {
		return 0, 0
	}
	end = 2 + int(p[1])
	if len(p)-end < 18 {
		return 0, 0
	}
	rest := (*[18]byte)(p[end:])
	last := 1 // byte of the revision
	for last < 8 && rest[last] >= 0x80 {
		last++
	}
	// From 1978 to 3058 the time takes five bytes.
	if rest[0] != tagRevision || rest[last] >= 0x80 || rest[last+1] != tagWritten ||
		binary.LittleEndian.Uint64(rest[last+2:])&0x8080808080 != 0x80808080 || rest[last+7] != tagValue {
		return 0, 0
	}
	at, n := end+last+9, int(rest[last+8])
	if n >= 0x80 {
		n += int(rest[last+9])<<7 - 0x80
		at++
		if n >= 0x80<<7 {
			return 0, 0
		}
	}
	if n != len(p)-at {
		return 0, 0
	}
	return end, at
}

// rareValue is Value for an entry with a kind, an unknown field, or a tag in more than one byte, which Decode knows to read.
func rareValue(p []byte) (value []byte, expiry int64, ok bool) {
	e, err := Decode(p)
	if err != nil || e.Kind != Put {
		return nil, 0, false
	}
	return e.Value, e.Expiry, true
}
