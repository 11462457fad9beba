"""Check the installed packages: pinned versions, dependencies, and known vulnerabilities.

    python scripts/audit.py [--offline-ok]

The first two checks need no network. The third asks a vulnerability service through pip-audit. pip-audit counts a
package that the service does not know as skipped and still succeeds, so a mirror that answers 404 for everything looks
like a clean result; this script reports such a result as not audited.

Exit status: 0 if nothing was found, 1 if something was found, 3 if no service answered (0 with --offline-ok).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
SERVICES = ("pypi", "osv")
FOUND, NO_SERVICE = 1, 3
SECONDS = 600


def pins(requirements: str) -> Iterator[Requirement]:
    """Yield the requirements of this platform and Python.

    Args:
        requirements: Text of requirements.txt.
    """
    for line in requirements.splitlines():
        text = line.split("#")[0].strip()
        if text and ((pin := Requirement(text)).marker is None or pin.marker.evaluate()):
            yield pin


def differences(requirements: str) -> list[str]:
    """Return the packages that are missing or installed in another version than the pinned one.

    Args:
        requirements: Text of requirements.txt.
    """
    found = []
    for pin in pins(requirements):
        try:
            installed = version(pin.name)
        except PackageNotFoundError:
            found.append(f"{pin} is not installed: make setup")
            continue
        if not pin.specifier.contains(installed, prereleases=True):
            found.append(f"{pin} is pinned, {installed} is installed: make setup")
    return found


def disagreements() -> list[str]:
    """Return the unmet requirements of installed packages.

    uv also reports a package whose WHEEL file it cannot parse (itk 5.4.7 is published with such a file). That is no
    disagreement between packages, so only lines that name a requirement count.
    """
    command = [sys.executable, "-m", "uv", "pip", "check", "--python", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    if "Checked " not in done.stderr:
        raise RuntimeError(f"uv pip check failed: {done.stderr}")
    return [line for line in done.stderr.splitlines() if line.startswith("The package") and " requires " in line]


def ask(service: str, requirements: str) -> Mapping[str, Any] | None:
    """Return the report of pip-audit; None if the service does not answer.

    Args:
        service: A name that pip-audit knows.
        requirements: Text of requirements.txt.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "requirements.txt")
        file.write_text("".join(f"{pin.name}{pin.specifier}\n" for pin in pins(requirements)))
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(file), "--no-deps", "--disable-pip"]
        command += ["--vulnerability-service", service, "--format", "json", "--progress-spinner", "off"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return None
    try:
        return dict(json.loads(done.stdout))
    except (json.JSONDecodeError, ValueError):
        return None


def audited(report: Mapping[str, Any] | None) -> int:
    """Return the number of packages that the service knows.

    Args:
        report: What pip-audit reported.
    """
    return sum("skip_reason" not in each for each in (report or {}).get("dependencies", ()))


def vulnerabilities(report: Mapping[str, Any]) -> list[str]:
    """Return the known vulnerabilities and the versions that fix them.

    Args:
        report: What pip-audit reported.
    """
    return [
        f"{each['name']} {each['version']}: {entry['id']}; fixed in {', '.join(entry['fix_versions']) or 'none yet'}"
        for each in report["dependencies"]
        for entry in each.get("vulns", ())
    ]


def main() -> int:
    """Run the checks and print the findings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--offline-ok", action="store_true", help="succeed if no vulnerability service answers")
    offline_ok = parser.parse_args().offline_ok
    requirements = (ROOT / "requirements.txt").read_text()
    found = [*differences(requirements), *disagreements()]
    total = len(list(pins(requirements)))
    print(f"audit: {total} pinned packages compared with what is installed")
    for service in SERVICES:
        report = ask(service, requirements)
        if report is not None and (known := audited(report)):
            print(f"audit: {known} of {total} packages checked for known vulnerabilities by the service {service}")
            found += vulnerabilities(report)
            break
    else:
        print(
            f"audit: NOT CHECKED for known vulnerabilities: none of {', '.join(SERVICES)} answers from here",
            file=sys.stderr,
        )
        if not found and not offline_ok:
            return NO_SERVICE
    for line in found:
        print(f"audit: {line}", file=sys.stderr)
    return FOUND if found else 0


if __name__ == "__main__":
    sys.exit(main())
