package mmapfile

// User is a process that has a file open.
type User struct {
	PID  int
	Name string // of its program: 15 bytes at most, of its own choice, any but NUL; empty: not known
	Lock Lock   // the strongest that it holds

	ByteLocks []ByteLock // that it holds alone, where this user may see that
	// Replaced: what it has open, or a part of it, is not the file any more that is
	// at the path, but one that was there, and has been replaced or removed.
	Replaced bool
}

// Lock is what a process may hold on a file as a whole.
type Lock int

const (
	NoLock        Lock = iota
	SharedLock         // see File.TryShare
	ExclusiveLock      // see File.TryLock
)
