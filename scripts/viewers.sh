#!/usr/bin/env bash
# Installs the programs for the tests with real clients: Debian's Orthanc with its DICOMweb plugin, Chromium and nginx. If
# that is not possible, it fails with a message, and the tests that need them are skipped.
set -euo pipefail

plugin=/usr/share/orthanc/plugins/libOrthancDicomWeb.so
installed() { [ -e "$plugin" ] && command -v chromium >/dev/null && PATH=$PATH:/usr/sbin command -v nginx >/dev/null; }

if ! installed; then
    root=()
    [ "$(id -u)" = 0 ] || root=(sudo -n)
    echo "Installing Orthanc, Chromium and nginx"
    "${root[@]}" apt-get update -qq || true
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq orthanc orthanc-dicomweb chromium nginx-light >/dev/null || true
fi
installed || { echo "Orthanc, Chromium and nginx are not all here and cannot be installed: no test with real viewers" >&2; exit 1; }
