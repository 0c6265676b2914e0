#!/usr/bin/env bash
# Nova's databases.
set -euo pipefail
. "$(dirname "$0")/env.sh"
manage() { nova-manage --config-file "$WORK/etc/nova.conf" "$@"; }
{
	manage api_db sync
	manage cell_v2 map_cell0 --database_connection "sqlite:///$WORK/db/nova_cell0.db"
	manage db sync
	manage cell_v2 create_cell --name cell1
	for name in nova_api nova nova_cell0; do wal "$WORK/db/$name.db"; done
} >"$WORK/log/nova-manage.log" 2>&1
