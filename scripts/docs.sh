#!/usr/bin/env bash
# Writes the files that are made from the program into a folder:
#   docs.sh DIR   DIR/CHECKS.md and DIR/docs/deepattest.1
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: docs.sh DIR}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
go build -o "$tmp/deepattest" ./cmd/deepattest
# First beside, then in place: a program that fails leaves the old file.
"$tmp/deepattest" checks -o markdown >"$tmp/CHECKS.md"
"$tmp/deepattest" man >"$tmp/deepattest.1"
mkdir -p "$out/docs"
cp "$tmp/CHECKS.md" "$out/CHECKS.md"
cp "$tmp/deepattest.1" "$out/docs/deepattest.1"
echo "docs: wrote $out/CHECKS.md and $out/docs/deepattest.1"
