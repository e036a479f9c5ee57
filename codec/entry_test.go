package codec_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/codec/entrypb"
)

// unhex reads bytes written as hex digits, with blanks between them and comments in parentheses.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	for {
		before, rest, ok := strings.Cut(s, "(")
		if !ok {
			break
		}
		_, after, _ := strings.Cut(rest, ")")
		s = before + after
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatalf("test data: %v", err)
	}
	return b
}

// message is e as the generated code knows it.
func message(e *codec.Entry) *entrypb.Entry {
	m := &entrypb.Entry{
		Key:      append([]byte{}, e.Key...),
		Revision: e.Revision,
		Written:  e.Written,
		Expiry:   e.Expiry,
		Kind:     entrypb.Kind(e.Kind),
	}
	if e.Kind == codec.Put {
		m.Value = append([]byte{}, e.Value...)
	}
	return m
}

// same reports whether two entries are equal, with absent (nil) and empty told apart.
func same(a, b *codec.Entry) bool {
	return bytes.Equal(a.Key, b.Key) && (a.Key == nil) == (b.Key == nil) &&
		a.Revision == b.Revision && a.Written == b.Written && a.Expiry == b.Expiry && a.Kind == b.Kind &&
		bytes.Equal(a.Value, b.Value) && (a.Value == nil) == (b.Value == nil)
}

// wire is entries and their only encoding.
var wire = []struct {
	name  string
	entry codec.Entry
	bytes string
}{
	{"put", codec.Entry{Key: []byte("k"), Revision: 1, Written: 5, Value: []byte("vw")},
		"0a 01 6b (key) 10 01 (revision) 18 05 (written) 7a 02 76 77 (value)"},
	{"expiring put", codec.Entry{Key: []byte("k"), Revision: 300, Written: 5, Expiry: 128, Value: []byte("v")},
		"0a 01 6b (key) 10 ac02 (revision) 18 05 (written) 20 8001 (expiry) 7a 01 76 (value)"},
	{"empty key", codec.Entry{Key: []byte{}, Revision: 1, Value: []byte("v")},
		"0a 00 (key) 10 01 (revision) 7a 01 76 (value)"},
	{"empty value", codec.Entry{Key: []byte("k"), Revision: 1, Value: []byte{}},
		"0a 01 6b (key) 10 01 (revision) 7a 00 (value)"},
	{"delete", codec.Entry{Key: []byte("k"), Revision: 2, Written: 5, Kind: codec.Delete},
		"0a 01 6b (key) 10 02 (revision) 18 05 (written) 28 01 (kind)"},
	{"delete of the empty key", codec.Entry{Key: []byte{}, Revision: 2, Kind: codec.Delete},
		"0a 00 (key) 10 02 (revision) 28 01 (kind)"},
	{"extremes", codec.Entry{Key: []byte("k"), Revision: math.MaxUint64, Written: math.MinInt64, Expiry: math.MaxInt64, Value: []byte{}},
		"0a 01 6b (key) 10 ffffffffffffffffff01 (revision) 18 80808080808080808001 (written) 20 ffffffffffffffff7f (expiry) 7a 00 (value)"},
	{"key of 128 bytes", codec.Entry{Key: bytes.Repeat([]byte{'k'}, 128), Revision: 1, Value: []byte("v")},
		"0a 8001 " + strings.Repeat("6b", 128) + " 10 01 7a 01 76"},
	{"value of 128 bytes", codec.Entry{Key: []byte("k"), Revision: 1, Value: bytes.Repeat([]byte{'v'}, 128)},
		"0a 01 6b 10 01 7a 8001 " + strings.Repeat("76", 128)},
	{"key of 64 KiB", codec.Entry{Key: bytes.Repeat([]byte{'k'}, 65536), Revision: 1, Value: []byte("v")},
		"0a 808004 " + strings.Repeat("6b", 65536) + " 10 01 7a 01 76"},
}

