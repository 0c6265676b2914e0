package testlab

import "syscall"

// endWithParent has the kernel end a child when the thread that started it ends,
// so that no process outlives a program that is killed.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
