package processes

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// keyCount is how many keys there are. Keys 2i and 2i+1 are a pair.
const (
	keyCount  = 16
	pairCount = keyCount / 2
)

// sight is what an operation learned of a key.
type sight int

const (
	unseen sight = iota
	is           // its value is that one
	isNot        // its value is another
)

// touch is what an operation saw of one key, and did to it. Values are told apart by
// their number, which no two writes share; 0 stands for absent.
type touch struct {
	Key      int
	See      sight  `json:",omitempty"`
	Seen     uint64 `json:",omitempty"`
	Write    bool   `json:",omitempty"`
	Put      uint64 `json:",omitempty"`
	Revision uint64 `json:",omitempty"` // of what was seen; 0: not known
}

// operation is one call of a client, as the client tells of it: before it, with End
// 0, what it is about to do, and after it what was done.
type operation struct {
	Client  int
	N       int // ascends
	Kind    string
	Begin   int64 // CLOCK_MONOTONIC, which all processes share, in ns
	End     int64 `json:",omitempty"`
	Touches []touch
	Apart   bool   `json:",omitempty"` // each touch is by itself, and together they are not of one moment
	Refused string `json:",omitempty"` // ErrLocked: it has not happened
}

// writes tells whether o would change anything.
func (o *operation) writes() bool {
	for _, t := range o.Touches {
		if t.Write {
			return true
		}
	}
	return false
}

// now is the time that all processes of the machine share, in ns.
func now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

// diary is where one client tells of its operations: a file, so that it outlives the
// client.
type diary struct{ file *os.File }

// tell writes a line with one call, so that a kill leaves all of it or an end without
// a newline.
func (d diary) tell(o *operation) {
	line, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	if _, err := d.file.Write(append(line, '\n')); err != nil {
		panic(err)
	}
}

// readDiary returns the operations of a client, the last of which may be without an
// End: the client was killed in it.
func readDiary(path string) ([]operation, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []operation
	for lines := bufio.NewReader(f); ; {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return all, nil // what has no newline was not said
		}
		if err != nil {
			return nil, err
		}
		var o operation
		if err := json.Unmarshal(line, &o); err != nil {
			return nil, fmt.Errorf("%s: %w: %q", path, err, line)
		}
		if n := len(all); n > 0 && all[n-1].N == o.N {
			all[n-1] = o
		} else {
			all = append(all, o)
		}
	}
}

// state is the value of each key that has one.
type state map[int]uint64

// apply does to s what o did.
func (s state) apply(o *operation) {
	for _, t := range o.Touches {
		switch {
		case !t.Write:
		case t.Put == 0:
			delete(s, t.Key)
		default:
			s[t.Key] = t.Put
		}
	}
}

func keyName(prefix string, k int) []byte { return fmt.Appendf(nil, "%s%02d", prefix, k) }

// valueHead are the bytes of a value before its key: number and length.
const valueHead = 12

// valueOf is the value of key with a number, all bytes of which follow from these.
func valueOf(key []byte, number uint64, size int) []byte {
	size = max(size, valueHead+len(key))
	v := binary.LittleEndian.AppendUint64(make([]byte, 0, size), number)
	v = binary.LittleEndian.AppendUint32(v, uint32(size))
	v = append(v, key...)
	for i := len(v); i < size; i++ {
		v = append(v, byte(i)^byte(i>>8)^byte(number))
	}
	return v
}

// numberOf returns the number of a value, all bytes of which must be those that were
// written to key.
func numberOf(key, value []byte) (uint64, error) {
	if len(value) < valueHead {
		return 0, fmt.Errorf("key %q has %d bytes that nobody wrote: %q", key, len(value), value)
	}
	number := binary.LittleEndian.Uint64(value)
	if number == 0 || !bytes.Equal(value, valueOf(key, number, len(value))) {
		return 0, fmt.Errorf("key %q has %d bytes that nobody wrote: %.60q", key, len(value), value)
	}
	return number, nil
}
