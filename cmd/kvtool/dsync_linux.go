package main

import "syscall"

// dsync makes each write to a file end when the data is on the device.
const dsync = syscall.O_DSYNC
