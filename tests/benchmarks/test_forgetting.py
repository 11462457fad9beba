"""What an update gains and loses: trained once, measured by share."""

from __future__ import annotations

import csv

import forgetting
import pytest

from sam3d_label.model_update import rehearsal
from sam3d_label.training import TrainSettings
from tests.helpers.phantoms import small_phantoms


@pytest.fixture
def cases(tmp_path):
    return small_phantoms(tmp_path / "phantoms", 2, (28, 26, 10))


def test_an_update_is_stored_and_read_again(small_weights, cases, tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "PHANTOMS", 1)
    quick = TrainSettings(epochs=1, steps_per_epoch=1, warmup=0, workers=0, precision="fp32")
    first = forgetting.learn(small_weights, cases, quick, forgetting.Rehearsal.answers, tmp_path / "out")
    assert (tmp_path / "out" / "rehearsal" / "images").is_dir()
    again = forgetting.learn(
        small_weights, cases, quick.model_copy(update={"seed": 1}), forgetting.Rehearsal.none, tmp_path / "out"
    )
    assert again.signature == first.signature


def test_sets_are_named_and_read_from_their_folders(small_weights, cases, tmp_path):
    folder = tmp_path / "phantoms"
    found = dict(forgetting.case_sets(folder, "phantom_000*", [f"MR={folder}:phantom_001*"], small_weights))
    assert [case.name for case in found["held out"]] == ["phantom_000.nii.gz"]
    assert [case.name for case in found["MR"]] == ["phantom_001.nii.gz"]
    assert {"reference CT", "reference MR", "reference PT"} <= found.keys()


def test_the_table_has_a_row_for_each_share(tmp_path):
    dices = dict.fromkeys(forgetting.DICES, "0.5")
    rows = [{"share": share, "set": "MR", "case": case, **dices} for share in ("0", "1") for case in "ab"]
    forgetting.write(tmp_path / "table.csv", rows[:2])
    forgetting.write(tmp_path / "table.csv", rows[2:])
    with (tmp_path / "table.csv").open() as file:
        assert list(csv.DictReader(file)) == rows
    assert forgetting.summary(rows).row_count == 2
