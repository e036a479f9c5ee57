//go:build amd64 || arm64

package device

import (
	"testing"

	"github.com/mmapkv/mmapkv/kv"
)

// Goal: what one process could not make durable, another one that shares the store does not
// acknowledge: its next sync fails, or writes what the other could not. Method: the device
// refuses one write, or one flush, under the durable put of a process; another one had the
// store open by then, or opens it after that, and puts durably. Then both are gone, and so is
// what the kernel had in memory.
func TestSharedWriteFails(t *testing.T) {
	for _, kind := range fileSystems {
		for _, f := range []struct {
			name string
			fault
		}{
			{"a write", fault{BadWrite: 1}},
			{"a flush", fault{BadFlush: 1}},
		} {
			for _, when := range []string{"open before", "opened after"} {
				t.Run(kind.name+"/"+f.name+"/"+when, func(t *testing.T) {
					m := newShelf(t).plug(t, newDevice(kind.format(t), kind.whole))
					testSharedWriteFails(t, m, &kind, f.fault, when == "open before")
				})
			}
		}
	}
}

func testSharedWriteFails(t *testing.T, m *machine, kind *fileSystem, f fault, before bool) {
	if err := m.mount(kind, ""); err != nil {
		t.Fatal(err)
	}
	const size = 20_000 // some pages of its own
	kept := []string{"kept"}
	unlucky, other := newRemote(t), newRemote(t)
	shared := request{Do: "open", Path: storePath(m.dir), Durability: kv.SyncManual, Shared: true}
	unlucky.do(shared)
	unlucky.do(request{Do: "put", Keys: []string{"first"}, Size: size})
	unlucky.do(request{Do: "write slack"})
	unlucky.do(request{Do: "put durable", Keys: kept, Size: size})
	if before {
		other.do(shared)
	}
	m.setFault(f)
	if a := unlucky.ask(request{Do: "put durable", Keys: []string{"unlucky"}, Size: size}); !a.is("poisoned") || !a.is("EIO") {
		t.Fatalf("put durable on a device that refuses %+v: %q %q", f, a.Err, a.Is)
	}
	m.setFault(fault{})
	a := reply{}
	if !before {
		a = other.ask(shared)
	}
	if a.Err == "" {
		a = other.ask(request{Do: "put durable", Keys: []string{"other"}, Size: size})
	}
	switch {
	case a.Err == "":
		kept = append(kept, "unlucky", "other") // the log is a prefix
	case !a.is("typed"): // a file system that has lost its journal may be read-only by now
		t.Errorf("the other: %q %q", a.Err, a.Is)
	}
	t.Logf("the other: %q", a.Err)
	unlucky.end()
	other.end()
	if err := m.unmount(); err != nil {
		t.Fatal(err)
	}
	if err := m.mount(kind, ""); err != nil {
		t.Fatal(err)
	}
	r := newRemote(t)
	r.do(request{Do: "open", Path: storePath(m.dir)})
	for k, a := range r.do(request{Do: "read", Keys: kept, Size: size}).Reads {
		if a.Err != "" {
			t.Errorf("%s was durable: %q", k, a.Err)
		}
	}
	r.do(request{Do: "verify"})
	r.do(request{Do: "close"})
	r.end()
}
