#!/bin/sh
# Starts the server in a container; further arguments are passed to start_server, such as --conf labels tumor,cyst.
#
# A container's server listens on all addresses of the container, so it needs a login, and the login needs a key.
set -eu
keys=${SAM3D_KEYS:-/data/keys.json}
if [ ! -s "$keys" ]; then
    echo "error: there is no API key in $keys; make one: docker compose run --rm sam3d" \
         "sam3d-label api-key add NAME --role admin --file $keys" >&2
    exit 2
fi
exec python -m monailabel.main start_server --app "$(sam3d-label app-path)" --studies "${SAM3D_STUDIES:-/studies}" \
    --host 0.0.0.0 --port "${SAM3D_PORT:-8000}" --conf api_keys "$keys" "$@"
