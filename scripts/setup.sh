#!/usr/bin/env bash
# Installs requirements.txt and this project into a virtual environment:  scripts/setup.sh .venv
#
# Python 3.10 to 3.12: the compiled parts of MONAI Label 0.8.5 (numpy 1, numpymaxflow) have no wheels for later ones. Where
# only a later Python is installed, uv fetches a 3.12. PYTHON=/path/to/python chooses one.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:?the folder of the virtual environment}

supported() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; }

find_python() {
    local python
    for python in ${PYTHON:-python3 python3.12 python3.11 python3.10}; do
        if command -v "$python" >/dev/null && supported "$python"; then
            echo "$python"
            return
        fi
    done
}

install_uv() { "$1" -m pip install --quiet --disable-pip-version-check "$(grep -m 1 -o '^uv==[^ ;]*' requirements.txt)"; }

refuse() {
    echo "error: Python 3.10, 3.11 or 3.12 is needed; found ${PYTHON:-$(python3 --version 2>/dev/null || echo none)}." \
         "Install one, or name it: make PYTHON=/path/to/python3.12" >&2
    exit 1
}

make_venv() {
    local python
    python=$(find_python)
    if [ -n "$python" ]; then
        "$python" -m venv --clear "$venv"
    elif [ -z "${PYTHON:-}" ] && command -v python3 >/dev/null \
            && python3 -c 'import sys; sys.exit(sys.version_info < (3, 13))'; then
        echo "$(python3 --version) is newer than MONAI Label supports: fetching Python 3.12 with uv"
        bootstrap=$(mktemp -d)
        trap 'rm -rf "$bootstrap"' EXIT
        python3 -m venv "$bootstrap"
        install_uv "$bootstrap/bin/python"
        "$bootstrap/bin/uv" venv --quiet --clear --seed --python 3.12 "$venv" || refuse
    else
        refuse
    fi
}

echo "Setting up $venv (a minute or more the first time)"
supported "$venv/bin/python" || make_venv
install_uv "$venv/bin/python"
export VIRTUAL_ENV=$PWD/$venv
# Compiled here once: otherwise the first start of each program compiles thousands of modules, which takes a minute.
"$venv/bin/uv" pip install --quiet --compile-bytecode -r requirements.txt
"$venv/bin/uv" pip install --quiet --no-deps --no-build-isolation -e .
"$venv/bin/python" -m compileall -q sam3d_label

# uv leaves out the server's start script, because the wheel spells the name of the folder that holds it in its own way.
scripts=$("$venv/bin/python" -c 'import importlib.util as u; print(u.find_spec("monailabel").submodule_search_locations[0])')/scripts
[ -e "$venv/bin/monailabel" ] || install -m 755 "$scripts/monailabel" "$venv/bin/monailabel"
