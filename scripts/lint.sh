#!/usr/bin/env bash
# Format, static analysis, this module's own rules (internal/lint) and files that
# are made from others. Runs all of them and fails if one failed.
set -uo pipefail
cd "$(dirname "$0")/.."

failed=0
check() { # name command...
	local name=$1
	shift
	if out=$("$@" 2>&1); then
		echo "lint: $name: ok"
	else
		echo "lint: $name: FAILED"
		[ -n "$out" ] && printf '%s\n' "$out"
		failed=1
	fi
}

formatted() {
	local files
	files=$(gofmt -l $(go list -f '{{.Dir}}' ./...)) || return 1
	[ -z "$files" ] || {
		echo "run gofmt -w on:"
		echo "$files"
		return 1
	}
}

tidy() {
	go mod tidy -diff || {
		echo "run go mod tidy; without a network this check cannot be made"
		return 1
	}
}

fresh() { # CHECKS.md and docs/deepattest.1 are what the program prints
	local dir
	dir=$(mktemp -d) || return 1
	mkdir "$dir/docs"
	scripts/docs.sh "$dir" >/dev/null &&
		diff -u CHECKS.md "$dir/CHECKS.md" && diff -u docs/deepattest.1 "$dir/docs/deepattest.1" || {
		rm -rf "$dir"
		echo "run make docs"
		return 1
	}
	rm -rf "$dir"
}

scripts_parse() {
	local f
	for f in scripts/*.sh scripts/*/*.sh .ci/run; do
		bash -n "$f" || return 1
	done
}

check "gofmt" formatted
check "go vet" go vet ./...
check "go vet of the tests on OpenStack" go vet -tags openstack ./internal/openstack/...
check "staticcheck" go tool staticcheck ./...
check "rules of this module" go test ./internal/lint
check "README and schemas" go test ./schemas ./docs
check "go mod tidy" tidy
check "CHECKS.md and man page" fresh
check "scripts" scripts_parse
exit $failed
