// Package libvirt is a VM registry for the host's quote service that libvirt fills:
// the VMs that run on this host now, and what their vTPMs' certificates must say.
//
// libvirt has swtpm_setup make each vTPM with an EK certificate of the host's local
// CA for "NAME:UUID" of the VM (libvirt, qemu_tpm.c; swtpm_setup(8), --vmid). The
// registry does not hold the keys: a guest shows its certificate, and this CA's
// signature on it is the host's word. Whoever has the CA's key can make certificates
// for any VM: docs/trust.md says how to keep it.
package libvirt
