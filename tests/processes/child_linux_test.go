package processes

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/mmapkv/mmapkv/kv"
)

// options are those of kv.Options that a child can be told.
type options struct {
	ReadOnly, Shared, VerifyReads bool
	LockTimeout, SyncEvery        time.Duration
	Durability                    kv.Durability
	CompactAt                     float64
	CheckpointBytes               int64
}

func (o options) all() *kv.Options {
	return &kv.Options{
		ReadOnly: o.ReadOnly, Shared: o.Shared, VerifyReads: o.VerifyReads, LockTimeout: o.LockTimeout, SyncEvery: o.SyncEvery,
		Durability: o.Durability, CompactAt: o.CompactAt, CheckpointBytes: o.CheckpointBytes,
	}
}

// plan is what a child is to do, as its parent tells it.
type plan struct {
	Path    string
	Options options
	Number  int // of the child, which no other of the test has
	Seed    uint64
	Diaries string // a folder

	Prefix     string        // of the names of its keys
	Jobs       string        // "read", "write", "clear", "alone"
	Hands      int           // goroutines
	Handles    bool          // each hand has a handle of its own
	Climbs     bool          // it is a follower and a writer by turns
	Operations int           // of a hand at most; 0: any number
	Pause      time.Duration // of a hand after every other operation, on average
	Size       int           // of all its values; 0: they vary
	Fault      string        // planted
}

// Faults that a child can be told to have.
const (
	faultStale = "stale" // some reads return what was seen earlier
	faultLost  = "lost"  // some puts are acknowledged and not made
	faultHalf  = "half"  // transactions lose all but their first key
)

// maxHands bounds the goroutines of a child, so that the number of a client is told
// from that of its process.
const maxHands = 8

func parsePlan(text string) (*plan, error) {
	p := &plan{}
	return p, json.Unmarshal([]byte(text), p)
}

// The parent's words to a child, which ends when they do.
const (
	wordRest = "rest" // finish what you do, and say resting
	wordTell = "tell" // verify, say what you see, and end
)

// errOrphan: the parent has ended before the child.
var errOrphan = errors.New("the parent is gone")

func init() { roles["worker"] = work }

// work is a child that works on the store with some hands.
func work(p *plan) error {
	words := bufio.NewScanner(os.Stdin)
	hands, err := newHands(p)
	if err != nil {
		return err
	}
	fmt.Println("open")
	quit, rested := make(chan struct{}), make(chan error, len(hands))
	for _, h := range hands {
		go func() {
			err := h.live(quit)
			if err != nil {
				fmt.Fprintln(os.Stderr, "FAILED:", err) // the others go on until they are told
			}
			rested <- err
		}()
	}
	if !words.Scan() || words.Text() != wordRest {
		return errOrphan
	}
	close(quit)
	for range hands {
		err = errors.Join(err, <-rested)
	}
	if err != nil {
		return err
	}
	fmt.Println("resting")
	if !words.Scan() || words.Text() != wordTell {
		return errOrphan
	}
	return farewell(hands)
}

// farewell is what the hands of a child do when nobody writes any more: each says what
// it sees.
func farewell(hands []*hand) error {
	for _, h := range hands {
		if err := h.scan(); err != nil {
			return err
		}
		all, err := h.contents()
		if err != nil {
			return err
		}
		text, err := json.Marshal(all)
		if err := errors.Join(err, sound(h.s)); err != nil {
			return err
		}
		fmt.Println("state", string(text))
	}
	for _, h := range hands {
		if err := h.s.Close(); err != nil {
			return err
		}
	}
	return nil
}

// newHands opens the store as the plan says.
func newHands(p *plan) ([]*hand, error) {
	var hands []*hand
	var s *kv.Store
	for i := range p.Hands {
		client := p.Number*maxHands + i
		f, err := os.OpenFile(diaryPath(p.Diaries, client), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		if s == nil || p.Handles {
			if s, err = openPatiently(p); err != nil {
				return nil, err
			}
		}
		own := *p
		hands = append(hands, &hand{p: &own, client: client, s: s, diary: diary{f}, rng: rand.New(rand.NewPCG(p.Seed, uint64(client)))})
	}
	return hands, nil
}

func diaryPath(folder string, client int) string { return fmt.Sprintf("%s/client%d", folder, client) }
