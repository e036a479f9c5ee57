package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// instance is an instance of MMKV as a test wants it: the fields of the meta file, and the
// bytes of the data file before they are encrypted.
type instance struct {
	version  uint32
	body     []byte
	key      string // "": it is not encrypted
	keySize  int    // 16 or 32
	expiry   bool
	slack    int    // zeros behind the body
	head     int    // the size that the data file begins with; 0: that of the body
	rewrite  int    // size at the last full rewrite
	vector   string // 16 bytes
	wrongCRC bool
}

// body puts entries one behind the other: keys and values in turn, as they are.
func mmkvBody(entries ...string) []byte {
	b := []byte{0xff, 0xff, 0xff, 0x07} // what MMKV reserves for a size that it does not need
	for _, part := range entries {
		b = append(binary.AppendUvarint(b, uint64(len(part))), part...)
	}
	return b
}

// files returns the data file and the meta file.
func (in instance) files() (data, meta []byte) {
	body := bytes.Clone(in.body)
	vector := []byte(in.vector)
	if in.key != "" {
		key := make([]byte, max(in.keySize, 16))
		copy(key, in.key)
		if in.version < 2 {
			vector = key[:16]
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			panic(err)
		}
		cipher.NewCFBEncrypter(block, vector).XORKeyStream(body, body) //lint:ignore SA1019 what MMKV uses
	}
	head := uint32(len(body))
	if in.head != 0 {
		head = uint32(in.head)
	}
	data = append(binary.LittleEndian.AppendUint32(nil, head), body...)
	data = append(data, make([]byte, in.slack)...)
	sum := crc32.ChecksumIEEE(body)
	if in.wrongCRC {
		sum++
	}
	meta = binary.LittleEndian.AppendUint32(meta, sum)
	meta = binary.LittleEndian.AppendUint32(meta, in.version)
	meta = binary.LittleEndian.AppendUint32(meta, 3)
	meta = append(meta, append(vector, make([]byte, 16)...)[:16]...)
	meta = binary.LittleEndian.AppendUint32(meta, uint32(len(body)))
	meta = binary.LittleEndian.AppendUint32(meta, uint32(in.rewrite))
	meta = binary.LittleEndian.AppendUint32(meta, crc32.ChecksumIEEE(body[:in.rewrite]))
	meta = append(meta, make([]byte, 64)...)
	flags := uint64(0)
	if in.expiry {
		flags = 1
	}
	return data, binary.LittleEndian.AppendUint64(meta, flags)
}

// read parses the files of in.
func (in instance) read(key string) (mmkvData, error) {
	data, meta := in.files()
	m, err := parseMMKVMeta(meta)
	if err != nil {
		return mmkvData{}, err
	}
	return parseMMKV(data, m, []byte(key))
}

const testVector = "0123456789abcdef"

// Goal: the files of each version are read, plain and encrypted, and what holds at the end of
// them is what comes out: later entries, and not removed ones. Method: an encoder of its own,
// which follows the table above parseMMKV's, and encrypts with crypto/cipher.
func TestMMKV(t *testing.T) {
	body := mmkvBody("a", "old", "gone", "x", "b", "\x05hello", "a", "new", "gone", "", "ключ", strings.Repeat("v", 300))
	want := `"b"="\x05hello" "a"="new" "ключ"="` + strings.Repeat("v", 300) + `"`
	for _, test := range []struct {
		name string
		in   instance
		want string
	}{
		{"version 1", instance{version: 1, body: body, slack: 100}, want},
		{"version 3, an old size at the head", instance{version: 3, body: body, head: 7, slack: 100}, want},
		{"version 4", instance{version: 4, body: body}, want},
		{"encrypted, version 1", instance{version: 1, body: body, key: "secret"}, want},
		{"encrypted, version 3", instance{version: 3, body: body, key: "secret", vector: testVector, slack: 9}, want},
		{"encrypted with a long key", instance{version: 3, body: body, key: "0123456789abcdefgh", vector: testVector}, want},
		{"encrypted with AES-256", instance{version: 4, body: body, key: "0123456789abcdefgh", keySize: 32, vector: testVector}, want},
		{"empty", instance{version: 3, slack: 100}, ""},
		{"all removed", instance{version: 3, body: mmkvBody("a", "x", "a", "")}, ""},
		{"deadlines", instance{version: 4, expiry: true, body: mmkvBody("a", "x\x00\x00\x00\x00", "b", "y\x01\x00\x00\x80")}, `"a"="x" "b"="y" until 2147483649`},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, err := test.in.read(test.in.key)
			if err != nil || d.stale {
				t.Fatal(d.stale, err)
			}
			data, _ := test.in.files()
			var got []string
			for _, e := range d.entries {
				line := fmt.Sprintf("%q=%q", e.key, e.value)
				if !e.expires.IsZero() {
					line += fmt.Sprintf(" until %d", e.expires.Unix())
				}
				if test.in.key == "" && !bytes.HasPrefix(data[e.off+1:], e.key) {
					t.Errorf("%q is not at offset %d", e.key, e.off)
				}
				got = append(got, line)
			}
			if s := strings.Join(got, " "); s != test.want {
				t.Errorf("read %s\nwant %s", s, test.want)
			}
		})
	}
}

