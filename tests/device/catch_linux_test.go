//go:build amd64 || arm64

package device

import "testing"

// Goal: TestPowerCutDevice would notice if what is durable were lost.
// Method: devices that lie about their flushes. A lie may cost the file system its
// life: such an image says nothing of the store, and is passed over.
func TestDeviceCatches(t *testing.T) {
	for _, tc := range []struct {
		name    string
		fs      string
		forgets int
		within  int // cuts
	}{
		{"flushes do nothing", "ext4", 1, 60},
		{"flushes do nothing", "xfs", 1, 60},
		{"flushes leave out some writes", "ext4", 3, 200},
	} {
		t.Run(tc.name+" on "+tc.fs, func(t *testing.T) {
			r := newTrial(t, fileSystemNamed(t, tc.fs), *seedFlag)
			r.forgets = tc.forgets
			f := r.cutAtLeast(tc.within)
			if f == nil {
				t.Fatalf("nothing was noticed, %d images did not mount: %v", r.unmountable, r)
			}
			if f.picture == nil {
				t.Fatal(f.error)
			}
			t.Logf("noticed at cut %d, %d images did not mount: %.400v", r.cuts, r.unmountable, f.error)
		})
	}
}
