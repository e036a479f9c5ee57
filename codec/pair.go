package codec

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// Pair has the names of the codecs of a map's keys and values, as they are kept with it: a protobuf
// message with two strings.
type Pair struct{ Keys, Values string }

const (
	pairKeys   protowire.Number = 1
	pairValues protowire.Number = 2
)

// Append appends the bytes of p to dst.
func (p Pair) Append(dst []byte) []byte {
	dst = protowire.AppendTag(dst, pairKeys, protowire.BytesType)
	dst = protowire.AppendString(dst, p.Keys)
	dst = protowire.AppendTag(dst, pairValues, protowire.BytesType)
	return protowire.AppendString(dst, p.Values)
}

// DecodePair reads what Append wrote, and fields of later versions, which it skips. What it
// returns aliases nothing. What is no such message is an error that matches ErrValue.
func DecodePair(b []byte) (p Pair, err error) {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return Pair{}, fmt.Errorf("%w: names of codecs: %w", ErrValue, protowire.ParseError(n))
		}
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		if size < 0 {
			return Pair{}, fmt.Errorf("%w: names of codecs: %w", ErrValue, protowire.ParseError(size))
		}
		if kind == protowire.BytesType {
			switch name, _ := protowire.ConsumeString(b[n:]); number {
			case pairKeys:
				p.Keys = name
			case pairValues:
				p.Values = name
			}
		}
		b = b[n+size:]
	}
	return p, nil
}

func (p Pair) String() string {
	return "keys of " + shown(p.Keys) + " and values of " + shown(p.Values)
}

// shown is a name from a file, of anybody's bytes, in an error: quoted if they are not plain.
func shown(name string) string {
	if quoted := strconv.Quote(name); quoted != `"`+name+`"` {
		return quoted
	}
	return name
}
