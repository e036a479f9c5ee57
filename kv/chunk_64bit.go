//go:build !(386 || arm || mips || mipsle)

package kv

const chunkBits = 11 // 64 MiB of address space
