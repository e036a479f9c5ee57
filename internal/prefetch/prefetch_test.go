package prefetch

import "testing"

// Goal: a hint faults nowhere and changes nothing. Method: no address, and a word.
func TestRead(t *testing.T) {
	word := uint64(42)
	for _, p := range []*uint64{nil, &word} {
		Read(p)
	}
	if word != 42 {
		t.Errorf("the word is %d", word)
	}
}