// Goal: an entry has one encoding, and the generated message writes and reads the same one. Method: each entry of the table through Append,
// Size, Decode, Key, Value, proto.Marshal and proto.Unmarshal.
func TestWire(t *testing.T) {
	for _, c := range wire {
		t.Run(c.name, func(t *testing.T) {
			want := unhex(t, c.bytes)
			if got := codec.Append(nil, &c.entry); !bytes.Equal(got, want) {
				t.Errorf("Append = %x, want %x", got, want)
			}
			if got := c.entry.Size(); got != len(want) {
				t.Errorf("Size = %d, want %d", got, len(want))
			}
			got, err := codec.Decode(want)
			if err != nil || !same(&got, &c.entry) {
				t.Errorf("Decode = %+v, %v, want %+v", got, err, c.entry)
			}
			checkShortcuts(t, want, &c.entry)
			marshalled, err := proto.MarshalOptions{Deterministic: true}.Marshal(message(&c.entry))
			if err != nil || !bytes.Equal(marshalled, want) {
				t.Errorf("proto.Marshal = %x, %v, want %x", marshalled, err, want)
			}
			checkMessage(t, want, &c.entry)
		})
	}
}

// checkShortcuts fails the test unless Key and Value find in p what the entry, decoded from p, says.
func checkShortcuts(t *testing.T, p []byte, e *codec.Entry) {
	t.Helper()
	key, ok := codec.Key(p)
	if !ok || key == nil || !bytes.Equal(key, e.Key) {
		t.Errorf("Key(%x) = %q, %v, want %q", p, key, ok, e.Key)
	}
	if cap(key) != len(key) {
		t.Errorf("Key(%x): the capacity goes on beyond the key", p)
	}
	checkHasKey(t, p, e.Key)
	value, expiry, ok := codec.Value(p)
	checkKeyValue(t, p)
	if e.Kind == codec.Delete {
		if ok {
			t.Errorf("Value(%x) = %q of a delete", p, value)
		}
		return
	}
	if !ok || value == nil || !bytes.Equal(value, e.Value) || expiry != e.Expiry {
		t.Errorf("Value(%x) = %q, %d, %v, want %q, %d", p, value, expiry, ok, e.Value, e.Expiry)
	}
	if cap(value) != len(value) {
		t.Errorf("Value(%x): the capacity goes on beyond the value", p)
	}
}

// checkKeyValue fails the test unless KeyValue says of p what Key and Value say.
func checkKeyValue(t *testing.T, p []byte) {
	t.Helper()
	wantKey, there := codec.Key(p)
	wantValue, wantExpiry, isPut := codec.Value(p)
	key, value, expiry, ok := codec.KeyValue(p)
	if ok != (there && isPut) || ok && (!bytes.Equal(key, wantKey) || !bytes.Equal(value, wantValue) || expiry != wantExpiry || cap(key) != len(key) || cap(value) != len(value)) {
		t.Errorf("KeyValue(%x) = %q, %q, %d, %v, want %q, %q, %d, %v", p, key, value, expiry, ok, wantKey, wantValue, wantExpiry, there && isPut)
	}
}

// checkMessage fails the test unless the generated message reads from p what the entry, decoded from p, says.
func checkMessage(t *testing.T, p []byte, e *codec.Entry) {
	t.Helper()
	var m entrypb.Entry
	if err := proto.Unmarshal(p, &m); err != nil {
		t.Errorf("proto.Unmarshal(%x): %v", p, err)
		return
	}
	got := codec.Entry{Key: m.Key, Revision: m.Revision, Written: m.Written, Expiry: m.Expiry, Kind: codec.Kind(m.Kind), Value: m.Value}
	if !same(&got, e) {
		t.Errorf("proto.Unmarshal(%x) = %+v, want %+v", p, got, *e)
	}
}

