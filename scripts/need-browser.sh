#!/usr/bin/env bash
# Installs Chromium for the test that looks at reports in a browser, where that can
# be done; where not, says so and ends well: the test is skipped then.
set -uo pipefail

for name in chromium chromium-browser google-chrome; do
	command -v "$name" >/dev/null && exit 0
done
if command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
	echo "need: installing chromium with apt-get, for the test of reports in a browser" >&2
	install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium)
	"${install[@]}" >/dev/null 2>&1 || { apt-get update >/dev/null 2>&1 && "${install[@]}" >/dev/null 2>&1; }
fi
command -v chromium >/dev/null || echo "need: there is no Chromium and it cannot be installed here: the test of reports in a browser is skipped" >&2
