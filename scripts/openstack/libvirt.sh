#!/usr/bin/env bash
# libvirtd, in whose folders inside.sh put empty ones.
set -euo pipefail
. "$(dirname "$0")/env.sh"
start libvirtd libvirtd --config "$WORK/etc/libvirtd.conf" --pid-file "$WORK/libvirtd.pid"
# Its first start asks every QEMU binary what it can do.
for _ in $(seq 600); do
	virsh -c qemu:///system version >/dev/null 2>&1 && exit 0
	sleep 0.2
done
echo "openstack: libvirtd does not answer; see $WORK/log/libvirtd.log" >&2
exit 1