// strange is bytes that Append never writes and Decode accepts.
var strange = []struct {
	name, bytes string
	entry       codec.Entry
}{
	{"revision in more bytes than needed", "0a 01 6b 10 8100 7a 01 76", codec.Entry{Key: []byte("k"), Revision: 1, Value: []byte("v")}},
	{"key length in more bytes than needed", "0a 8100 6b 10 01 7a 01 76", codec.Entry{Key: []byte("k"), Revision: 1, Value: []byte("v")}},
	{"value length in more bytes than needed", "0a 01 6b 10 01 7a 8100 76", codec.Entry{Key: []byte("k"), Revision: 1, Value: []byte("v")}},
	{"key tag in two bytes", "8a00 01 6b 10 01 7a 01 76", codec.Entry{Key: []byte("k"), Revision: 1, Value: []byte("v")}},
	{"value tag in two bytes", "0a 01 6b 10 01 fa00 01 76", codec.Entry{Key: []byte("k"), Revision: 1, Value: []byte("v")}},
	{"explicit zeros", "0a 01 6b 10 01 18 00 20 00 28 00 7a 00", codec.Entry{Key: []byte("k"), Revision: 1, Value: []byte{}}},
	{"unknown varint 6", "0a 01 6b 10 01 30 05 7a 01 76", codec.Entry{Key: []byte("k"), Revision: 1, Value: []byte("v")}},
	{"unknown fixed64 9", "0a 01 6b 10 01 49 0102030405060708 7a 01 76", codec.Entry{Key: []byte("k"), Revision: 1, Value: []byte("v")}},
	{"unknown bytes 13 after expiry", "0a 01 6b 10 01 20 09 6a 03 010203 7a 01 76", codec.Entry{Key: []byte("k"), Revision: 1, Expiry: 9, Value: []byte("v")}},
	{"unknown fixed32 14", "0a 01 6b 10 01 75 01020304 7a 01 76", codec.Entry{Key: []byte("k"), Revision: 1, Value: []byte("v")}},
	{"unknown group 7", "0a 01 6b 10 01 3b 08 01 3c 7a 01 76", codec.Entry{Key: []byte("k"), Revision: 1, Value: []byte("v")}},
	{"two unknown fields", "0a 01 6b 10 01 30 05 38 06 7a 01 76", codec.Entry{Key: []byte("k"), Revision: 1, Value: []byte("v")}},
	{"unknown field in a delete", "0a 01 6b 10 01 28 01 30 05", codec.Entry{Key: []byte("k"), Revision: 1, Kind: codec.Delete}},
	{"expiring delete", "0a 01 6b 10 01 20 09 28 01", codec.Entry{Key: []byte("k"), Revision: 1, Expiry: 9, Kind: codec.Delete}},
}

// Goal: what protobuf allows and this version does not write is read as protobuf reads it. Method: the table through all readers.
func TestDecodeStrange(t *testing.T) {
	for _, c := range strange {
		t.Run(c.name, func(t *testing.T) {
			p := unhex(t, c.bytes)
			got, err := codec.Decode(p)
			if err != nil || !same(&got, &c.entry) {
				t.Fatalf("Decode = %+v, %v, want %+v", got, err, c.entry)
			}
			checkShortcuts(t, p, &got)
			checkMessage(t, p, &got)
		})
	}
}

// damaged is bytes that Decode refuses, and the reason that it gives.
var damaged = []struct{ name, bytes, reason string }{
	{"empty", "", "no key"},
	{"no key", "10 01 7a 01 76", "first field is not the key"},
	{"unknown field before the key", "30 01 0a 01 6b 10 01 7a 01 76", "first field is not the key"},
	{"no revision", "0a 01 6b 18 01 7a 01 76", "no revision"},
	{"revision zero", "0a 01 6b 10 00 7a 01 76", "no revision"},
	{"put without value", "0a 01 6b 10 01", "put without a value"},
	{"delete with value", "0a 01 6b 10 01 28 01 7a 01 76", "delete with a value"},
	{"delete with empty value", "0a 01 6b 10 01 28 01 7a 00", "delete with a value"},
	{"unknown kind", "0a 01 6b 10 01 28 02 7a 01 76", "unknown kind"},
	{"kind that is 0 in 32 bits", "0a 01 6b 10 01 28 8080808010 7a 01 76", "unknown kind"},
	{"kind that is 1 in 8 bits", "0a 01 6b 10 01 28 8102", "unknown kind"},
	{"key twice", "0a 01 6b 0a 01 6c 10 01 7a 01 76", "do not ascend"},
	{"revision twice", "0a 01 6b 10 01 10 02 7a 01 76", "do not ascend"},
	{"value twice", "0a 01 6b 10 01 7a 01 76 7a 01 76", "do not ascend"},
	{"expiry before written", "0a 01 6b 10 01 20 01 18 01 7a 01 76", "do not ascend"},
	{"known field after the value", "0a 01 6b 10 01 7a 01 76 18 05", "do not ascend"},
	{"unknown field after the value", "0a 01 6b 10 01 7a 01 76 8001 01", "beyond the value"},
	{"field 16 in place of a value", "0a 01 6b 10 01 28 01 8201 01 76", "beyond the value"},
	{"greatest field number", "0a 01 6b 10 01 28 01 f8ffffff0f 01", "beyond the value"},
	{"trailing zero", "0a 01 6b 10 01 7a 01 76 00", "bad tag"},
	{"trailing byte of a tag", "0a 01 6b 10 01 7a 01 76 80", "bad tag"},
	{"field number 0", "0a 01 6b 10 01 02 01 76", "bad tag"},
	{"key as varint", "08 01 10 01 7a 01 76", "wrong wire type"},
	{"revision as fixed64", "0a 01 6b 11 0102030405060708 7a 01 76", "wrong wire type"},
	{"written as bytes", "0a 01 6b 10 01 1a 01 01 7a 01 76", "wrong wire type"},
	{"value as varint", "0a 01 6b 10 01 78 01", "wrong wire type"},
	{"value as group", "0a 01 6b 10 01 7b 7c", "wrong wire type"},
	{"key longer than the payload", "0a 7f 6b 10 01", "cut short"},
	{"key length of 4 GiB", "0a ffffffff0f 6b", "cut short"},
	{"key length of 2^63", "0a 80808080808080808001 6b", "cut short"},
	{"key length of 2^64-1", "0a ffffffffffffffffff01 6b", "cut short"},
	{"key length beyond 64 bits", "0a ffffffffffffffffff7f 6b", "cut short"},
	{"key length without end", "0a 80", "cut short"},
	{"value longer than the payload", "0a 01 6b 10 01 7a 03 76 77", "cut short"},
	{"value length of 2^64-1", "0a 01 6b 10 01 7a ffffffffffffffffff01 76", "cut short"},
	{"value shorter than the payload", "0a 01 6b 10 01 7a 01 76 77", "do not ascend"},
	{"revision beyond 64 bits", "0a 01 6b 10 ffffffffffffffffff02 7a 01 76", "bad varint"},
	{"revision without end", "0a 01 6b 10 ff", "bad varint"},
	{"unknown bytes cut short", "0a 01 6b 10 01 32 05 01", "unknown field cut short"},
	{"unknown group without end", "0a 01 6b 10 01 33 08 01", "unknown field cut short"},
	{"unknown end of group", "0a 01 6b 10 01 34 7a 01 76", "unknown field cut short"},
	{"groups nested without end", "0a 01 6b 10 01 " + strings.Repeat("33", 100_000), "unknown field cut short"},
	{"wire type 6", "0a 01 6b 10 01 36 01 7a 01 76", "unknown field cut short"},
	{"wire type 7", "0a 01 6b 10 01 37 01 7a 01 76", "unknown field cut short"},
}

