package mmapfile

import (
	"hash/fnv"
	"sync"
)

// BootID identifies the present boot of this machine: what a process noted
// before it died says something of the page cache only if the machine has not
// been started again since. It is 0 where the system does not tell. The first
// call asks the system.
var BootID = sync.OnceValue(func() uint64 {
	id := bootID()
	if len(id) == 0 {
		return 0
	}
	h := fnv.New64a()
	h.Write(id)
	return h.Sum64()
})
