//go:build amd64 || arm64

package device

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// Goal: a cut leaves what was flushed, and of what came later any part, in sectors,
// the last that stays on top; and the device goes on.
// Method: writes of known bytes, cut in each mode many times; each sector must be one
// that was written there, and all that can be must have been.
func TestCut(t *testing.T) {
	d := newDevice(newImage(1<<20), []extent{{8192, 1024}})
	fill := func(off, n int64, b byte) {
		if errno := d.write(bytes.Repeat([]byte{b}, int(n)), off); errno != 0 {
			t.Fatal(errno)
		}
	}
	fill(0, 16384, 1)
	d.flush()
	fill(4096, 2048, 2)
	fill(5120, 2048, 3)
	d.discard(8192, 1024)
	seen := map[string]bool{}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 1500 {
		for _, mode := range modes {
			m := d.power(rng, mode).Image
			var s strings.Builder
			for off := int64(4096); off < 10240; off += sectorSize {
				var sector [sectorSize]byte
				m.read(sector[:], off)
				if sector != [sectorSize]byte(bytes.Repeat(sector[:1], sectorSize)) {
					t.Fatalf("mode %s: a torn sector at %d", mode, off)
				}
				s.WriteByte('0' + sector[0])
			}
			seen[s.String()] = true
			got := s.String()
			for i, may := range []string{"12", "12", "123", "123", "13", "13", "1", "1", "01", "01", "1", "1"} {
				if !strings.Contains(may, got[i:i+1]) {
					t.Fatalf("mode %s: sector %d is %c, may be one of %s", mode, i, got[i], may)
				}
			}
			if got[8] != got[9] {
				t.Fatalf("mode %s: %s: what is whole was torn", mode, got)
			}
			if mode == "none" && got != "111111111111" || mode == "all" && got != "223333110011" {
				t.Fatalf("mode %s: %s", mode, got)
			}
		}
	}
	// Two sectors in two ways each, two in three, two in two, and the whole one.
	if all := 2 * 2 * 3 * 3 * 2 * 2 * 2; len(seen) != all {
		t.Errorf("%d of %d images were seen", len(seen), all)
	}
}

// Goal: the ledger accepts what may be there after a cut, and nothing else.
// Method: what was said, then what the store has.
func TestLedger(t *testing.T) {
	for _, tc := range []struct {
		name, said, has string
		bad             string // part of the error; "": none
	}{
		{"nothing", "", "", ""},
		{"attempted and there", "put 0 1 w0.k1", "w0.k1 1", ""},
		{"attempted and not there", "put 0 1 w0.k1", "", ""},
		{"returned and not there", "put 0 1 w0.k1; done 0 1", "", ""},
		{"durable and there", "put 0 1 w0.k1; kept 0 1", "w0.k1 1", ""},
		{"durable and not there", "put 0 1 w0.k1; kept 0 1", "", "durable was 1"},
		{"an older one than the durable", "put 0 1 w0.k1; done 0 1; put 0 2 w0.k1; kept 0 2", "w0.k1 1", "durable was 2"},
		{"a newer one than the durable", "put 0 1 w0.k1; kept 0 1; put 0 2 w0.k1", "w0.k1 2", ""},
		{"never written", "put 0 1 w0.k1; kept 0 1", "w0.k1 1; w0.k2 7", "no number of its writes"},
		{"of nobody", "", "w9.k1 1", "never written"},
		{"deleted and back", "put 0 1 w0.k1; done 0 1; delete 0 2 w0.k1; kept 0 2", "w0.k1 1", "durable was none"},
		{"a later one without an earlier one", "put 0 1 w0.k1; done 0 1; put 0 2 w0.k2", "w0.k2 2", "no number of its writes"},
		{"half a transaction", "pair 0 1 w0.a w0.b", "w0.a 1", "no number of its writes"},
		{"a later one without an earlier one of another", "put 0 1 w0.k1; done 0 1; put 1 2 w1.k1", "w1.k1 2", "had returned before another began"},
		{"two at once, either", "put 0 1 w0.k1; put 1 2 w1.k1; done 0 1; done 1 2", "w1.k1 2", ""},
		{"synced", "put 0 1 w0.k1; done 0 1; sync x; synced x", "", "durable was 1"},
		{"a sync that began before", "put 0 1 w0.k1; sync x; done 0 1; synced x", "", ""},
		{"a sync under way", "put 0 1 w0.k1; done 0 1; sync x", "", ""},
		{"cleared", "put 0 1 w0.k1; kept 0 1; clear 2; kept 0 2", "", ""},
		{"cleared and back", "put 0 1 w0.k1; kept 0 1; clear 2; kept 0 2", "w0.k1 1", "durable was none"},
		{"half cleared", "put 0 1 w0.k1; kept 0 1; put 1 2 w1.k1; kept 1 2; clear 3", "w0.k1 1", "is missing"},
		{"no space, and not there", "put 0 1 w0.k1; full 0 1; put 0 2 w0.k2; kept 0 2", "w0.k2 2", ""},
		{"no space, and there", "put 0 1 w0.k1; full 0 1", "w0.k1 1", "no number of its writes"},
		{"gone, that was there", "put 0 1 w0.k1; has w0.k1 1; opened", "", "durable was 1"},
		{"back, that was gone", "put 0 1 w0.k1; opened", "w0.k1 1", "no number of its writes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLedger()
			lines := strings.Split(tc.said, "; ")
			for has := range strings.SplitSeq(tc.has, "; ") {
				if has != "" {
					lines = append(lines, "has "+has)
				}
			}
			l.listen(strings.NewReader(strings.TrimSpace(strings.Join(append(lines, "opened"), "\n"))))
			err := l.trouble()
			if (err == nil) != (tc.bad == "") || err != nil && !strings.Contains(err.Error(), tc.bad) {
				t.Errorf("%v, want %q", err, tc.bad)
			}
		})
	}
}
