// Package invariants tells, as a constant, whether this build checks its own
// invariants while it runs: with the race detector or with the build tag
// invariants it does. A block under `if invariants.Enabled` disappears from
// every other build.
package invariants