// Goal: of a file that is damaged behind its last full rewrite that much is read, and said so,
// and files that are no such are refused with what is wrong. Method: a table of damage.
func TestMMKVDamaged(t *testing.T) {
	body := mmkvBody("key", "value", "other", "value")
	d, err := instance{version: 3, body: body, rewrite: len(mmkvBody("key", "value")), wrongCRC: true}.read("")
	if err != nil || !d.stale || len(d.entries) != 1 {
		t.Errorf("since the last rewrite: %d entries, %v, %v", len(d.entries), d.stale, err)
	}
	long := binary.AppendUvarint(mmkvBody("key", "value"), 1<<40)
	for _, test := range []struct {
		name string
		in   instance
		key  string
		why  string
	}{
		{"a wrong CRC", instance{version: 3, body: body, wrongCRC: true}, "", "the CRC of its 26 bytes"},
		{"of version 1", instance{version: 1, body: body, wrongCRC: true}, "", "the CRC of its 26 bytes"},
		{"another key", instance{version: 3, body: body, key: "secret", vector: testVector}, "guess", "another key"},
		{"no key", instance{version: 3, body: body, key: "secret", vector: testVector}, "", "give its key"},
		{"a key too much", instance{version: 3, body: body}, "secret", "not encrypted"},
		{"a key that is longer than the file", instance{version: 3, body: long}, "", "offset 18: a key of 1099511627776 bytes, where 0 are left"},
		{"a value that is longer than the file", instance{version: 3, body: append(mmkvBody("key"), 0x7f, 'x')}, "", "offset 12: a value of 127 bytes"},
		{"a length without an end", instance{version: 3, body: append(mmkvBody("key"), bytes.Repeat([]byte{0xff}, 20)...)}, "", "offset 12: not a length"},
		{"a key without a value", instance{version: 3, body: mmkvBody("key")}, "", "offset 12: not a length"},
		{"a key that is no text", instance{version: 3, body: mmkvBody("\xff", "v")}, "", "no UTF-8"},
		{"no room for the deadline", instance{version: 4, expiry: true, body: mmkvBody("a", "x")}, "", "too short for a deadline"},
		{"a later version", instance{version: 6, body: body}, "", "version 6 of MMKV's files is not known"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if d, err := test.in.read(test.key); err == nil || !strings.Contains(err.Error(), test.why) {
				t.Errorf("%d entries, error %v; want one that says %q", len(d.entries), err, test.why)
			}
		})
	}
	data, meta := instance{version: 3, body: body}.files()
	m, _ := parseMMKVMeta(meta)
	for n := range data {
		if d, err := parseMMKV(data[:n], m, nil); err == nil {
			t.Errorf("of %d bytes of %d there are %d entries", n, len(data), len(d.entries))
		}
	}
	for n := range mmkvLeastMeta {
		if _, err := parseMMKVMeta(meta[:n]); err == nil {
			t.Errorf("a meta file of %d bytes is taken", n)
		}
	}
}

// Goal: no files make the parser panic, or keep more entries than they have bytes for.
// Method: fuzzing of the body with its right CRC, and of the meta file as it is.
func FuzzMMKV(f *testing.F) {
	f.Add(mmkvBody("a", "x", "a", "", "", "b", "y"), []byte{}, "")
	_, meta := instance{version: 4, expiry: true, vector: testVector}.files()
	f.Add(mmkvBody("a", "x\x00\x00\x00\x01"), meta, "secret")
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x0f}, meta, "")
	f.Fuzz(func(t *testing.T, body, meta []byte, key string) {
		for _, in := range []instance{{version: 3, body: body}, {version: 4, body: body, key: key, vector: testVector, expiry: true}} {
			d, err := in.read(in.key)
			if err == nil && 2*len(d.entries) > len(body) {
				t.Errorf("%d bytes are %d entries", len(body), len(d.entries))
			}
			for _, e := range d.entries {
				if err == nil && len(e.key) == 0 {
					t.Error("an empty key")
				}
			}
		}
		if m, err := parseMMKVMeta(meta); err == nil {
			parseMMKV(body, m, []byte(key))
		}
	})
}

// Goal: the length before a text is taken off where it is one. Method: a table.
func TestMMKVString(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, test := range []struct {
		value, text string
		ok          bool
	}{
		{"\x05hello", "hello", true}, {"\x00", "", true}, {"\xac\x02" + long, long, true},
		{"", "", false}, {"\x01", "\x01", false}, {"\xc8\x01", "\xc8\x01", false}, {"\x05hell", "\x05hell", false}, {"\xff", "\xff", false},
	} {
		if text, ok := mmkvString([]byte(test.value)); string(text) != test.text || ok != test.ok {
			t.Errorf("%q is %q, %v", test.value, text, ok)
		}
	}
}

// putMMKV makes a directory os.Args[1] with instances.
func putMMKV() error {
	dir := os.Args[1]
	write := func(name string, in instance) error {
		data, meta := in.files()
		return errors.Join(os.WriteFile(filepath.Join(dir, name), data, 0o600), os.WriteFile(filepath.Join(dir, name+".crc"), meta, 0o600))
	}
	settings := mmkvBody("theme", "\x04dark", "size", "\x0c")
	return errors.Join(
		os.MkdirAll(filepath.Join(dir, "plain"), 0o700),
		os.MkdirAll(filepath.Join(dir, "locked"), 0o700),
		write("plain/settings", instance{version: 3, body: settings}),
		write("plain/users", instance{version: 4, expiry: true, body: mmkvBody("7", "{}\x00\x00\x00\x00", "8", "[]\x01\x00\x00\x00")}),
		write("locked/settings", instance{version: 3, body: settings, key: "secret", vector: testVector}))
}
