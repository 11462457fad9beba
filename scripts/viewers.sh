#!/usr/bin/env bash
# Installs what the tests with real clients need, Debian's Orthanc with its DICOMweb plugin and Chromium. Where that
# cannot be, it says so and fails; the tests that need them are skipped then.
set -euo pipefail

plugin=/usr/share/orthanc/plugins/libOrthancDicomWeb.so
installed() { [ -e "$plugin" ] && command -v chromium >/dev/null; }

if ! installed; then
    root=()
    [ "$(id -u)" = 0 ] || root=(sudo -n)
    echo "Installing Orthanc and Chromium"
    "${root[@]}" apt-get update -qq || true
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq orthanc orthanc-dicomweb chromium >/dev/null || true
fi
installed || { echo "Orthanc and Chromium are not here and cannot be installed: no test with real viewers" >&2; exit 1; }
