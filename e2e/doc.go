// Package e2e holds the tests on real boots: machines under QEMU with OVMF or
// SeaBIOS and software TPMs, one of them the hypervisor's host, the other the
// tenant's guest. `make e2e` runs them all, `make e2e-quick` a few.
package e2e
