#!/usr/bin/env bash
# Compiles requirements.in into requirements.txt, and carries the reasons of the caps over:  scripts/lock.sh .venv [--upgrade]
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${1:?the folder of the virtual environment}/bin/uv
shift
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT
[ ! -f requirements.txt ] || cp requirements.txt "$pins"
"$uv" pip compile --quiet --universal --python-version 3.10 --no-annotate --no-header "$@" requirements.in -o "$pins"
{
    echo "# Every version that the project runs on. Change requirements.in, then compile this file again with: make lock"
    echo "# Caps:"
    grep '# cap: ' requirements.in | sed 's/^/#   /'
    echo
    grep -v '^ *#' "$pins"
} >requirements.txt
