// Package device holds tests of stores on real file systems over a block device
// of its own: one whose power can be cut, and that can fail. See the tests; there
// is nothing to import.
package device
