#!/usr/bin/env bash
# Runs every fuzz target of the module for FUZZTIME (default 60s), one after the
# other. A finding is kept by go test under testdata/fuzz: commit it.
set -uo pipefail
cd "$(dirname "$0")/.."
time=${FUZZTIME:-60s}

failed=0 ran=0
for dir in $(go list -f '{{.Dir}}' ./...); do
	targets=$(grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go 2>/dev/null | cut -d' ' -f2)
	for target in $targets; do
		echo "fuzz: ${dir#"$PWD"/} $target $time"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$dir" || failed=1
		ran=$((ran + 1))
	done
done
[ $ran -gt 0 ] || {
	echo "fuzz: no fuzz target found" >&2
	exit 1
}
echo "fuzz: $ran targets"
exit $failed
