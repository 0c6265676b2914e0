#!/usr/bin/env bash
# Real OpenStack services of this Debian on loopback, and this project's tests
# against them: `make openstack`. Needs root, for packages and namespaces.
#
# Everything runs in mount, process and network namespaces of its own: no file or
# socket of the system's libvirt, swtpm or barbican is touched, no port of the
# machine is used, and all processes end with this script.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
began=$SECONDS
step() { printf 'openstack: %4d s  %s\n' $((SECONDS - began)) "$*"; }

if [ "$(id -u)" -ne 0 ]; then
	echo "openstack: needs root: it installs Debian packages and makes namespaces; run: sudo make openstack" >&2
	exit 2
fi
if ! unshare --mount --pid --net --fork --mount-proc true; then
	echo "openstack: this machine does not let root make mount, process and network namespaces (a container without CAP_SYS_ADMIN?)" >&2
	exit 2
fi
scripts/need.sh
"$here/install.sh"
step "packages are there"

work=$(mktemp -d /tmp/openstack.XXXXXX)
trap 'rm -rf "$work"' EXIT
export WORK=$work
make -s build BIN="$work/deepattest"
CGO_ENABLED=0 go build -trimpath -tags openstack -ldflags="-s -w" -o "$work/init" ./internal/openstack/cloudtest/guest
go test -c -tags openstack -o "$work/cloudtest" ./internal/openstack/cloudtest
"$here/guest.sh" "$work"
step "deepattest, test and guest image are built"

# keep copies what a look afterwards needs into OPENSTACK_KEEP, when that is set.
keep() {
	[ -n "${OPENSTACK_KEEP:-}" ] || return 0
	mkdir -p "$OPENSTACK_KEEP"
	cp "$work"/log/*.log "$work"/{policy,trust}.yaml "$work"/{good,result}.json "$OPENSTACK_KEEP" 2>/dev/null || true
}

# --kill-child: whatever happens to this script, nothing of it stays.
if unshare --mount --propagation private --pid --net --fork --mount-proc --kill-child "$here/inside.sh" $((SECONDS - began)); then
	keep
	step "done"
else
	code=$?
	step "FAILED; the last lines of each log (OPENSTACK_KEEP=FOLDER keeps all):"
	for log in "$work"/log/*.log; do
		echo "--- $(basename "$log")"
		tail -n 15 "$log" | cut -c1-300
	done
	keep
	exit $code
fi
