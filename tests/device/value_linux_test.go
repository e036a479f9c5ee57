//go:build amd64 || arm64

package device

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
)

// valueOf is what write n gives key: it begins with n, and the rest, its length
// too, follows from both, so that a wrong byte shows. Most are small.
func valueOf(key string, n uint64) []byte {
	h := fnv.New64a()
	h.Write([]byte(key))
	rng := rand.New(rand.NewPCG(h.Sum64(), n))
	size := 8 + rng.IntN(1500)
	switch rng.IntN(40) {
	case 0:
		size = rng.IntN(300 << 10)
	case 1, 2, 3:
		size = rng.IntN(20 << 10)
	case 4, 5, 6, 7, 8, 9:
		size = rng.IntN(20)
	}
	v := make([]byte, max(size, 8), size+16)
	for i := 8; i < size; i += 8 {
		v = binary.LittleEndian.AppendUint64(v[:i], rng.Uint64())
	}
	v = v[:max(size, 8)]
	binary.LittleEndian.PutUint64(v, n)
	return v
}

// writeOf checks that value is one of key's, and returns which write it is.
func writeOf(key string, value []byte) (uint64, error) {
	if len(value) < 8 {
		return 0, fmt.Errorf("key %q has %d bytes that nobody wrote: %q", key, len(value), value)
	}
	n := binary.LittleEndian.Uint64(value)
	if want := valueOf(key, n); !bytes.Equal(value, want) {
		return 0, fmt.Errorf("key %q has %d bytes that nobody wrote: %.40q; write %d had %d bytes: %.40q", key, len(value), value, n, len(want), want)
	}
	return n, nil
}
