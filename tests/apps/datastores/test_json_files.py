"""Small files of the app: older ones are read, damaged ones count as empty, unusable scores are left out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lib.activelearning.strategies import ScoreFile
from lib.datastores.json_files import read_json, write_object
from lib.datastores.studies import SafeDatastore
from sam3d_label.active_learning.score import ImageScore
from sam3d_label.errors import NewerFormatError

SAMPLES = Path(__file__).parents[2] / "data" / "format_0"


def test_numbers_that_json_cannot_hold_are_stored_as_null(tmp_path: Path) -> None:
    write_object(tmp_path / "stats.json", {"a": float("nan"), "b": [1.5, float("inf")]})
    assert read_json(tmp_path / "stats.json") == {"a": None, "b": [1.5, None]}


@pytest.mark.parametrize("name", ["train_stats.json", "last_training.json", "scores.json"])
def test_files_of_an_older_release_are_read_and_those_of_a_newer_one_are_rejected(tmp_path: Path, name: str) -> None:
    shutil.copy(SAMPLES / name, tmp_path)
    assert read_json(tmp_path / name) == json.loads((SAMPLES / name).read_text())
    (tmp_path / name).write_text('{"format": 2}')
    with pytest.raises(NewerFormatError, match="update this installation"):
        read_json(tmp_path / name)


def test_a_damaged_file_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "train_stats.json").write_text("{")
    assert read_json(tmp_path / "train_stats.json") == {}


def test_scores_of_an_older_release_are_kept_and_bad_ones_left_out(tmp_path: Path) -> None:
    shutil.copy(SAMPLES / "scores.json", tmp_path)
    scores = ScoreFile(tmp_path)
    assert scores.read().keys() == {"case 0", "case 1"}
    scores.add("new", ImageScore(version="1", doubt=0.5, click=(1, 2, 3), vector=[0.5]))
    content = json.loads((tmp_path / "scores.json").read_text())
    assert content["format"] == 1
    content["scores"] |= {"case 0": [], "case 1": {"doubt": float("nan")}}
    (tmp_path / "scores.json").write_text(json.dumps(content))
    assert ScoreFile(tmp_path).read().keys() == {"new"}


def test_the_studies_of_an_older_release_are_opened(tmp_path: Path) -> None:
    shutil.copytree(SAMPLES / "studies", tmp_path / "studies")
    store = SafeDatastore(str(tmp_path / "studies"), extensions=["*.nii.gz"])
    assert store.status() == {"total": 2, "completed": 1, "label_tags": {"final": 1}}
    assert store.get_label_info("case 0", "final")["client_id"] == "anna"
