package prefetch

import "testing"

// Goal: a hint faults nowhere and changes nothing. Method: no address, and the last
// words of an array.
func TestHints(t *testing.T) {
	words, bytes := [8]uint64{7: 42}, [64]byte{63: 42}
	for range 1000 {
		Read(nil)
		Read(&words[7])
		Behind(nil)
		Behind(&bytes[63])
	}
	if words != [8]uint64{7: 42} || bytes != [64]byte{63: 42} {
		t.Errorf("the memory is %v, %v", words, bytes)
	}
}
