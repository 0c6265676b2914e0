#!/bin/bash
# dracut module: attests before the root file system is mounted. Copy the folder to
# /usr/lib/dracut/modules.d, and make the image with `dracut --add deepattest`.
#
# It puts the static binary and /etc/deepattest into the image and needs no library.
# The network comes from another module (network-legacy, network-manager or
# systemd-networkd) and the kernel parameters rd.neednet=1 ip=dhcp.
#
# A machine that may not start is halted. Without systemd in the image dracut offers a
# shell instead, unless the parameter rd.shell=0 is there.

check() {
	[ -x /usr/bin/deepattest ] || return 1
	return 255 # only where it is asked for
}

depends() {
	echo base
}

installkernel() {
	hostonly='' instmods -o tpm_tis tpm_crb
}

install() {
	inst_simple /usr/bin/deepattest
	local file
	for file in /etc/deepattest/*; do
		[ -f "$file" ] && inst_simple "$file"
	done
	inst_hook pre-mount 05 "$moddir/deepattest-gate.sh"
}
