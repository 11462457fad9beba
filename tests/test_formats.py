"""Files of releases without format numbers are read, and files of newer releases are rejected with the way out.

`data/format_0` holds what release 2.0 wrote; `data/format_1` holds files with format numbers of the first release that
had them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sam3d_label.errors import Sam3dError
from sam3d_label.evaluation.summary import EvaluationSummary, WeightsName
from sam3d_label.io import read_record, write_record
from sam3d_label.model_update import learning_curve
from sam3d_label.model_update.report import CaseScore, GateScores, UpdateReport, Verdict
from sam3d_label.model_update.split_ledger import Ledger
from sam3d_label.model_update.started_run import StartedRun
from sam3d_label.model_update.versions import Versions
from sam3d_label.replay.folder import ReplaySettings
from sam3d_label.replay.summary import ReplaySummary
from sam3d_label.studies.click_log import ClickLog, LoggedRequest, read_log

SAMPLES = Path(__file__).parent / "data" / "format_0"
NUMBERED = SAMPLES.with_name("format_1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the samples."""
    return Path(shutil.copytree(SAMPLES, tmp_path / "model", symlinks=True))


def test_the_samples_hold_no_format_numbers_but_the_ledger(folder: Path) -> None:
    with_number = [
        path.name for path in folder.rglob("*.json*") if '"format"' in path.read_text() and path.name != "ledger.json"
    ]
    assert not with_number


def test_versions_of_an_older_release_are_read_and_continued(folder: Path) -> None:
    versions = Versions(folder / "versions")
    assert [entry.version for entry in versions.history()] == ["0001", "0002"]
    assert versions.current() == "0002"
    assert versions.report("0002").gate == Verdict(passes=True, reason="better")
    assert versions.rollback() == "0001"
    written = json.loads((folder / "versions" / "history.json").read_text())
    assert written["format"] == 1
    assert [entry.version for entry in versions.history()] == ["0001", "0002", "0001"]


def test_a_ledger_of_an_older_release_keeps_its_cases(folder: Path) -> None:
    before = dict(Ledger(folder / "ledger.json").entries)
    told = Ledger(folder / "ledger.json").assign({**{case: case for case in before}, "new": "new"})
    assert {case: told[case] for case in before} == {case: entry.side for case, entry in before.items()}
    content = json.loads((folder / "ledger.json").read_text())
    del content["format"]
    (folder / "ledger.json").write_text(json.dumps(content))
    assert dict(Ledger(folder / "ledger.json").entries).keys() == {*before, "new"}


def test_a_click_log_of_an_older_release_is_read_and_continued(folder: Path) -> None:
    ClickLog(folder / "clicks").append(LoggedRequest(at="2026-11-27T10:00:00+00:00", seconds=1))
    found = read_log(folder / "clicks")
    assert (len(found.requests), found.damaged) == (5, 0)
    last = (folder / "clicks" / "clicks-000001.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["format"] == 1


def test_a_learning_curve_of_an_older_release_is_read_and_continued(folder: Path) -> None:
    scores = [CaseScore(case="case 0", dice_1=0.7, dice_3=0.8, dice_5=0.8, nsd_3=0.9)]
    report = UpdateReport(
        version="0003",
        at="2026-11-27",
        annotated=5,
        gate=Verdict(passes=True),
        scores=GateScores(candidate=scores, serving=scores),
    )
    learning_curve.append(folder, report)
    assert [(row.version, row.published) for row in learning_curve.read(folder)] == [("0001", True), ("0003", True)]
    rows = (folder / learning_curve.TABLE).read_text().splitlines()
    assert [row.endswith(",1") for row in rows[1:]] == [True, True]


def test_the_report_of_an_update_is_read_and_written_without_a_change() -> None:
    path = NUMBERED / "report.json"
    report = read_record(UpdateReport, path)
    assert report is not None
    assert report.gate is not None
    assert report.gate.differences["all"][0].metric == "dice_1"
    assert [log.epoch for log in report.epochs] == [0, 1]
    written, stored = report.model_dump(mode="json"), json.loads(path.read_text(encoding="utf-8"))
    assert {key: written[key] for key in stored} == stored
    assert (report.share, report.shares, report.reference) == (None, [], None), "it is older than the reference set"


def test_a_run_that_was_begun_before_can_be_continued() -> None:
    path = NUMBERED / "run" / "run.json"
    run = read_record(StartedRun, path)
    assert run is not None
    written, stored = run.model_dump(mode="json"), json.loads(path.read_text(encoding="utf-8"))
    assert {key: written[key] for key in stored} == stored
    assert run.cases is None, "it continues with all cases"
    assert not run.why_not_continued(run.model_copy(update={"cases": ["a"]}))


def test_the_summary_of_an_evaluation_of_an_older_release_is_read() -> None:
    summary = read_record(EvaluationSummary, SAMPLES / "evaluation" / "summary.json")
    assert summary is not None
    assert summary.weights == WeightsName(name="tiny", version="7")
    assert (summary.clicks, summary.cases, round(summary.dice[3], 6)) == ([1, 3, 5], 2, 0.775)


def test_a_replay_that_was_begun_before_can_be_continued(tmp_path: Path) -> None:
    path = NUMBERED / "replay" / "replay.json"
    settings = read_record(ReplaySettings, path)
    assert settings is not None
    write_record(tmp_path / "replay.json", settings)
    assert (tmp_path / "replay.json").read_text() == path.read_text()


def test_the_summary_of_a_replay_of_an_older_release_is_read() -> None:
    summary = read_record(ReplaySummary, NUMBERED / "replay" / "summary.json")
    assert summary is not None
    assert summary.weights.name == "w"
    assert {clicks: group.requests for clicks, group in summary.by_clicks.items()} == {"1": 1, "2": 1}


def test_keys_of_a_later_release_are_ignored_and_a_wrong_value_is_named(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"format": 1, "annotated": 3, "something": "else"}))
    assert read_record(UpdateReport, path) == UpdateReport(annotated=3)
    path.write_text(json.dumps({"annotated": "many"}))
    with pytest.raises(Sam3dError, match=r"report\.json is damaged.*annotated: .*integer"):
        read_record(UpdateReport, path)
    assert read_record(UpdateReport, tmp_path / "missing.json") is None


def newer_line(path: Path) -> None:
    path.write_text(json.dumps({"at": "x", "seconds": 1, "format": 2}) + "\n")


def newer_object(path: Path) -> None:
    path.write_text(json.dumps({"format": 2, "something": "else"}))


def newer_table(path: Path) -> None:
    path.write_text("version,format\n0001,2\n")


NEWER: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "versions/history.json": (newer_object, lambda folder: Versions(folder / "versions").history()),
    "versions/0002/report.json": (newer_object, lambda folder: Versions(folder / "versions").report("0002")),
    "ledger.json": (newer_object, lambda folder: Ledger(folder / "ledger.json")),
    "clicks/clicks-000001.jsonl": (newer_line, lambda folder: read_log(folder / "clicks")),
    "learning_curve.csv": (newer_table, learning_curve.read),
}


@pytest.mark.parametrize("name", NEWER)
def test_a_file_of_a_newer_release_is_rejected_with_the_way_out_and_left_alone(folder: Path, name: str) -> None:
    write, read = NEWER[name]
    write(folder / name)
    before = (folder / name).read_bytes()
    with pytest.raises(Sam3dError, match=r"newer release.*update this installation"):
        read(folder)
    assert (folder / name).read_bytes() == before
