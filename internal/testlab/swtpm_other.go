//go:build !linux

package testlab

import "syscall"

// endWithParent does nothing where the kernel has no such signal.
func endWithParent() *syscall.SysProcAttr { return nil }
