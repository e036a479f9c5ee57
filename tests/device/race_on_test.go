//go:build linux && race

package device

const raceDetector = true
