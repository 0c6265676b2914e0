#!/usr/bin/env bash
# Installs what the tests and the demonstration need and this machine lacks: the
# software TPM. Changes nothing when it is there.
set -euo pipefail

missing=()
command -v swtpm >/dev/null || missing+=(swtpm)
{ command -v swtpm_setup && command -v swtpm_localca; } >/dev/null || missing+=(swtpm-tools)
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
	echo "need: ${missing[*]} is missing and there is no apt-get here." >&2
	echo "need: install swtpm and its tools (swtpm_setup, swtpm_localca) with this system's package manager." >&2
	exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "need: ${missing[*]} is missing, and installing it needs root: as root, run" >&2
		echo "need:   apt-get install ${missing[*]}" >&2
		exit 1
	fi
	as_root=(sudo)
fi
echo "need: installing ${missing[*]} with apt-get" >&2
install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}")
if ! "${install[@]}" >/dev/null; then
	"${as_root[@]}" apt-get update >/dev/null
	"${install[@]}" >/dev/null
fi
swtpm --version | head -n 1 >&2
