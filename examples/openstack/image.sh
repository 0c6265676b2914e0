#!/bin/sh
# Properties of an image whose VMs are to be attested: image.sh IMAGE. Run as the
# image's owner.
set -eu
image=${1:?usage: image.sh IMAGE}
# Measured boot needs UEFI; the vTPM may be asked for here as well as in the flavor.
openstack image set --property hw_firmware_type=uefi --property hw_machine_type=q35 \
	--property hw_tpm_version=2.0 --property hw_tpm_model=tpm-crb "$image"
# The hash that Glance computed. Compare it with that of your file: it shows what was
# uploaded, and the policy's PCR values show what was booted.
openstack image show "$image" -f value -c os_hash_algo -c os_hash_value
