// Package vm boots real machines for tests: QEMU with OVMF or SeaBIOS, a software
// TPM, a Debian kernel and an initial file system that is made here. Firmware,
// boot loader and kernel measure as they do on hardware; nothing in between is
// simulated but the processor.
//
// Guests run under TCG, QEMU's own translator. A /dev/kvm that opens is no proof
// that a guest boots with it, so KVM is used only after Probe has booted one.
//
// A machine never outlives the program that started it, and only processes that
// were started here are ended, by their handle.
package vm
