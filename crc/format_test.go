package crc_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/cespare/xxhash/v2"

	"github.com/mmapkv/mmapkv/codec"
	"github.com/mmapkv/mmapkv/codec/entrypb"
	"github.com/mmapkv/mmapkv/crc"
)

// formatText is FORMAT.md.
func formatText(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tables returns the rows of the tables in FORMAT.md whose header cells are the given ones, table by table, each row by cell name.
func tables(t *testing.T, headers string) [][]map[string]string {
	t.Helper()
	names := strings.Split(headers, " ")
	for i := range names {
		names[i] = strings.ReplaceAll(names[i], "_", " ")
	}
	var found [][]map[string]string
	var rows []map[string]string
	in := false
	for line := range strings.Lines(formatText(t) + "\n") {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case !strings.HasPrefix(line, "|"):
			if in {
				found = append(found, rows)
			}
			in, rows = false, nil
		case !in:
			in = strings.Join(cells, "|") == strings.Join(names, "|")
		case strings.HasPrefix(line, "|-"):
		default:
			if len(cells) != len(names) {
				t.Fatalf("%d cells in %q", len(cells), line)
			}
			row := map[string]string{}
			for i, name := range names {
				row[name] = cells[i]
			}
			rows = append(rows, row)
		}
	}
	return found
}

// constants of package crc, by the names that FORMAT.md uses.
var constants = map[string]int64{
	"Version":       int64(crc.Version),
	"HeaderSize":    crc.HeaderSize,
	"TailOff":       crc.TailOff,
	"WrittenOff":    crc.WrittenOff,
	"EventOff":      crc.EventOff,
	"HolderOff":     crc.HolderOff,
	"TurnOff":       crc.TurnOff,
	"BootOff":       crc.BootOff,
	"CopyOff":       crc.CopyOff,
	"MarkOff(0)":    crc.MarkOff(0),
	"MarkOff(1)":    crc.MarkOff(1),
	"MarkSize":      crc.MarkSize,
	"ImmutableSize": crc.ImmutableSize,
	"FrameSize":     crc.FrameSize,
	"Align":         crc.Align,
	"MaxPayload":    crc.MaxPayload,
	"MaxOff":        crc.MaxOff,
	"MaxSegments":   crc.MaxSegments,

	"CheckpointVersion": int64(crc.CheckpointVersion),
	"CloseMarkOff":      crc.CloseMarkOff,
}

// layoutRow is a row of a layout table.
type layoutRow struct {
	off, size int
	field     string
	constant  string
	meaning   string
}

// layouts returns the layout tables of the file header, the mark and the record.
func layouts(t *testing.T) (header, mark, record []layoutRow) {
	t.Helper()
	all := allLayouts(t)
	return all[0], all[1], all[2]
}

// allLayouts returns the layout tables, checked to be without gaps and overlaps, and their Const cells to be true.
func allLayouts(t *testing.T) (all [6][]layoutRow) {
	t.Helper()
	found := tables(t, "Offset Size Field Const Meaning")
	if len(found) != len(all) {
		t.Fatalf("%d layout tables, want those of header, mark and record, and of a checkpoint's head, row and close mark", len(found))
	}
	for i, table := range found {
		next := 0
		for _, cells := range table {
			row := layoutRow{field: cells["Field"], constant: cells["Const"], meaning: cells["Meaning"]}
			if row.field != "payload" && row.field != "padding" {
				var err1, err2 error
				row.off, err1 = strconv.Atoi(cells["Offset"])
				row.size, err2 = strconv.Atoi(cells["Size"])
				if err1 != nil || err2 != nil || row.off != next {
					t.Fatalf("%s: offset %s, size %s, and the row before ends at %d", row.field, cells["Offset"], cells["Size"], next)
				}
				next = row.off + row.size
			}
			if name, value, ok := strings.Cut(row.constant, " = "); ok {
				if want, known := constants[name]; !known || value != fmt.Sprint(want) {
					t.Errorf("%s: constant %q, in the code %d", row.field, row.constant, want)
				}
				if strings.Contains(name, "Off") && value != cells["Offset"] {
					t.Errorf("%s: constant %q at offset %s", row.field, row.constant, cells["Offset"])
				}
			}
			all[i] = append(all[i], row)
		}
	}
	return all
}

