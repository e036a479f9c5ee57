// Package processes holds tests of one store that several processes write: of what
// they see of each other, and of what is left when some are killed or stopped. See
// the tests; there is nothing to import.
package processes
