package mmapfile

// ByteLock is a lock of one byte that lies far behind the end of any file, so that each is a
// lock of its own. It belongs to an open File, and not to a process: two Files exclude each
// other, also in one process, and goroutines that use one File do not. The death of the process
// frees it, in whatever way, and so does Close. It binds only those who ask for it, and is
// independent of TryLock and TryShare. Which byte stands for what is for the callers to agree
// upon.
type ByteLock uint8