// landing fails the test unless two encodings that differ in one field, in each of its bytes, differ in row's bytes and no others but those of the sum, and so does the copy of a header.
func landing(t *testing.T, row layoutRow, a, b []byte, sumOff int) {
	t.Helper()
	for i := range a {
		at := i
		if i >= crc.CopyOff {
			at -= crc.CopyOff
		}
		inField, inSum := at >= row.off && at < row.off+row.size, at >= sumOff && at < sumOff+8
		if differs := a[i] != b[i]; differs != inField && !inSum {
			t.Errorf("%s: byte %d, differs: %v", row.field, i, differs)
			return
		}
	}
}

// headerFields sets the fields of the immutable part, by their names in FORMAT.md, to all ones.
var headerFields = map[string]func(h *crc.Header){
	"version":            func(h *crc.Header) { h.Version = 1<<32 - 1 },
	"compatible":         func(h *crc.Header) { h.Compatible = 1<<32 - 1 },
	"incompatible":       func(h *crc.Header) { h.Incompatible = 1<<32 - 1 },
	"generation":         func(h *crc.Header) { h.Generation = 1<<64 - 1 },
	"salt":               func(h *crc.Header) { h.Salt = 1<<64 - 1 },
	"store id":           func(h *crc.Header) { copy(h.StoreID[:], bytes.Repeat([]byte{0xff}, 16)) },
	"hash seed":          func(h *crc.Header) { h.HashSeed = 1<<64 - 1 },
	"created":            func(h *crc.Header) { h.Created = -1 },
	"generation created": func(h *crc.Header) { h.GenerationCreated = -1 },
	"base revision":      func(h *crc.Header) { h.BaseRevision = 1<<64 - 1 },
	"base end":           func(h *crc.Header) { h.BaseEnd = -1 },
}

// checkMagic checks the row of a magic against what the code writes.
func checkMagic(t *testing.T, row layoutRow, written []byte) {
	t.Helper()
	if want := fmt.Sprintf("% x", written[row.off:row.off+row.size]); row.constant != want || row.size != 8 {
		t.Errorf("magic %s, written %s", row.constant, want)
	}
}

// Goal: the table of the file header is what the code writes. Method: each row by what its field does to an encoded header.
func TestFormatHeader(t *testing.T) {
	rows, _, _ := layouts(t)
	zero := encoded(crc.Header{})
	seen := map[string]bool{}
	for _, row := range rows {
		seen[row.field] = true
		switch row.field {
		case "magic":
			checkMagic(t, row, zero)
		case "header size":
			if got := binary.LittleEndian.Uint32(zero[row.off:]); got != crc.HeaderSize || row.size != 4 {
				t.Errorf("header size %d is written at offset %d", got, row.off)
			}
		case "sum":
			if got, want := binary.LittleEndian.Uint64(zero[row.off:]), xxhash.Sum64(zero[:row.off]); got != want || row.size != 8 {
				t.Errorf("sum %#x at offset %d, want %#x", got, row.off, want)
			}
		case "reserved":
			checkReserved(t, row)
		case "tail", "holder":
			if row.size != 8 || row.off%64 != 0 || row.off < 4096 {
				t.Errorf("%s: %d bytes at %d, want a word in a cache line of its own", row.field, row.size, row.off)
			}
		case "written":
			if row.size != 8 || row.off%8 != 0 || row.off/64 != crc.TailOff/64 {
				t.Errorf("written: %d bytes at %d, want a word in the tail's cache line", row.size, row.off)
			}
		case "turn":
			if row.size != 4 || row.off%64 != 0 {
				t.Errorf("turn: %d bytes at %d, want 4 in a cache line of their own", row.size, row.off)
			}
		case "event":
			if row.size != 4 || row.off%4 != 0 || row.off/64 != crc.TailOff/64 {
				t.Errorf("event: %d bytes at %d, want a word in the tail's cache line", row.size, row.off)
			}
		case "boot":
			if row.size != 8 || row.off%8 != 0 || row.off/512 != crc.HolderOff/512 {
				t.Errorf("boot: %d bytes at %d, want a word in the holder's sector", row.size, row.off)
			}
		case "mark 0", "mark 1":
			if row.size != crc.MarkSize || row.off%512 != 0 {
				t.Errorf("%s: %d bytes at %d, want a mark in a sector of its own", row.field, row.size, row.off)
			}
		case "copy":
			if row.off != crc.CopyOff || row.size != crc.ImmutableSize || !bytes.Equal(zero[row.off:row.off+row.size], zero[:row.size]) {
				t.Errorf("copy: %d bytes at %d, or they are not those at 0", row.size, row.off)
			}
		default:
			set := headerFields[row.field]
			if set == nil {
				t.Errorf("no such field: %s", row.field)
				continue
			}
			var h crc.Header
			set(&h)
			landing(t, row, zero, encoded(h), 504)
		}
	}
	if last := rows[len(rows)-1]; last.off+last.size != crc.HeaderSize {
		t.Errorf("the table ends at %d", last.off+last.size)
	}
	for name := range headerFields {
		if !seen[name] {
			t.Errorf("not in the table: %s", name)
		}
	}
	for _, name := range []string{"magic", "header size", "sum", "tail", "event", "written", "turn", "holder", "boot", "mark 0", "mark 1", "copy"} {
		if !seen[name] {
			t.Errorf("not in the table: %s", name)
		}
	}
}

