#!/usr/bin/env bash
# govulncheck over the module. Without its database nothing is known, which is
# said and is no failure.
set -uo pipefail
cd "$(dirname "$0")/.."

out=$(go tool govulncheck ./... 2>&1)
code=$?
printf '%s\n' "$out"
# 3 is govulncheck's exit status for findings; a database that cannot be reached
# is any other failure that names a network or HTTP fault.
if [ $code -ne 0 ] && [ $code -ne 3 ] &&
	grep -qiE 'dial tcp|no such host|proxyconnect|i/o timeout|connection refused|HTTP GET .* returned|unexpected status|tls: |deadline exceeded|fetching vulnerabilities' <<<"$out"; then
	echo "vuln: NOTICE: the vulnerability database cannot be reached; nothing was checked" >&2
	exit 0
fi
exit $code
