#!/usr/bin/env bash
# Keystone with its first administrator.
set -euo pipefail
. "$(dirname "$0")/env.sh"
conf=$WORK/etc/keystone.conf
mkdir -p "$WORK/fernet" "$WORK/credential"
{
	keystone-manage --config-file "$conf" db_sync
	wal "$WORK/db/keystone.db"
	keystone-manage --config-file "$conf" fernet_setup --keystone-user root --keystone-group root
	keystone-manage --config-file "$conf" credential_setup --keystone-user root --keystone-group root
	url=http://127.0.0.1:$KEYSTONE/v3/
	keystone-manage --config-file "$conf" bootstrap --bootstrap-password "$ADMIN_PASSWORD" --bootstrap-region-id "$REGION" \
		--bootstrap-admin-url "$url" --bootstrap-internal-url "$url" --bootstrap-public-url "$url"
} >"$WORK/log/keystone-manage.log" 2>&1
export OS_KEYSTONE_CONFIG_FILES=$conf
serve keystone "$KEYSTONE" /usr/bin/keystone-wsgi-public "--config-file $conf"
until_http "http://127.0.0.1:$KEYSTONE/v3" Keystone
