#!/usr/bin/env bash
# Tools of the page, from npm at pinned versions whose hashes are in scripts/page/package-lock.json:
#   scripts/page.sh vendor   writes apps/sam3d/page/vendor again (NiiVue and its licences)
#   scripts/page.sh types    checks the JSDoc types of apps/sam3d/page/js
# Without npm, or without its registry, types are not checked and the status is 0: the server needs neither.
set -euo pipefail
cd "$(dirname "$0")/page"
command -v npm >/dev/null || { echo "npm is not installed: the page's $1 are not checked"; exit 0; }
# A hash of the lock file marks a complete node_modules.
hash=$(sha256sum package-lock.json)
if [ "$(cat node_modules/.lock-hash 2>/dev/null)" != "$hash" ]; then
	if ! npm ci --silent --no-fund --no-audit; then
		echo "npm cannot download the tools of the page"
		[ "$1" = types ] && exit 0 || exit 1
	fi
	echo "$hash" >node_modules/.lock-hash
fi
npm run --silent "$1"