// Goal: malformed bytes are refused with ErrEntry and the reason, and the shortcuts do not panic on them. Method: a table of damage.
func TestDecodeRefuses(t *testing.T) {
	for _, c := range damaged {
		t.Run(c.name, func(t *testing.T) {
			p := unhex(t, c.bytes)
			e, err := codec.Decode(p)
			if !errors.Is(err, codec.ErrEntry) || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("Decode = %+v, %v, want ErrEntry and %q", e, err, c.reason)
			}
			if !same(&e, &codec.Entry{}) {
				t.Errorf("Decode returned %+v beside its error", e)
			}
			key, _ := codec.Key(p)
			checkHasKey(t, p, key)
			checkKeyValue(t, p)
		})
	}
}

// checkHasKey fails the test unless HasKey says of key, and of some that are nearly it, what Key says.
func checkHasKey(t *testing.T, p, key []byte) {
	t.Helper()
	other := append([]byte{}, key...)
	if len(other) > 0 {
		other[len(other)-1] ^= 1
	}
	for _, k := range [][]byte{key, other, key[:len(key)/2], append(key[:len(key):len(key)], 'k'), make([]byte, len(key)+1), {}} {
		found, ok := codec.Key(p)
		if got, want := codec.HasKey(p, k), ok && bytes.Equal(found, k); got != want {
			t.Errorf("HasKey(%x, %x) = %v, want %v", p, k, got, want)
		}
	}
}

// Goal: the shortcuts refuse what has no key, and what has no value to be found. Method: the cases in which they look at the damage.
func TestShortcutsRefuse(t *testing.T) {
	for _, p := range []string{"", "0a", "0a 01", "0a 80", "0a ffffffffffffffffff01 6b", "10 01 7a 01 76", "08 01", "00", "8a", "ff"} {
		if key, ok := codec.Key(unhex(t, p)); ok {
			t.Errorf("Key(%s) = %x", p, key)
		}
		for _, key := range []string{"", "k", "kk"} {
			if codec.HasKey(unhex(t, p), []byte(key)) {
				t.Errorf("%s has the key %q", p, key)
			}
		}
		if value, _, ok := codec.Value(unhex(t, p)); ok {
			t.Errorf("Value(%s) = %x", p, value)
		}
	}
	for _, p := range []string{"0a 01 6b", "0a 05 6b", "0a 01 6b 10", "0a 01 6b 10 01", "0a 01 6b 10 ff", "0a 01 6b 10 01 7a", "0a 01 6b 10 01 7a 80",
		"0a 01 6b 10 01 7a 02 76", "0a 01 6b 10 01 7a 01 76 77", "0a 01 6b 10 01 7a ffffffffffffffffff01 76", "0a 01 6b 10 01 28 01", "0a 01 6b 10 01 28 01 7a 01 76",
		"0a 01 6b 10 01 30 80", "0a 01 6b 10 01 8001 01"} {
		if value, _, ok := codec.Value(unhex(t, p)); ok {
			t.Errorf("Value(%s) = %x", p, value)
		}
	}
}

