//go:build race || invariants

package invariants

// Enabled is true: every assertion is checked as the code runs.
const Enabled = true
