package testlab

import "syscall"

// EndWithParent has the kernel end a child when the thread that started it ends,
// so that no process outlives a program that is killed.
func EndWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
