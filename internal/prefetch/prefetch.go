// Package prefetch asks the processor for a cache line ahead of its use. It is a
// hint: it never faults, whatever the address, waits for nothing, and changes
// nothing but time. A load would do as well, if a locked instruction behind it
// did not wait for it: taking a mutex is one.
//
// On processors for which there is no code here it does nothing.
package prefetch
