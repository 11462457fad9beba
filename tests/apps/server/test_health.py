"""What the health report says when something does not work."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib.server import health
from lib.server.health import Readiness, moving, space, writable


def test_everything_that_works_makes_the_server_ready(tmp_path: Path) -> None:
    report = Readiness({"labels": writable(tmp_path), "disk": space({"labels": tmp_path}, 0)}).report()
    assert report.ready
    assert [check.ok for check in report.checks.values()] == [True, True]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_reported_without_its_path(tmp_path: Path) -> None:
    report = Readiness({"labels": writable(tmp_path / "gone")}).report()
    assert not report.ready
    assert "cannot be written (No such file or directory)" in report.checks["labels"].detail
    assert str(tmp_path) not in report.model_dump_json()


def test_too_little_free_space_is_reported_with_the_option_that_sets_the_limit(tmp_path: Path) -> None:
    report = Readiness({"disk": space({"labels": tmp_path}, 10**12)}).report()
    assert "for labels" in report.checks["disk"].detail
    assert "--conf min_free_mb" in report.checks["disk"].detail


def test_a_queue_that_does_not_move_is_reported() -> None:
    assert Readiness({"queue": moving(lambda: 3.0)}).report().ready
    assert "has waited for 3600 s" in Readiness({"queue": moving(lambda: 3600.0)}).report().checks["queue"].detail


def test_an_unexpected_error_is_named_by_its_type_only(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise ConnectionError("http://user:secret@pacs/ does not answer")

    report = Readiness({"datastore": broken}).report()
    assert "ConnectionError" in report.checks["datastore"].detail
    assert "secret" not in report.model_dump_json()
    assert "ConnectionError" in caplog.text


def test_a_report_is_made_again_only_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    readiness = Readiness({"count": lambda: runs.append(1)})
    readiness.report()
    readiness.report()
    assert len(runs) == 1
    monkeypatch.setattr(health, "FRESH_SECONDS", -1.0)
    readiness.report()
    assert len(runs) == 2
