#!/usr/bin/env bash
# Inside the namespaces of run.sh: services up, tests, and the end of everything.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
before=$1 # seconds that run.sh has taken
. "$here/env.sh"
step() { printf 'openstack: %4d s  %s\n' $((SECONDS + before)) "$*"; }

ip link set lo up
mkdir -p "$WORK"/{log,db,etc,glance,glance-staging,glance-tasks,nova/instances,nova/lock}

# Places that these programs write to and that cannot be configured.
private() { # PATH [OWNER]
	mkdir -p "$1" "$WORK/private$1"
	[ -z "${2:-}" ] || chown "$2" "$WORK/private$1"
	mount --bind "$WORK/private$1" "$1"
}
private /run/libvirt
private /var/lib/libvirt
private /var/log/libvirt
private /var/log/swtpm
private /var/lib/swtpm-localca tss
mkdir -p /var/lib/libvirt/{images,swtpm} && chmod 711 /var/lib/libvirt/swtpm
chmod 711 "$WORK" "$WORK/private"

# libvirtd keeps its domains beside its settings: the harness's begin with none.
private /etc/libvirt
mkdir -p /etc/libvirt/qemu

"$here/config.sh"
cp "$WORK/etc/qemu.conf" /etc/libvirt/qemu.conf
mount --bind "$WORK/etc/barbican.conf" /etc/barbican/barbican.conf

"$here/rabbit.sh" &
rabbit=$!
"$here/libvirt.sh" &
libvirt=$!
"$here/keystone.sh"
step "Keystone answers"
/usr/bin/python3 "$here/seed.py"
step "catalog, tenant, application credential"
"$here/placement-glance.sh" &
storage=$!
"$here/barbican.sh" &
barbican=$!
"$here/nova-db.sh" &
nova=$!
wait $storage $barbican $nova
step "Placement, Glance and Barbican answer"
wait $rabbit $libvirt
step "RabbitMQ and libvirtd answer"
"$here/nova.sh"
step "Nova answers, with a compute node on libvirt"

export SECONDS_BEFORE=$((SECONDS + before))
exec "$WORK/cloudtest" -test.v -test.timeout 10m
