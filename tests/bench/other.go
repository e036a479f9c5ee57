//go:build !linux || 386 || arm

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: for 64-bit Linux only: it reads /proc, asks for huge pages and allocates with fallocate")
	os.Exit(1)
}
