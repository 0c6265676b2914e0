//go:build !linux

package testlab

import "syscall"

// EndWithParent does nothing where the kernel has no such signal.
func EndWithParent() *syscall.SysProcAttr { return nil }
