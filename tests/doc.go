// Package tests holds the tests that see the store as a user does: through the
// exported API, through the files on disk, and from other processes. It has no
// code of its own but for tests. Flags: -seed replays one seed of the tests that
// draw at random, -scale multiplies their rounds.
package tests
