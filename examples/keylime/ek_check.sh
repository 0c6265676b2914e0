#!/bin/sh
# For keylime_tenant in pull mode: in tenant.conf
#
#   [tenant]
#   ek_check_script = /etc/keylime/ek_check.sh
#
# keylime_tenant runs this when it adds an agent, with AGENT_UUID, EK_CERT and EK_TPM in
# the environment. Any exit status but 0 refuses the agent; what is printed is shown.
#
# The trust file names the CA of the cloud's vTPMs. With a result, only a VM whose deep
# attestation is trusted and at most an hour old is added: put the results of your VMs,
# verified on a machine of yours, where this finds them.
set -eu
results=/var/lib/deepattest/results
trust=/etc/deepattest/trust.yaml

set -- --trust "$trust"
if [ -d "$results" ]; then
	set -- "$@" --result "$results/$AGENT_UUID.json" --max-age 1h
fi
exec deepattest keylime ek-check "$@"
