#!/usr/bin/env bash
# Installs the OpenStack services, libvirt and QEMU of this Debian. They are not
# started: the harness runs its own.
set -euo pipefail
packages=(keystone glance-api placement-api nova-api nova-conductor nova-scheduler nova-compute nova-compute-qemu
	barbican-api rabbitmq-server libvirt-daemon-system libvirt-clients qemu-system-x86 ovmf swtpm swtpm-tools
	genisoimage kmod cpio iproute2 sqlite3 curl uwsgi-core uwsgi-plugin-python3 python3-keystoneclient)
missing=()
for p in "${packages[@]}"; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0
echo "openstack: installing ${#missing[@]} packages and what they need with apt-get" >&2

export DEBIAN_FRONTEND=noninteractive
# Questions of the packages' configuration: no databases, no endpoints, no users.
debconf-set-selections <<'END'
keystone keystone/configure_db boolean false
keystone keystone/create-admin-tenant boolean false
keystone keystone/register-endpoint boolean false
glance-common glance/configure_db boolean false
glance-common glance/configure_ksat boolean false
glance-common glance/configure_rabbit boolean false
glance-api glance/register-endpoint boolean false
placement-common placement/configure_db boolean false
placement-common placement/configure_ksat boolean false
placement-api placement/register-endpoint boolean false
nova-common nova/configure_db boolean false
nova-common nova/configure_api_db boolean false
nova-common nova/configure_ksat boolean false
nova-common nova/configure_rabbit boolean false
nova-api nova/register-endpoint boolean false
END
# A policy that is there already stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
	trap 'rm -f $policy' EXIT
fi
log=$(mktemp)
apt=(apt-get -o DPkg::Lock::Timeout=600)
if ! "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
	"${apt[@]}" update >"$log" 2>&1
	"${apt[@]}" install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1 || {
		tail -n 20 "$log" >&2
		exit 1
	}
fi
rm -f "$log"
