//go:build amd64 || arm64

package device

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
)

// What a child says on its pipe, a line each, shorter than what a pipe takes as a
// whole. W is a worker, N the number of a write, for ever ascending.
const (
	sayPut    = "put"    // put W N KEY: will put N to KEY
	sayPair   = "pair"   // pair W N KEY KEY: will put N to both, in a transaction
	sayDelete = "delete" // delete W N KEY: will delete it
	sayClear  = "clear"  // clear N: all others wait; will clear the store
	sayDone   = "done"   // done W N: it has returned
	sayKept   = "kept"   // kept W N: it has returned, and is durable; for a clear, W is of no meaning
	sayFull   = "full"   // full W N: it has returned that there is no space: nothing has changed
	saySync   = "sync"   // sync ID: something begins that makes durable all that has returned
	saySynced = "synced" // synced ID: that has returned
	sayHas    = "has"    // has KEY N: what the store has, before the next opened
	sayOpened = "opened" // opened: Open has returned, and what the store has has been said
	sayGone   = "gone"   // gone: there is no store
	sayWrong  = "wrong"  // wrong TEXT
	sayNote   = "note"   // note TEXT: for the log
	sayMark   = "mark"   // mark ID: the parent wants to know when it comes to here
)

// op is one write of a worker.
type op struct {
	N     uint64
	Kind  string   // sayPut, sayPair, sayDelete, sayClear; sayFull: it was none
	Keys  []string `json:",omitempty"`
	Begin int64    // its place among all that was said
	End   int64    // where it had returned; 0: not
}

// account is what is known of one worker.
type account struct {
	Ops  []op // in their order, which is that of the log
	Kept int  // so many of them are durable

	written int // so many a next Open must show, while the machine lives
}

// state is what a store has: the write of each key.
type state map[string]uint64

// apply changes s as o does.
func (s state) apply(o *op) {
	switch o.Kind {
	case sayPut, sayPair:
		for _, k := range o.Keys {
			s[k] = o.N
		}
	case sayDelete:
		delete(s, o.Keys[0])
	case sayClear:
		clear(s)
	}
}

// ledger is what a parent knows of its children's work on one store.
type ledger struct {
	mu       sync.Mutex
	Created  bool // Open has returned
	Place    int64
	Accounts [workers]account

	opened bool // by a child since the machine started

	seen  state                    // of what is being said
	syncs map[string][workers]int  // begun: what had returned
	marks map[string]chan struct{} // to be closed
	wrong []string
	notes []string

	pipeMu sync.Mutex
	pipe   *os.File // guarded by pipeMu: where the child speaks; nil: none lives
	asked  int      // guarded by pipeMu: marks so far
}

func newLedger() *ledger {
	return &ledger{seen: state{}, syncs: map[string][workers]int{}, marks: map[string]chan struct{}{}}
}

// died notes that the child was killed: what has returned since the machine
// started survives that.
func (l *ledger) died() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.opened {
		return
	}
	for w := range l.Accounts {
		l.Accounts[w].written = l.Accounts[w].returned()
	}
}

// clone copies what a power cut does not change.
func (l *ledger) clone() *ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := newLedger()
	c.Created, c.Place = l.Created, l.Place
	for w := range l.Accounts {
		c.Accounts[w] = account{Ops: slices.Clone(l.Accounts[w].Ops), Kept: l.Accounts[w].Kept}
	}
	return c
}

// catchUp returns when all that the child said before it was called is noted.
func (l *ledger) catchUp() {
	l.pipeMu.Lock()
	if l.pipe == nil {
		l.pipeMu.Unlock()
		return
	}
	l.asked++
	id, heard := fmt.Sprint(l.asked), make(chan struct{})
	l.mu.Lock()
	l.marks[id] = heard
	l.mu.Unlock()
	fmt.Fprintf(l.pipe, "%s %s\n", sayMark, id)
	l.pipeMu.Unlock()
	<-heard
}

// listen notes what is said until the pipe ends.
func (l *ledger) listen(r io.Reader) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		l.mu.Lock()
		if err := l.hear(lines.Text()); err != nil {
			l.wrong = append(l.wrong, err.Error())
		}
		l.mu.Unlock()
	}
}

// hear notes a line. The caller holds mu.
func (l *ledger) hear(line string) error {
	l.Place++
	what, rest, _ := strings.Cut(line, " ")
	var w int
	var n uint64
	switch what {
	case sayPut, sayPair, sayDelete:
		words := strings.Fields(rest)
		if _, err := fmt.Sscan(rest, &w, &n); err != nil || w < 0 || w >= workers || len(words) < 3 {
			return fmt.Errorf("%q: %v", line, err)
		}
		a := &l.Accounts[w]
		a.Ops = append(a.Ops, op{N: n, Kind: what, Keys: words[2:], Begin: l.Place})
	case sayClear:
		if _, err := fmt.Sscan(rest, &n); err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		for w := range l.Accounts {
			l.Accounts[w].Ops = append(l.Accounts[w].Ops, op{N: n, Kind: what, Begin: l.Place})
		}
	case sayDone, sayKept, sayFull:
		if _, err := fmt.Sscan(rest, &w, &n); err != nil || w < 0 || w >= workers {
			return fmt.Errorf("%q: %v", line, err)
		}
		for v := range l.Accounts {
			a := &l.Accounts[v]
			last := len(a.Ops) - 1
			if last < 0 || a.Ops[last].N != n || v != w && a.Ops[last].Kind != sayClear {
				continue
			}
			a.Ops[last].End = l.Place
			switch what {
			case sayKept:
				a.Kept = last + 1
			case sayFull:
				a.Ops[last].Kind = sayFull
			}
		}
	case saySync:
		var returned [workers]int
		for w := range l.Accounts {
			returned[w] = l.Accounts[w].returned()
		}
		l.syncs[rest] = returned
	case saySynced:
		for w, n := range l.syncs[rest] {
			l.Accounts[w].Kept = max(l.Accounts[w].Kept, n)
		}
		delete(l.syncs, rest)
	case sayHas:
		var key string
		if _, err := fmt.Sscan(rest, &key, &n); err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		l.seen[key] = n
	case sayOpened:
		seen := l.seen
		l.seen = state{}
		l.Created, l.opened = true, true
		return l.settle(seen)
	case sayGone:
		if l.Created {
			return errors.New("there is no store, and its creation had returned")
		}
	case sayMark:
		close(l.marks[rest])
		delete(l.marks, rest)
	case sayNote:
		l.notes = append(l.notes, rest)
	case sayWrong:
		return errors.New(rest)
	default:
		return fmt.Errorf("it said %q", line)
	}
	return nil
}

