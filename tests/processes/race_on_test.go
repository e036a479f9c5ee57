//go:build linux && race

package processes

const raceDetector = true
