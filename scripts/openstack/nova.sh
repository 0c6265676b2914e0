#!/usr/bin/env bash
# Nova: API, metadata service, conductor, scheduler and one compute node.
set -euo pipefail
. "$(dirname "$0")/env.sh"
conf=$WORK/etc/nova.conf
for name in conductor scheduler compute api; do start "nova-$name" "nova-$name" --config-file "$conf"; done
until_http "http://127.0.0.1:$NOVA/" Nova
for _ in $(seq 120); do
	nova-manage --config-file "$conf" cell_v2 discover_hosts >>"$WORK/log/nova-manage.log" 2>&1 || true
	sqlite3 "$WORK/db/nova_api.db" 'select host from host_mappings' 2>/dev/null | grep -q cmp1 && exit 0
	sleep 0.5
done
echo "openstack: the compute node did not register; see $WORK/log/nova-compute.log" >&2
exit 1
