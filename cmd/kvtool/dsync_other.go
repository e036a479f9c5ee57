//go:build !linux

package main

// dsync is 0 where the system has no such flag, or does not go as far as a sync does.
const dsync = 0
