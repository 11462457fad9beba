"""python -m sam3d_label versions: what is listed, shown, published and rolled back."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from sam3d_label.cli.app import app
from sam3d_label.model_update.versions import REPORT, Versions
from sam3d_label.weights.adapter import save_whole

GATES = {"0001": (True, 0.71, "not worse on 4 validation cases"), "0002": (False, 0.52, "worse on 4 validation cases")}


@pytest.fixture
def model_dir(small_weights, tmp_path):
    """The model folder of an app with two versions, of which the first serves."""
    versions = Versions(tmp_path / "versions")
    for passes, dice, reason in GATES.values():
        with versions.new_version() as (version, folder):
            save_whole(small_weights.model, folder / "adapter.safetensors")
            small_weights.card.model_copy(update={"version": version}).write(folder / "card.json")
            report = {"at": "2026-01-02T03:04:05", "annotated": 7, "gate": {"passes": passes, "reason": reason}}
            report["means"] = {"candidate": {"dice_1": dice, "dice_3": 0.8, "nsd_3": 0.9}}
            (folder / REPORT).write_text(json.dumps(report), encoding="utf-8")
    versions.publish("0001", "gate")
    return tmp_path


def run(*arguments: str):
    return CliRunner().invoke(app, ["versions", *arguments], env={"COLUMNS": "160"})


def at(model_dir, *arguments: str):
    result = run(*arguments, "--model-dir", str(model_dir))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_list_says_which_serves_and_what_the_gate_said(model_dir):
    for told in (at(model_dir), at(model_dir, "list")):
        first, second = (next(line for line in told.splitlines() if number in line) for number in GATES)
        assert "◀" in first
        assert "◀" not in second
        assert "0.710" in first
        assert "worse on 4 validation cases" in second


def test_the_list_says_how_much_of_the_new_weights_it_is_and_what_that_cost(model_dir):
    path = model_dir / "versions" / "0001" / REPORT
    scores = [{"case": "MR phantom 1", "dice_1": 0.5, "dice_3": 0.6, "dice_5": 0.7, "nsd_3": 0.5}]
    kept = {"digest": "0", "baseline_version": "shipped", "baseline": scores, "scores": [{**scores[0], "dice_1": 0.44}]}
    path.write_text(json.dumps({**json.loads(path.read_text()), "share": 0.5, "reference": kept}))
    first, second = (next(line for line in at(model_dir).splitlines() if number in line) for number in GATES)
    assert "50%" in first
    assert "MR 0.60 → 0.58" in first
    assert "%" not in second


def test_without_versions_the_active_weights_are_reported(tmp_path):
    assert "no version is active: the app uses the weights that it was started with" in at(tmp_path, "list")


def test_show_prints_card_and_report(model_dir):
    shown = json.loads(at(model_dir, "show", "0002"))
    assert shown["card"]["version"] == "0002"
    assert shown["report"]["gate"]["passes"] is False


def test_publish_and_roll_back(model_dir):
    versions = Versions(model_dir / "versions")
    assert at(model_dir, "publish", "0002") == "version 0002 is active\n"
    assert versions.current() == "0002"
    assert at(model_dir, "rollback") == "version 0001 is active again\n"
    assert at(model_dir, "rollback", "shipped") == "version shipped is active again\n"
    assert versions.current() is None
    assert at(model_dir, "rollback", "0002") == "version 0002 is active again\n"
    assert versions.history()[-1].by == "command line"


def test_a_version_that_was_activated_against_the_gate_is_shown_as_such(model_dir):
    result = run("publish", "0002", "--model-dir", str(model_dir))
    assert result.stderr == "the gate rejected version 0002: worse on 4 validation cases\n"
    listed = " ".join(
        CliRunner().invoke(app, ["versions", "--model-dir", str(model_dir)], env={"COLUMNS": "300"}).stdout.split()
    )
    assert "0002 │ ◀" in listed
    assert "activated against the gate (command line," in listed
    assert run("rollback", "--model-dir", str(model_dir)).stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("publish", "0007"), "there is no version 0007: only 0001, 0002"),
        (("show", "0007"), "there is no version 0007"),
        (("publish",), "V"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(model_dir, arguments, message):
    result = run(*arguments, "--model-dir", str(model_dir))
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_before_the_first_version_there_is_none_to_show(tmp_path):
    result = run("show", "0001", "--model-dir", str(tmp_path))
    assert result.exit_code == 2
    assert "there is no version 0001: no version was published yet" in result.stderr


def test_an_incomplete_version_does_not_serve(model_dir):
    shutil.copytree(model_dir / "versions" / "0002", model_dir / "versions" / "0003")
    (model_dir / "versions" / "0003" / "adapter.safetensors").unlink()
    result = run("publish", "0003", "--model-dir", str(model_dir))
    assert result.exit_code == 2
    assert "version 0003 lacks adapter.safetensors" in result.stderr
    assert Versions(model_dir / "versions").current() == "0001"
