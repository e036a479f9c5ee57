//go:build linux || darwin || freebsd

package mmapfile

import (
	"fmt"
	"math"
	"os"
	"testing"
	"time"
)

// Two words to wait for.
const (
	askOff    = 12
	answerOff = 16
)

func init() {
	// Answers whatever is asked.
	children["wait"] = func(path string) error {
		f, err := Open(path, ReadWrite)
		if err != nil {
			return err
		}
		m := f.Mapping()
		fmt.Println("waits")
		for seen := uint32(0); ; seen++ {
			waitUntil(m, askOff, seen+1)
			m.Word32(answerOff).Store(seen + 1)
			m.Wake(answerOff)
		}
	}
}

// waitUntil waits until the word at off, one less, is want.
func waitUntil(m *Mapping, off int64, want uint32) {
	for m.Word32(off).Load() != want {
		m.Wait(off, want-1, time.Hour)
	}
}

// Goal: who waits in another process, through a mapping of its own, is woken. Method: questions
// and answers; each side's limit is an hour.
func TestWait(t *testing.T) {
	f, path := newTestFile(t, 1)
	_, line := startChild(t, "wait", path)
	if line != "waits" {
		t.Fatal(line)
	}
	m := f.Mapping()
	for i := range uint32(1000) {
		m.Word32(askOff).Store(i + 1)
		m.Wake(askOff)
		waitUntil(m, answerOff, i+1)
	}
}

// Goal: Wait returns at once where the word is another already, after its limit where
// nobody wakes it, and where the page is gone. Method: each of them; that they return is the test.
func TestWaitReturns(t *testing.T) {
	f, path := newTestFile(t, 2)
	m := f.Mapping()
	m.Wait(askOff, 1, time.Hour)
	m.Wait(askOff, 0, time.Millisecond)
	must(t, os.Truncate(path, pageSize))
	err := func() (err error) { // on Linux the kernel looks, elsewhere we
		guard := EnterGuard()
		defer guard.Exit(f, &err)
		m.Wait(pageSize+askOff, 0, time.Millisecond)
		return nil
	}()
	if _, ok := err.(*FaultError); err != nil && !ok {
		t.Error(err)
	}
}

// Goal: Word32 is aligned and bounded. Method: a table of offsets.
func TestWord32(t *testing.T) {
	f, err := Create(newPath(t), 0o600, pageSize+6)
	must(t, err)
	defer f.Close()
	for off, ok := range map[int64]bool{
		0: true, 4: true, pageSize: true, pageSize + 4: false, pageSize + 8: false,
		2: false, -4: false, math.MinInt64: false, math.MaxInt64 &^ 3: false,
	} {
		t.Run(fmt.Sprint(off), func(t *testing.T) {
			defer func() {
				if r := recover(); (r == nil) != ok {
					t.Fatalf("panic %v, want one: %v", r, !ok)
				}
			}()
			f.Mapping().Word32(off).Store(7)
			if got := f.Mapping().Bytes()[off]; got != 7 {
				t.Fatalf("byte under the word is %d", got)
			}
		})
	}
}
