package main

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/spf13/cobra"
)

const (
	completeMost = 100                    // keys that are offered
	completeTime = 500 * time.Millisecond // after which none are
)

// completeFlag has the shell complete the values of a flag.
func completeFlag[T ~string](cmd *cobra.Command, name string, values ...T) {
	var names []cobra.Completion
	for _, v := range values {
		names = append(names, string(v))
	}
	if err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the verb has no such flag
	}
}

// completeKeys has the shell complete a store, and after it at most so many of its keys
// (-1: any number), as y takes them. What cannot be done at once, and without an error,
// is not done.
func (t *tool) completeKeys(y *typing, most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		switch {
		case len(args) == 0:
			return nil, cobra.ShellCompDirectiveDefault
		case most >= 0 && len(args) > most:
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found := make(chan []cobra.Completion, 1)
		// Opening a long log, or what is no file, may take its time: it is left to itself,
		// and to the end of the process.
		go func() { found <- keysLike(cmd, args[0], y, typed, time.Now().Add(completeTime)) }()
		select {
		case names := <-found:
			given := func(name cobra.Completion) bool { return slices.Contains(args[1:], name) }
			return slices.DeleteFunc(names, given), cobra.ShellCompDirectiveNoFileComp
		case <-time.After(completeTime):
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
	}
}

// keysLike returns keys of the store at path that, as y has them written, begin with what
// was typed: up to completeMost, or none if they cannot all be looked at until then.
func keysLike(cmd *cobra.Command, path string, y *typing, typed string, until time.Time) []cobra.Completion {
	s, err := kv.Open(path, &kv.Options{ReadOnly: true})
	if err != nil {
		return nil
	}
	defer s.Close()
	if err := y.open(cmd, s); err != nil {
		return nil
	}
	names := &completions{typed: typed}
	err = guarded(func() error {
		it := s.Iter(nil)
		n := 0
		for stored := range it.All() {
			if n++; n%256 == 0 && time.Now().After(until) {
				names.offered = nil
				return nil
			}
			if m, key := y.of(stored); m == y.chosen() {
				names.add(key, &m.keys)
			}
		}
		return it.Err()
	})
	if err != nil {
		return nil
	}
	slices.Sort(names.offered)
	return names.offered
}

// completions are some of the names that begin with what was typed.
type completions struct {
	typed   string
	offered []cobra.Completion
	common  int // bytes that all names begin with, those that are not offered too
}

// add offers a key, if a shell can pass it on and the verb can take it: a text that shows
// as it is, and is no flag.
func (c *completions) add(key []byte, keys *coder) {
	if len(key) > maxCompletion {
		return
	}
	shown := key
	if keys.form == formText {
		var err error
		if shown, _, err = keys.show(key); err != nil || !isPlain(shown) {
			return
		}
	}
	var b strings.Builder
	keys.form.write(&b, shown, rawText)
	name := b.String()
	if len(name) > maxCompletion || !strings.HasPrefix(name, c.typed) || strings.HasPrefix(name, "-") {
		return
	}
	if taken, err := keys.parse("", name); err != nil || !bytes.Equal(taken, key) {
		return
	}
	if len(c.offered) == 0 {
		c.offered, c.common = append(c.offered, name), len(name)
		return
	}
	common := commonPrefix(c.offered[0][:c.common], name)
	switch {
	case len(c.offered) < completeMost:
		c.offered = append(c.offered, name)
	case common < c.common:
		// A shell fills in what all that is offered have in common: let it not be too much.
		c.offered[len(c.offered)-1] = name
	}
	c.common = common
}

// maxCompletion is the length of the longest key that is offered, as it is written.
const maxCompletion = 256

// commonPrefix returns how many bytes a and b begin with in common.
func commonPrefix(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}