// checkReserved fails the test unless the first and the last byte of a reserved range are refused or ignored as row says.
func checkReserved(t *testing.T, row layoutRow) {
	t.Helper()
	for _, at := range []int{row.off, row.off + row.size - 1} {
		b := encoded(sampleHeader)
		if b[at] != 0 {
			t.Errorf("reserved byte %d is written %#x", at, b[at])
		}
		b[at] = 1
		_, err := crc.DecodeHeader(resumHeader(b))
		if refused := strings.HasPrefix(row.meaning, "refused"); refused != errors.Is(err, crc.ErrReserved) || !refused && (err != nil || row.meaning != "ignored") {
			t.Errorf("reserved byte %d, %q: %v", at, row.meaning, err)
		}
	}
}

// Goal: the table of the mark is what the code writes. Method: as for the header.
func TestFormatMark(t *testing.T) {
	_, rows, _ := layouts(t)
	marks(t, rows, "sum", crc.MarkSize, crc.EncodeMark,
		map[string]crc.Mark{"offset": {Off: -1}, "revision": {Revision: 1<<64 - 1}, "stamp": {Stamp: -1}})
}

// marks compares the table of a kind of mark with what encode writes: each of fields is a
// mark in which that one is set, and the field called sum ends it.
func marks[T any](t *testing.T, rows []layoutRow, sum string, size int, encode func([]byte, T, uint64), fields map[string]T) {
	t.Helper()
	var none T
	zero := make([]byte, size)
	encode(zero, none, salt)
	for _, row := range rows {
		if row.field == sum {
			want := xxhash.Sum64(binary.LittleEndian.AppendUint64(bytes.Clone(zero[:row.off]), salt))
			if got := binary.LittleEndian.Uint64(zero[row.off:]); got != want || row.off+row.size != size {
				t.Errorf("sum %#x at offset %d, want %#x", got, row.off, want)
			}
			continue
		}
		m, ok := fields[row.field]
		if !ok {
			t.Errorf("no such field: %s", row.field)
		}
		delete(fields, row.field)
		b := make([]byte, size)
		encode(b, m, salt)
		landing(t, row, zero, b, size-8)
	}
	if len(fields) != 0 {
		t.Errorf("not in the table: %v", fields)
	}
}

// checkpointFields sets the fields of a checkpoint's head, by their names in FORMAT.md, to all ones.
var checkpointFields = map[string]func(c *crc.Checkpoint){
	"generation": func(c *crc.Checkpoint) { c.Generation = 1<<64 - 1 },
	"salt":       func(c *crc.Checkpoint) { c.Salt = 1<<64 - 1 },
	"store id":   func(c *crc.Checkpoint) { copy(c.StoreID[:], bytes.Repeat([]byte{0xff}, 16)) },
	"boot":       func(c *crc.Checkpoint) { c.Boot = 1<<64 - 1 },
	"file":       func(c *crc.Checkpoint) { c.File = 1<<64 - 1 },
	"end":        func(c *crc.Checkpoint) { c.End = -1 },
	"revision":   func(c *crc.Checkpoint) { c.Revision = 1<<64 - 1 },
	"tail sum":   func(c *crc.Checkpoint) { c.TailSum = 1<<64 - 1 },
	"stamp":      func(c *crc.Checkpoint) { c.Stamp = -1 },
	"records":    func(c *crc.Checkpoint) { c.Records = -1 },
	"live":       func(c *crc.Checkpoint) { c.Live = -1 },
	"mortal":     func(c *crc.Checkpoint) { c.Mortal = -1 },
	"last":       func(c *crc.Checkpoint) { c.Last = -1 },
}

