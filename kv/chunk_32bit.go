//go:build 386 || arm || mips || mipsle

package kv

const chunkBits = 5 // 1 MiB of address space
