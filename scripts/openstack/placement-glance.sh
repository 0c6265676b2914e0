#!/usr/bin/env bash
# Placement and Glance.
set -euo pipefail
. "$(dirname "$0")/env.sh"
{
	placement-manage --config-file "$WORK/etc/placement/placement.conf" db sync
	wal "$WORK/db/placement.db"
	glance-manage --config-file "$WORK/etc/glance-api.conf" db_sync
	wal "$WORK/db/glance.db"
} >"$WORK/log/placement-glance.log" 2>&1
export OS_PLACEMENT_CONFIG_DIR=$WORK/etc/placement
serve placement "$PLACEMENT" /usr/bin/placement-api
start glance glance-api --config-file "$WORK/etc/glance-api.conf"
until_http "http://127.0.0.1:$PLACEMENT/" Placement
until_http "http://127.0.0.1:$GLANCE/" Glance
