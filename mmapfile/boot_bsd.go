//go:build darwin || freebsd

package mmapfile

import "golang.org/x/sys/unix"

// bootID asks for the first of the names that this system knows.
func bootID() []byte {
	for _, name := range []string{"kern.bootsessionuuid", "kern.boottime"} {
		if id, err := unix.SysctlRaw(name); err == nil {
			return id
		}
	}
	return nil
}