// rowFields sets the fields of a segment's row likewise.
var rowFields = map[string]func(s *crc.CheckpointSegment){
	"segment sum": func(s *crc.CheckpointSegment) { s.Sum = 1<<64 - 1 },
	"used":        func(s *crc.CheckpointSegment) { s.Used = 1<<16 - 1 },
	"markers":     func(s *crc.CheckpointSegment) { s.Marks = 1<<16 - 1 },
	"depth":       func(s *crc.CheckpointSegment) { s.Depth = 1<<8 - 1 },
}

// Goal: the table of a checkpoint's head is what the code writes. Method: as for the header.
func TestFormatCheckpoint(t *testing.T) {
	rows := allLayouts(t)[3]
	of := func(set func(c *crc.Checkpoint)) []byte {
		c := crc.Checkpoint{SlotCount: 1, Segments: make([]crc.CheckpointSegment, 1)}
		set(&c)
		return crc.EncodeCheckpoint(&c)
	}
	zero := of(func(*crc.Checkpoint) {})
	seen := map[string]bool{}
	for _, row := range rows {
		seen[row.field] = true
		switch row.field {
		case "magic":
			checkMagic(t, row, zero)
		case "version":
			if got := binary.LittleEndian.Uint32(zero[row.off:]); got != crc.CheckpointVersion || row.size != 4 {
				t.Errorf("version %d is written at offset %d", got, row.off)
			}
		case "slots", "segments":
			if got := binary.LittleEndian.Uint32(checkpointFile(sampleCheckpoint)[row.off:]); row.size != 4 || got != map[string]uint32{"slots": 64, "segments": 2}[row.field] {
				t.Errorf("%s: %d at offset %d", row.field, got, row.off)
			}
		case "sum":
			if got, want := binary.LittleEndian.Uint64(zero[row.off:]), xxhash.Sum64(append(bytes.Clone(zero[:row.off]), zero[4096:4112]...)); got != want || row.size != 8 {
				t.Errorf("sum %#x at offset %d, want %#x", got, row.off, want)
			}
		case "close mark":
			if row.size != crc.CloseMarkSize || row.off%512 != 0 {
				t.Errorf("close mark: %d bytes at %d, want a sector of its own", row.size, row.off)
			}
		case "reserved":
			for _, at := range []int{row.off, row.off + row.size - 1} {
				b := checkpointFile(sampleCheckpoint)
				if b[at] != 0 {
					t.Errorf("reserved byte %d is written %#x", at, b[at])
				}
				b[at] = 1
				if _, err := crc.DecodeCheckpoint(resumCheckpoint(b, 2)); err != nil || row.meaning != "ignored" {
					t.Errorf("reserved byte %d, %q: %v", at, row.meaning, err)
				}
			}
		default:
			if set := checkpointFields[row.field]; set == nil {
				t.Errorf("no such field: %s", row.field)
			} else {
				landing(t, row, zero[:512], of(set)[:512], 504)
			}
		}
	}
	if last := rows[len(rows)-1]; last.off+last.size != 4096 {
		t.Errorf("the table ends at %d", last.off+last.size)
	}
	for name := range checkpointFields {
		if !seen[name] {
			t.Errorf("not in the table: %s", name)
		}
	}
	for _, name := range []string{"magic", "version", "slots", "segments", "sum", "close mark"} {
		if !seen[name] {
			t.Errorf("not in the table: %s", name)
		}
	}
}

// Goal: the table of a segment's row is what the code writes. Method: as for the header, in each of two rows.
func TestFormatCheckpointRow(t *testing.T) {
	rows := allLayouts(t)[4]
	for i := range 2 {
		of := func(set func(s *crc.CheckpointSegment)) []byte {
			c := crc.Checkpoint{SlotCount: 1, Segments: make([]crc.CheckpointSegment, 2)}
			set(&c.Segments[i])
			b := crc.EncodeCheckpoint(&c)
			clear(b[504:512])
			return b[:4096+32]
		}
		zero := of(func(*crc.CheckpointSegment) {})
		n := 0
		for _, row := range rows {
			at := 4096 + 16*i + row.off
			if row.field == "reserved" {
				b := checkpointFile(sampleCheckpoint)
				if n := len(bytes.Trim(b[at:at+row.size], "\x00")); n != 0 || row.meaning != "ignored" {
					t.Errorf("reserved bytes %x, %q", b[at:at+row.size], row.meaning)
				}
				b[at+row.size-1] = 1
				if _, err := crc.DecodeCheckpoint(resumCheckpoint(b, 2)); err != nil {
					t.Errorf("reserved byte %d: %v", at, err)
				}
				continue
			}
			n++
			set := rowFields[row.field]
			if set == nil {
				t.Errorf("no such field: %s", row.field)
				continue
			}
			b := of(set)
			for j := range b {
				if in := j >= at && j < at+row.size; in != (b[j] != zero[j]) {
					t.Errorf("%s of row %d: byte %d differs: %v", row.field, i, j, !in)
					break
				}
			}
		}
		if last := rows[len(rows)-1]; n != len(rowFields) || last.off+last.size != 16 {
			t.Errorf("%d fields, and the row ends at %d", n, last.off+last.size)
		}
	}
}

