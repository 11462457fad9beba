"""The audit of dependencies, without a network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import audit
import pytest

ROOT = Path(__file__).resolve().parents[2]
VULNERABLE = {
    "name": "jinja2",
    "version": "3.1.2",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.1.3"], "description": ""}],
}
UNKNOWN = {"name": "numpy", "skip_reason": "Dependency not found on PyPI and could not be audited: numpy (1.26.4)"}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the audit with the reports of the services."""

    def run(*options: str, **reports: Any) -> int:
        monkeypatch.setattr(audit, "ask", lambda service, _: reports.get(service))
        monkeypatch.setattr(sys, "argv", ["audit.py", *options])
        return audit.main()

    return run


def test_every_pinned_version_is_the_installed_one() -> None:
    text = (ROOT / "requirements.txt").read_text()
    assert len(list(audit.pins(text))) > 100
    assert audit.differences(text) == []


def test_other_and_missing_versions_are_reported() -> None:
    text = "# a comment\nnumpy==0.0.1\nnowhere-at-all==1\nhttpx==1 ; python_version < '3'\n"
    wrong, missing = audit.differences(text)
    assert "numpy==0.0.1 is pinned" in wrong
    assert "nowhere-at-all==1 is not installed" in missing


def test_a_known_vulnerability_fails_with_the_version_that_fixes_it(run: Any, capsys: Any) -> None:
    assert run(pypi={"dependencies": [VULNERABLE, UNKNOWN]}) == 1
    assert "jinja2 3.1.2: PYSEC-1; fixed in 3.1.3" in capsys.readouterr().err


def test_a_service_that_knows_no_package_counts_as_no_service(run: Any, capsys: Any) -> None:
    assert run(pypi={"dependencies": [UNKNOWN]}) == 3
    assert run("--offline-ok", pypi={"dependencies": [UNKNOWN]}) == 0
    assert capsys.readouterr().err.count("NOT CHECKED") == 2


def test_the_next_service_is_asked_when_the_first_does_not_answer(run: Any, capsys: Any) -> None:
    clean = {"dependencies": [{"name": "numpy", "version": "1.26.4", "vulns": []}]}
    assert run(osv=clean) == 0
    assert "by the service osv" in capsys.readouterr().out
