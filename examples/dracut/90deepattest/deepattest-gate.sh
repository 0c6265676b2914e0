#!/bin/sh
# Runs in the initramfs, before the root file system is mounted.

deepattest_gate() {
	[ -d /sys/kernel/security/tpm0 ] || mount -t securityfs securityfs /sys/kernel/security
	set -a
	DEEPATTEST_WAIT=90s DEEPATTEST_TIMEOUT=150s DEEPATTEST_MODE=gate
	. /etc/deepattest/boot.env
	set +a
	deepattest attest --policy /etc/deepattest/policy.yaml --trust /etc/deepattest/trust.yaml > /run/deepattest.txt
	code=$?
	cat /run/deepattest.txt > /dev/console
	[ $code -eq 0 ] && return
	[ "$DEEPATTEST_MODE" = monitor ] && return
	die "deepattest: exit code $code: the root file system is not mounted"
}

[ -n "$hookdir" ] && type die > /dev/null 2>&1 || . /lib/dracut-lib.sh
deepattest_gate