// Goal: the table of the close mark is what the code writes. Method: as for the mark.
func TestFormatCloseMark(t *testing.T) {
	marks(t, allLayouts(t)[5], "mark sum", crc.CloseMarkSize, crc.EncodeCloseMark,
		map[string]crc.CloseMark{"length": {Length: -1}, "modified": {Modified: -1}})
}

// Goal: the table of the record is what the code writes. Method: a record with a known payload and flags, looked up row by row.
func TestFormatRecord(t *testing.T) {
	_, _, rows := layouts(t)
	const n, flags = 21, crc.FlagMore | 0x1234
	log := sealed(flags, payload(n))
	rec := log[crc.HeaderSize:]
	resummed := bytes.Clone(log)
	clear(resummed[crc.HeaderSize:][:8])
	resum(resummed, crc.HeaderSize)
	want := map[string][]byte{
		"sum":     resummed[crc.HeaderSize:][:8],
		"length":  binary.LittleEndian.AppendUint32(nil, n),
		"flags":   binary.LittleEndian.AppendUint32(nil, flags),
		"payload": payload(n),
		"padding": make([]byte, int(crc.RecordSize(n))-crc.FrameSize-n),
	}
	at := 0
	for _, row := range rows {
		b, ok := want[row.field]
		if !ok || row.size != 0 && row.size != len(b) || !bytes.Equal(rec[at:at+len(b)], b) {
			t.Errorf("%s: %x at offset %d, want %x", row.field, rec[at:at+len(b)], at, b)
		}
		delete(want, row.field)
		at += len(b)
	}
	if len(want) != 0 || at != len(rec) {
		t.Errorf("the table ends at %d of %d, without %v", at, len(rec), want)
	}
}