// Goal: no entry cut short is an entry. Method: every proper prefix of every short encoding of the tables.
func TestDecodePrefixes(t *testing.T) {
	for _, c := range wire {
		p := unhex(t, c.bytes)
		if len(p) > 1000 {
			continue
		}
		for n := range len(p) {
			if e, err := codec.Decode(p[:n]); !errors.Is(err, codec.ErrEntry) {
				t.Errorf("%s: the first %d of %d bytes decode to %+v, %v", c.name, n, len(p), e, err)
			}
			if key, ok := codec.Key(p[:n]); ok && len(key) > n-2 {
				t.Errorf("%s: the first %d of %d bytes have the key %x", c.name, n, len(p), key)
			}
			if value, _, ok := codec.Value(p[:n]); ok {
				t.Errorf("%s: the first %d of %d bytes have the value %x", c.name, n, len(p), value)
			}
		}
	}
}

// Goal: decoded slices alias the payload, and appending to them does not reach it. Method: change the one and look at the other.
func TestDecodeAliases(t *testing.T) {
	p := codec.Append(nil, &codec.Entry{Key: []byte("key"), Revision: 1, Value: []byte("value")})
	e, err := codec.Decode(p)
	if err != nil {
		t.Fatal(err)
	}
	before := bytes.Clone(p)
	_ = append(e.Key, "xxx"...)
	_ = append(e.Value, "xxx"...)
	if !bytes.Equal(p, before) {
		t.Error("an append to a decoded slice changed the payload")
	}
	p[2], p[len(p)-1] = 'K', 'E'
	if string(e.Key) != "Key" || string(e.Value) != "valuE" {
		t.Errorf("decoded %q and %q are copies", e.Key, e.Value)
	}
}

// Goal: Append writes behind what is there. Method: a prefix, with and without capacity.
func TestAppendExtends(t *testing.T) {
	e := codec.Entry{Key: []byte("k"), Revision: 1, Value: []byte("v")}
	want := "prefix" + string(codec.Append(nil, &e))
	for _, dst := range [][]byte{[]byte("prefix"), append(make([]byte, 0, 100), "prefix"...)} {
		if got := codec.Append(dst, &e); string(got) != want {
			t.Errorf("Append to a capacity of %d = %q, want %q", cap(dst), got, want)
		}
	}
}

