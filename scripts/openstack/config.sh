#!/usr/bin/env bash
# Writes the configuration of all services into $WORK/etc.
set -euo pipefail
. "$(dirname "$0")/env.sh"
etc=$WORK/etc
mkdir -p "$etc/placement"
login() { # USER: how a service logs in
	cat <<END
auth_url = http://127.0.0.1:$KEYSTONE/v3
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = $1
password = $SERVICE_PASSWORD
region_name = $REGION
END
}
tokens() { # USER: how a service checks tokens
	echo "[keystone_authtoken]"
	echo "www_authenticate_uri = http://127.0.0.1:$KEYSTONE/v3"
	login "$1" | grep -v region_name
}

cat >"$etc/keystone.conf" <<END
[DEFAULT]
use_stderr = true
[database]
connection = sqlite:///$WORK/db/keystone.db
[token]
provider = fernet
[fernet_tokens]
key_repository = $WORK/fernet
[credential]
key_repository = $WORK/credential
[identity]
password_hash_rounds = 4
[cache]
enabled = false
END
{
	cat <<END
[DEFAULT]
use_stderr = true
[api]
auth_strategy = keystone
[placement_database]
connection = sqlite:///$WORK/db/placement.db
END
	tokens placement
} >"$etc/placement/placement.conf"
{
	cat <<END
[DEFAULT]
use_stderr = true
bind_host = 127.0.0.1
bind_port = $GLANCE
workers = 0
enabled_backends = fs:file
[glance_store]
default_backend = fs
[fs]
filesystem_store_datadir = $WORK/glance
[os_glance_staging_store]
filesystem_store_datadir = $WORK/glance-staging
[os_glance_tasks_store]
filesystem_store_datadir = $WORK/glance-tasks
[database]
connection = sqlite:///$WORK/db/glance.db
[paste_deploy]
flavor = keystone
END
	tokens glance
} >"$etc/glance-api.conf"
{
	cat <<END
[DEFAULT]
use_stderr = true
sql_connection = sqlite:///$WORK/db/barbican.db
host_href = http://127.0.0.1:$BARBICAN
db_auto_create = false
[database]
connection = sqlite:///$WORK/db/barbican.db
[secretstore]
enabled_secretstore_plugins = store_crypto
[crypto]
enabled_crypto_plugins = simple_crypto
[simple_crypto_plugin]
kek = $(head -c 32 /dev/urandom | base64)
[queue]
enable = false
END
	tokens nova
} >"$etc/barbican.conf"
{
	cat <<END
[DEFAULT]
use_stderr = true
host = cmp1
my_ip = 127.0.0.1
state_path = $WORK/nova
instances_path = $WORK/nova/instances
compute_driver = libvirt.LibvirtDriver
transport_url = rabbit://guest:guest@127.0.0.1:$RABBIT/
enabled_apis = osapi_compute,metadata
osapi_compute_listen = 127.0.0.1
osapi_compute_listen_port = $NOVA
osapi_compute_workers = 1
metadata_listen = 127.0.0.1
metadata_listen_port = $METADATA
metadata_workers = 1
report_interval = 10
[api]
auth_strategy = keystone
vendordata_providers = StaticJSON,DynamicJSON
vendordata_jsonfile_path = $etc/vendordata.json
vendordata_dynamic_targets = deepattest@https://127.0.0.1:$HOSTSERVICE/v1/vendordata
vendordata_dynamic_ssl_certfile = $WORK/host/cert.pem
[vendordata_dynamic_auth]
$(login nova)
[api_database]
connection = sqlite:///$WORK/db/nova_api.db
[database]
connection = sqlite:///$WORK/db/nova.db
[glance]
api_servers = http://127.0.0.1:$GLANCE
[placement]
$(login placement)
[neutron]
service_metadata_proxy = true
metadata_proxy_shared_secret = $SECRET
$(login neutron)
[key_manager]
backend = barbican
[barbican]
auth_endpoint = http://127.0.0.1:$KEYSTONE/v3
barbican_endpoint = http://127.0.0.1:$BARBICAN
[libvirt]
virt_type = qemu
cpu_mode = none
images_type = flat
num_pcie_ports = 8
swtpm_enabled = true
swtpm_user = tss
swtpm_group = tss
[oslo_concurrency]
lock_path = $WORK/nova/lock
[conductor]
workers = 1
[scheduler]
workers = 1
[vnc]
enabled = false
[spice]
enabled = false
[cinder]
catalog_info = volumev3::publicURL
END
	tokens nova
} >"$etc/nova.conf"
echo '{"cloud": "deepattest test"}' >"$etc/vendordata.json"
# No systemd and no AppArmor in the harness's namespaces.
cat >"$etc/qemu.conf" <<END
user = "root"
group = "root"
security_driver = "none"
stdio_handler = "file"
swtpm_user = "tss"
swtpm_group = "tss"
cgroup_controllers = [ ]
namespaces = [ ]
END
cat >"$etc/libvirtd.conf" <<END
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:stderr"
END
