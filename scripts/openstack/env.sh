# Settings that the scripts of this folder share. All addresses are in a network
# namespace of the harness.
export KEYSTONE=5000 GLANCE=9292 PLACEMENT=8778 NOVA=8774 METADATA=8775 BARBICAN=9311 NEUTRON=9696 RABBIT=5672 HOSTSERVICE=8443
export REGION=RegionOne SECRET=metadata-secret SERVICE_PASSWORD=service-password ADMIN_PASSWORD=admin-password
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY
export no_proxy=127.0.0.1,localhost

# start NAME COMMAND...: in the background, with a log
start() {
	local name=$1
	shift
	"$@" >"$WORK/log/$name.log" 2>&1 </dev/null &
}
# until_http URL NAME: waits until something answers there
until_http() {
	local i
	for i in $(seq 600); do
		curl -s -o /dev/null --max-time 2 "$1" && return 0
		sleep 0.2
	done
	echo "openstack: $2 does not answer at $1; see $WORK/log" >&2
	return 1
}
# serve NAME PORT WSGI [ARGUMENTS]: a WSGI program under uwsgi. A connection for each
# request: uwsgi closes idle ones without telling.
serve() {
	start "$1" uwsgi --plugins python3 --http-socket "127.0.0.1:$2" --wsgi-file "$3" --processes 1 --threads 4 --enable-threads --lazy-apps \
		--die-on-term --buffer-size 65535 --add-header 'Connection: close' --thunder-lock ${4:+--pyargv "$4"}
}
# wal FILE: lets readers and a writer of an SQLite database work at once
wal() { sqlite3 "$1" 'PRAGMA journal_mode=WAL' >/dev/null; }