// Goal: the table of record flags is what the code does. Method: each bit in a record with a true sum.
func TestFormatFlags(t *testing.T) {
	found := tables(t, "Bit Flag Kind Meaning")
	if len(found) != 1 {
		t.Fatalf("%d tables of flags", len(found))
	}
	next := 0
	for _, row := range found[0] {
		first, last, ok := strings.Cut(row["Bit"], " to ")
		if !ok {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil || from != next {
			t.Fatalf("bits %q follow bit %d", row["Bit"], next-1)
		}
		next = to + 1
		for bit := from; bit <= to; bit++ {
			log := sealed(1<<bit, payload(8))
			_, err := crc.Verify(log, crc.HeaderSize, salt)
			accepted := row["Kind"] == "compatible" || row["Flag"] != ""
			if accepted != (err == nil) || !accepted && !errors.Is(err, crc.ErrFlags) {
				t.Errorf("bit %d, %s %s: %v", bit, row["Kind"], row["Flag"], err)
			}
			if (row["Flag"] == "FlagMore") != (crc.FlagMore == 1<<bit) {
				t.Errorf("bit %d is %q", bit, row["Flag"])
			}
		}
	}
	if next != 32 {
		t.Errorf("the table ends with bit %d", next-1)
	}
}

// Goal: the table of the payload's fields is that of the message, and the message's that of the code. Method: the descriptor of the generated code;
// that its bytes are codec's is tested there.
func TestFormatPayload(t *testing.T) {
	found := tables(t, "Number Wire_type Field Presence Meaning")
	if len(found) != 1 {
		t.Fatalf("%d tables of fields", len(found))
	}
	desc := (&entrypb.Entry{}).ProtoReflect().Descriptor()
	if desc.FullName() != "mmapkv.Entry" {
		t.Errorf("the message is %s", desc.FullName())
	}
	if got := desc.Fields().Len(); got != len(found[0]) {
		t.Errorf("%d fields in the message, %d in the table", got, len(found[0]))
	}
	for _, row := range found[0] {
		field := desc.Fields().ByName(protoreflect.Name(row["Field"]))
		if field == nil {
			t.Errorf("no such field: %s", row["Field"])
			continue
		}
		wireType := "varint"
		if field.Kind() == protoreflect.BytesKind {
			wireType = "bytes"
		}
		presence := "not 0"
		switch {
		case row["Field"] == "revision", row["Field"] == "key":
			presence = "always"
		case field.HasPresence():
			presence = "PUT only"
		}
		signed := field.Kind() == protoreflect.Int64Kind
		if row["Number"] != fmt.Sprint(field.Number()) || row["Wire type"] != wireType || row["Presence"] != presence ||
			strings.HasPrefix(row["Meaning"], "signed") != signed {
			t.Errorf("%v: in the message: %d, %s, %s, signed %v", row, field.Number(), wireType, presence, signed)
		}
	}
}

// Goal: the limits are those of the code. Method: by name, and the longest entry against the longest payload.
func TestFormatLimits(t *testing.T) {
	found := tables(t, "Limit Const Value")
	if len(found) != 1 {
		t.Fatalf("%d tables of limits", len(found))
	}
	unnamed := map[string]int{}
	for _, row := range found[0] {
		value, err := strconv.ParseInt(row["Value"], 10, 64)
		if err != nil {
			t.Errorf("%s: %v", row["Limit"], err)
		}
		if row["Const"] == "" {
			unnamed[row["Limit"]] = int(value)
		} else if want, ok := constants[row["Const"]]; !ok || want != value {
			t.Errorf("%s: %s is %d, in the code %d", row["Limit"], row["Const"], value, want)
		}
	}
	key, value := unnamed["key, bytes"], unnamed["value, bytes"]
	if key == 0 || value == 0 || len(unnamed) != 2 {
		t.Fatalf("limits without a constant: %v", unnamed)
	}
	longest := (&codec.Entry{Revision: 1<<64 - 1, Written: -1, Expiry: -1}).Size() - 2 + protowire.SizeBytes(key) + protowire.SizeBytes(value)
	if longest > crc.MaxPayload {
		t.Errorf("the longest entry takes %d bytes, the longest payload is %d", longest, crc.MaxPayload)
	}
}

// Goal: the errors that FORMAT.md names are those of the code, each for its rule, in order. Method: the rules of the header by number.
func TestFormatHeaderRules(t *testing.T) {
	var named []string
	for _, m := range regexp.MustCompile(`(?m)^\d\. .*\(`+"`(Err[A-Za-z]+)`"+`\)\.$`).FindAllStringSubmatch(formatText(t), -1) {
		named = append(named, m[1])
	}
	want := []string{"ErrEmpty", "ErrMagic", "ErrShort", "ErrVersion", "ErrIncompatible", "ErrHeaderSum", "ErrReserved", "ErrHeaderField",
		"ErrBounds", "ErrNoRecord", "ErrBounds", "ErrSum", "ErrFlags"}
	if strings.Join(named, " ") != strings.Join(want, " ") {
		t.Errorf("rules name %v, want %v", named, want)
	}
	// From a header in which all rules but the first are broken, mend one rule after the other: the next one's error must appear.
	b := []byte("x")
	mends := []struct {
		mend func()
		want error
	}{
		{func() { b = nil }, crc.ErrEmpty},
		{func() { b = []byte("x") }, crc.ErrMagic},
		{func() { b = encoded(crc.Header{Version: 2, Incompatible: 1})[:511] }, crc.ErrShort},
		{func() { b = encoded(crc.Header{Version: 2, Incompatible: 1}); b[12], b[96] = 1, 1 }, crc.ErrVersion},
		{func() { b[8] = 1 }, crc.ErrIncompatible},
		{func() { b[20] = 0 }, crc.ErrHeaderSum},
		{func() { resumHeader(b) }, crc.ErrReserved},
		{func() { b[96] = 0; resumHeader(b) }, crc.ErrHeaderField},
		{func() { b[12] = 0; resumHeader(b) }, nil},
	}
	for i, m := range mends {
		m.mend()
		if _, err := crc.DecodeHeader(b); !errors.Is(err, m.want) {
			t.Errorf("rule %d: %v, want %v", i+1, err, m.want)
		}
	}
}

// goldenHeader, goldenEntries and goldenMarks are the store that FORMAT.md shows.
var (
	goldenHeader = crc.Header{
		Version:           crc.Version,
		Generation:        1,
		Salt:              0x0123456789abcdef,
		StoreID:           [16]byte{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf},
		HashSeed:          0xfedcba9876543210,
		Created:           1_700_000_000_000_000_000,
		GenerationCreated: 1_700_000_000_000_000_000,
	}
	goldenEntries = []struct {
		codec.Entry
		flags uint32
	}{
		{codec.Entry{Key: []byte("apple"), Revision: 1, Written: 1_700_000_000, Value: []byte("red")}, 0},
		{codec.Entry{Key: []byte("cherry"), Revision: 2, Written: 1_700_000_001, Expiry: 1_700_003_601_000, Value: []byte{}}, crc.FlagMore},
		{codec.Entry{Key: []byte("apple"), Revision: 3, Written: 1_700_000_001, Kind: codec.Delete}, 0},
	}
)

const goldenHolder = 4242

// goldenStore builds the file that FORMAT.md shows, and its marks.
func goldenStore() (file []byte, marks [2]crc.Mark) {
	file = encoded(goldenHeader)
	for i, e := range goldenEntries {
		off, n := len(file), e.Size()
		file = append(file, make([]byte, crc.RecordSize(n))...)
		codec.Append(file[off+crc.FrameSize:off+crc.FrameSize], &e.Entry)
		crc.Seal(file[off:], n, e.flags, goldenHeader.Salt, int64(off))
		if e.flags&crc.FlagMore == 0 {
			slot := min(i, 1)
			marks[slot] = crc.Mark{Off: int64(len(file)), Revision: e.Revision, Stamp: e.Written}
			crc.EncodeMark(file[crc.MarkOff(uint64(slot)):], marks[slot], goldenHeader.Salt)
		}
	}
	binary.LittleEndian.PutUint64(file[crc.TailOff:], uint64(len(file)))
	binary.LittleEndian.PutUint64(file[crc.HolderOff:], goldenHolder)
	return file, marks
}

// dumpLine is a line of the dump: bytes, and the comment's name and value.
type dumpLine struct {
	off         int
	bytes       []byte
	name, value string
}

// dump parses the dump in FORMAT.md.
func dump(t *testing.T) []dumpLine {
	t.Helper()
	_, rest, ok := strings.Cut(formatText(t), "```hexdump\n")
	text, _, ok2 := strings.Cut(rest, "```")
	if !ok || !ok2 {
		t.Fatal("no dump")
	}
	form := regexp.MustCompile(`^([0-9a-f]{8})  ((?:[0-9a-f]{2} )+) +([a-z0-9 ]+?)(?: = (.+))?$`)
	var lines []dumpLine
	next := 0
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		m := form.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("not a line of a dump: %q", line)
		}
		off, err := strconv.ParseUint(m[1], 16, 31)
		if err != nil || int(off) < next {
			t.Fatalf("offset %s after %08x: %v", m[1], next, err)
		}
		b, err := hex.DecodeString(strings.ReplaceAll(m[2], " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		next = int(off) + len(b)
		lines = append(lines, dumpLine{int(off), b, m[3], m[4]})
	}
	return lines
}

// dumpFile returns the file that the dump's lines make.
func dumpFile(lines []dumpLine) []byte {
	last := lines[len(lines)-1]
	file := make([]byte, last.off+len(last.bytes))
	for _, l := range lines {
		copy(file[l.off:], l.bytes)
	}
	return file
}

// Goal: the dump is the file that the code writes. Method: build it again, compare byte for byte.
func TestFormatDumpWritten(t *testing.T) {
	want, _ := goldenStore()
	got := dumpFile(dump(t))
	if len(got) != len(want) {
		t.Errorf("the dump has %d bytes, the store %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Errorf("byte %08x is %02x in the dump, %02x in the store", i, got[i], want[i])
		}
	}
}

// Goal: the dump is a file that the code reads. Method: header, marks, tail and records out of the dump's own bytes.
func TestFormatDumpRead(t *testing.T) {
	file := dumpFile(dump(t))
	_, marks := goldenStore()
	h, err := crc.DecodeHeader(file)
	if err != nil || h != goldenHeader {
		t.Fatalf("header %+v, %v", h, err)
	}
	if got := crc.DecodeMark(file, &h); got != marks[1] {
		t.Errorf("mark %+v, want %+v", got, marks[1])
	}
	if tail := binary.LittleEndian.Uint64(file[crc.TailOff:]); tail != uint64(len(file)) {
		t.Errorf("tail %d of %d", tail, len(file))
	}
	off := int64(crc.HeaderSize)
	for i, want := range goldenEntries {
		rec, err := crc.Verify(file, off, h.Salt)
		if err != nil || rec.Flags != want.flags {
			t.Fatalf("record %d at %d: flags %#x, %v", i, off, rec.Flags, err)
		}
		e, err := codec.Decode(rec.Payload)
		if err != nil || !reflect.DeepEqual(e, want.Entry) {
			t.Errorf("entry %d: %+v, %v, want %+v", i, e, err, want.Entry)
		}
		if off += rec.Size; want.flags&crc.FlagMore == 0 && off != marks[min(i, 1)].Off {
			t.Errorf("record %d ends at %d", i, off)
		}
	}
	if off != int64(len(file)) {
		t.Errorf("the records end at %d of %d", off, len(file))
	}
}

// Goal: the dump's comments are true. Method: each name is that of the field which the tables have at the line's place, each value is that of the line's bytes.
func TestFormatDumpComments(t *testing.T) {
	header, mark, record := layouts(t)
	lines := dump(t)
	file := dumpFile(lines)
	off := crc.HeaderSize // of the record in which a line lies
	for _, l := range lines {
		if l.off >= crc.HeaderSize {
			if size := recordEnd(t, file, off) - off; l.off-off >= size {
				off += size
			}
			if at := l.off - off; at < crc.FrameSize {
				checkNumber(t, l, rowAt(record, at))
			} else if l.name == "padding" {
				if len(bytes.Trim(l.bytes, "\x00")) != 0 || l.off+len(l.bytes) != recordEnd(t, file, off) {
					t.Errorf("%08x: not the padding", l.off)
				}
			} else {
				checkField(t, l)
			}
			continue
		}
		row := rowAt(header, l.off)
		if row.field == "copy" {
			row = rowAt(header, l.off-row.off)
			row.field = "copy " + row.field
		} else if strings.HasPrefix(row.field, "mark") {
			inner := rowAt(mark, l.off-row.off)
			inner.field = row.field + " " + inner.field
			row = inner
		}
		checkNumber(t, l, row)
	}
}

// recordEnd returns the end of the record at off.
func recordEnd(t *testing.T, file []byte, off int) int {
	t.Helper()
	rec, err := crc.Read(file, int64(off))
	if err != nil {
		t.Fatalf("record at %d: %v", off, err)
	}
	return off + int(rec.Size)
}

// rowAt returns the row that has at within it.
func rowAt(rows []layoutRow, at int) layoutRow {
	for _, row := range rows {
		if at >= row.off && at < row.off+row.size {
			return row
		}
	}
	return layoutRow{}
}

// checkNumber fails the test unless l is the field of row, whole, and its bytes the number, if any, of the comment.
func checkNumber(t *testing.T, l dumpLine, row layoutRow) {
	t.Helper()
	if l.name != row.field || len(l.bytes) != row.size {
		t.Errorf("%08x: %d bytes of %q, in the tables %d of %q", l.off, len(l.bytes), l.name, row.size, row.field)
	}
	if l.value == "" {
		return
	}
	var b [8]byte
	copy(b[:], l.bytes)
	if want, err := strconv.ParseUint(l.value, 0, 64); err != nil || want != binary.LittleEndian.Uint64(b[:]) || len(l.bytes) > 8 {
		t.Errorf("%08x: %s = %s, and the bytes are %x", l.off, l.name, l.value, l.bytes)
	}
}

// checkField fails the test unless l is one protobuf field, with the name and the value of the comment.
func checkField(t *testing.T, l dumpLine) {
	t.Helper()
	num, typ, n := protowire.ConsumeTag(l.bytes)
	field := (&entrypb.Entry{}).ProtoReflect().Descriptor().Fields().ByNumber(num)
	if n < 0 || field == nil || string(field.Name()) != l.name {
		t.Errorf("%08x: field %d is called %q", l.off, num, l.name)
		return
	}
	var got string
	var m int
	if typ == protowire.BytesType {
		var b []byte
		b, m = protowire.ConsumeBytes(l.bytes[n:])
		got = strconv.Quote(string(b))
	} else {
		var v uint64
		v, m = protowire.ConsumeVarint(l.bytes[n:])
		got = fmt.Sprint(v)
	}
	if got != l.value || n+m != len(l.bytes) {
		t.Errorf("%08x: %s = %s, and the bytes are %x", l.off, l.name, l.value, l.bytes)
	}
}
