//go:build amd64 || arm64

package device

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/mmapkv/mmapkv/kv"
)

const badValueSize = 40 << 10 // bytes: whole pages lie within each value

// badBlock makes a block fail to be read that lies within the value of key.
func badBlock(t *testing.T, m *machine, key string) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	const block = 4096
	off := m.now.find(pageful(key, badValueSize)[2*block : 3*block])
	if off < 0 {
		t.Fatalf("the device does not have the value of %s", key)
	}
	off += -off & (block - 1)
	m.fault.BadReads = append(m.fault.BadReads, extent{off, block})
}

// Goal: a page that the device cannot read is an error of the read that needs it,
// and of no other; Open over it is refused with a typed error; Salvage gets the
// rest.
// Method: blocks within some values fail to be read, once the kernel has forgotten
// their pages: beneath an open store, and before it is opened.
func TestReadFails(t *testing.T) {
	kind := fileSystemNamed(t, "ext4")
	m := newShelf(t).plug(t, newDevice(kind.format(t), kind.whole))
	if err := m.mount(kind, ""); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for i := range 60 {
		keys = append(keys, fmt.Sprintf("key-%d", i))
	}
	bad := map[string]bool{keys[20]: true, keys[45]: true}
	path := storePath(m.dir)

	r := newRemote(t)
	r.do(request{Do: "open", Path: path, Durability: kv.SyncAlways})
	r.do(request{Do: "put", Keys: keys, Size: badValueSize})
	r.do(request{Do: "drop"})
	for key := range bad {
		badBlock(t, m, key)
	}
	check := func(when string) {
		t.Helper()
		for k, a := range r.do(request{Do: "read", Keys: keys, Size: badValueSize}).Reads {
			switch {
			case !bad[k] && a.Err != "":
				t.Errorf("%s: %s: %s", when, k, a.Err)
			case bad[k] && !(a.is("typed") && a.is("fault")):
				t.Errorf("%s: %s cannot be read, and the error is %q %q", when, k, a.Err, a.Is)
			}
		}
	}
	// What somebody brings into memory between the two, be it the kernel, is read from there: so
	// until the device is asked.
	for tries := 0; ; tries++ {
		asked := 0
		for _, a := range r.do(request{Do: "read", Keys: slices.Collect(maps.Keys(bad)), Size: badValueSize}).Reads {
			if a.Err != "" {
				asked++
			}
		}
		if asked == len(bad) || tries == 100 {
			t.Logf("the device was asked after %d more tries", tries)
			break
		}
		r.do(request{Do: "drop"})
	}
	check("beneath an open store")
	if a := r.ask(request{Do: "verify"}); a.Err == "" {
		t.Error("verify read over it and found nothing")
	}
	r.do(request{Do: "put durable", Keys: []string{"one-more"}, Size: 100})
	r.do(request{Do: "close"})
	r.end()

	remount := func() {
		t.Helper()
		if err := m.unmount(); err != nil {
			t.Fatal(err)
		}
		if err := m.mount(kind, ""); err != nil {
			t.Fatal(err)
		}
		path = storePath(m.dir)
	}
	remount()
	r = newRemote(t)
	if a := r.ask(request{Do: "open", Path: path}); !a.is("typed") || !a.is("fault") {
		t.Errorf("open: %q %q", a.Err, a.Is)
	}
	r.end()

	remount()
	r = newRemote(t)
	a := r.ask(request{Do: "salvage", Path: path})
	if a.Err != "" {
		t.Errorf("salvage: %s", a.Err)
	} else {
		t.Logf("salvage: missing are %v", a.Missing)
		for k, a := range r.do(request{Do: "read", Keys: append(keys, "absent"), Size: badValueSize}).Reads {
			if want := bad[k] || k == "absent"; want != a.is("not found") || !want && a.Err != "" {
				t.Errorf("salvage: %s: %q", k, a.Err)
			}
		}
		if len(a.Missing) != len(bad) {
			t.Errorf("salvage: missing are %v, want %d ranges", a.Missing, len(bad))
		}
	}
	r.end()

	m.setFault(fault{})
	remount()
	r = newRemote(t)
	r.do(request{Do: "open", Path: path})
	clear(bad)
	check("when the device works again")
	r.do(request{Do: "verify"})
	r.do(request{Do: "close"})
	r.end()
}
