#!/bin/sh
# A flavor whose VMs get a vTPM 2.0. Run as the cloud's operator.
set -eu
name=${1:-vtpm.small}
openstack flavor create --ram 2048 --disk 10 --vcpus 1 "$name"
# Required: the version. The model tpm-crb is for UEFI guests.
openstack flavor set --property hw:tpm_version=2.0 --property hw:tpm_model=tpm-crb "$name"