// returned is how many writes of a worker have returned.
func (a *account) returned() int {
	n := len(a.Ops)
	if n > 0 && a.Ops[n-1].End == 0 {
		n--
	}
	return n
}

// settle compares what a store has with what was done: it must be what some of the
// first writes of each worker leave, all that are durable among them. What the
// store does not have never was, from now on, and what it has is durable: Open has
// seen to that. The caller holds mu.
func (l *ledger) settle(seen state) error {
	var may [workers][]int // how many writes it may be that the store has
	all := maps.Clone(seen)
	for w := range l.Accounts {
		mine := state{}
		for k, n := range seen {
			if workerOf(k) == w {
				mine[k] = n
				delete(all, k)
			}
		}
		if may[w] = l.Accounts[w].fits(mine); len(may[w]) == 0 {
			return fmt.Errorf("worker %d: %s", w, l.Accounts[w].differs(mine))
		}
	}
	for k := range all {
		return fmt.Errorf("key %q was never written", k)
	}
	// Whatever had returned before a write began that is there, is there too; and a
	// clear is of all.
	for again := true; again; {
		again = false
		from := int64(0)
		for w := range may {
			if n := may[w][0]; n > 0 {
				from = max(from, l.Accounts[w].Ops[n-1].Begin)
			}
		}
		for w := range may {
			ops := l.Accounts[w].Ops
			i := slices.IndexFunc(may[w], func(n int) bool {
				return n == len(ops) || (ops[n].End == 0 || ops[n].End > from) && ops[n].Begin != from
			})
			if i < 0 {
				n := may[w][len(may[w])-1]
				return fmt.Errorf("worker %d: write %d (%v) had returned before another began that is there, and is missing; %s", w, ops[n].N, ops[n], l.tell())
			}
			again = again || i > 0
			may[w] = may[w][i:]
		}
	}
	for w := range may {
		a := &l.Accounts[w]
		a.Kept, a.written = may[w][0], 0
		a.Ops = a.Ops[:a.Kept]
	}
	return nil
}

// fits lists how many writes of a worker leave s, all that are durable among them.
func (a *account) fits(s state) (n []int) {
	now := state{}
	for i := 0; ; i++ {
		if i >= max(a.Kept, a.written) && maps.Equal(now, s) {
			n = append(n, i)
		}
		if i == len(a.Ops) {
			return n
		}
		now.apply(&a.Ops[i])
	}
}

// differs says in what s is not what the durable writes leave.
func (a *account) differs(s state) string {
	kept := state{}
	for i := range a.Kept {
		kept.apply(&a.Ops[i])
	}
	later := map[string][]uint64{}
	for _, o := range a.Ops[a.Kept:] {
		for _, k := range o.Keys {
			later[k] = append(later[k], o.N)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "no number of its writes leaves this; %d are durable, %d are written, of %d:", a.Kept, a.written, len(a.Ops))
	for k, n := range kept {
		if s[k] != n {
			fmt.Fprintf(&b, "\n  %q has write %d, durable was %d, later ones are %d", k, s[k], n, later[k])
		}
	}
	for k, n := range s {
		if _, ok := kept[k]; !ok {
			fmt.Fprintf(&b, "\n  %q has write %d, durable was none, later ones are %d", k, n, later[k])
		}
	}
	return b.String() + "\n" + a.tell()
}

// tell lists the last writes.
func (a *account) tell() string {
	var b strings.Builder
	for i := max(0, a.Kept-3); i < len(a.Ops); i++ {
		if i > a.Kept+20 && i < len(a.Ops)-20 {
			continue
		}
		o := &a.Ops[i]
		how := "returned"
		switch {
		case i < a.Kept:
			how = "durable"
		case o.End == 0:
			how = "under way"
		}
		fmt.Fprintf(&b, "    write %d: %s %s (%s; %d-%d)\n", o.N, o.Kind, strings.Join(o.Keys, " and "), how, o.Begin, o.End)
	}
	return b.String()
}

// tell lists the last writes of all.
func (l *ledger) tell() string {
	var b strings.Builder
	for w := range l.Accounts {
		fmt.Fprintf(&b, "  worker %d, %d writes, %d durable:\n%s", w, len(l.Accounts[w].Ops), l.Accounts[w].Kept, l.Accounts[w].tell())
	}
	return b.String()
}

// next is a number above those of all writes.
func (l *ledger) next() (n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.Accounts {
		for _, o := range l.Accounts[w].Ops {
			n = max(n, o.N)
		}
	}
	return n + 1
}

// trouble is what was heard that is wrong.
func (l *ledger) trouble() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) == 0 {
		return nil
	}
	return errors.New(strings.Join(l.wrong, "\n"))
}
