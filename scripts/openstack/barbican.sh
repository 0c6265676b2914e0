#!/usr/bin/env bash
# Barbican, in which Nova keeps the secrets of vTPMs. Its WSGI program reads
# /etc/barbican/barbican.conf only, over which inside.sh put the harness's own.
set -euo pipefail
. "$(dirname "$0")/env.sh"
barbican-manage --config-file "$WORK/etc/barbican.conf" db upgrade >"$WORK/log/barbican-manage.log" 2>&1
wal "$WORK/db/barbican.db"
serve barbican "$BARBICAN" /usr/bin/barbican-wsgi-api "--config-file $WORK/etc/barbican.conf"
until_http "http://127.0.0.1:$BARBICAN/" Barbican