// Goal: the hot paths leave the garbage collector alone. Method: counted allocations.
func TestAllocs(t *testing.T) {
	e := codec.Entry{Key: make([]byte, 300), Revision: 1 << 40, Written: 1 << 31, Expiry: 1 << 41, Value: make([]byte, 1000)}
	gone := codec.Entry{Key: e.Key, Revision: 1 << 40, Kind: codec.Delete}
	buf := make([]byte, 0, e.Size())
	put, del := codec.Append(nil, &e), codec.Append(nil, &gone)
	for name, f := range map[string]func(){
		"Size":         func() { e.Size() },
		"Append":       func() { codec.Append(buf, &e) },
		"Decode":       func() { codec.Decode(put) },
		"Decode tomb":  func() { codec.Decode(del) },
		"Key":          func() { codec.Key(put) },
		"HasKey":       func() { codec.HasKey(put, e.Key) },
		"Value":        func() { codec.Value(put) },
		"Value absent": func() { codec.Value(del) },
		"KeyValue":     func() { codec.KeyValue(put) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Goal: an Append that has the capacity uses it, so that it can write into a mapping. Method: the address of the result.
func TestAppendInPlace(t *testing.T) {
	for _, c := range wire {
		buf := make([]byte, c.entry.Size())
		if got := codec.Append(buf[:0:len(buf)], &c.entry); &got[0] != &buf[0] || len(got) != len(buf) {
			t.Errorf("%s: Append left its %d bytes of capacity", c.name, len(buf))
		}
	}
}

// FuzzDecode: whatever Decode accepts, the generated message reads the same, Key and Value agree, and so do both ways through Decode; nothing
// panics.
func FuzzDecode(f *testing.F) {
	for _, c := range wire {
		if b := unhex(f, c.bytes); len(b) < 1000 {
			f.Add(b)
		}
	}
	for _, c := range strange {
		f.Add(unhex(f, c.bytes))
	}
	for _, c := range damaged {
		if len(c.bytes) < 1000 {
			f.Add(unhex(f, c.bytes))
		}
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		key, _ := codec.Key(p)
		checkHasKey(t, p, key)
		checkKeyValue(t, p)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		e, err := codec.Decode(p)
		runtime.ReadMemStats(&after)
		// Nothing but an error is allocated, whatever lengths p claims. The rest is for
		// what else runs.
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<10 {
			t.Errorf("%d bytes allocated for %d", n, len(p))
		}
		slow, slowErr := codec.DecodeSlowly(p)
		if !same(&e, &slow) || (err == nil) != (slowErr == nil) {
			t.Errorf("the short way: %+v, %v, the long way: %+v, %v", e, err, slow, slowErr)
		}
		if err != nil {
			if !errors.Is(err, codec.ErrEntry) {
				t.Errorf("error %v is not ErrEntry", err)
			}
			return
		}
		checkShortcuts(t, p, &e)
		checkMessage(t, p, &e)
		if again, err := codec.Decode(codec.Append(nil, &e)); err != nil || !same(&again, &e) {
			t.Errorf("written again: %+v, %v, want %+v", again, err, e)
		}
	})
}

// FuzzAppend: Append and proto.Marshal write the same bytes, and Decode reads the entry from them.
func FuzzAppend(f *testing.F) {
	for _, c := range wire {
		if len(c.entry.Key) < 1000 {
			f.Add(c.entry.Key, c.entry.Revision, c.entry.Written, c.entry.Expiry, c.entry.Kind == codec.Delete, c.entry.Value)
		}
	}
	f.Fuzz(func(t *testing.T, key []byte, revision uint64, written, expiry int64, del bool, value []byte) {
		e := codec.Entry{Key: append([]byte{}, key...), Revision: max(revision, 1), Written: written, Expiry: expiry, Value: append([]byte{}, value...)}
		if del {
			e.Kind, e.Value = codec.Delete, nil
		}
		p := codec.Append(nil, &e)
		if len(p) != e.Size() {
			t.Errorf("%d bytes, Size = %d", len(p), e.Size())
		}
		m, err := proto.MarshalOptions{Deterministic: true}.Marshal(message(&e))
		if err != nil || !bytes.Equal(m, p) {
			t.Errorf("proto.Marshal = %x, %v, Append = %x", m, err, p)
		}
		got, err := codec.Decode(m)
		if err != nil || !same(&got, &e) {
			t.Errorf("Decode = %+v, %v, want %+v", got, err, e)
		}
		checkShortcuts(t, p, &e)
	})
}

// Goal: KeyValue is right where it takes the short way, and where it just does not. Method: revisions and times of every length, values about
// the lengths at which ways part; each byte of the result changed, and each end cut off.
func TestKeyValue(t *testing.T) {
	for revision := uint64(1); revision != 0; revision <<= 7 {
		for _, written := range []int64{0, 1, 1<<28 - 1, 1 << 28, 1<<35 - 1, 1 << 35, math.MaxInt64} {
			for _, n := range []int{0, 1, 5, 8, 20, 127, 128, 300} {
				e := codec.Entry{Key: []byte("key"), Revision: revision, Written: written, Value: bytes.Repeat([]byte{0xA5}, n)}
				p := codec.Append(nil, &e)
				key, value, expiry, ok := codec.KeyValue(p)
				if !ok || !bytes.Equal(key, e.Key) || !bytes.Equal(value, e.Value) || expiry != 0 {
					t.Errorf("KeyValue of %+v = %q, %x, %d, %v", e, key, value, expiry, ok)
				}
				for i := range min(len(p), 40) {
					checkKeyValue(t, p[:i])
					for _, b := range []byte{0, 1, 0x7f, 0x80, 0xff, p[i] ^ 0x80, p[i] + 1, p[i] - 1} {
						was := p[i]
						p[i] = b
						checkKeyValue(t, p)
						p[i] = was
					}
				}
			}
		}
	}
}
