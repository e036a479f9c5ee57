//go:build race && (linux || darwin || freebsd)

package mmapfile

// raceDetector tells that the race detector's own code touches what atomics do.
const raceDetector = true
