"""The files about the latest training: those of earlier releases are read, and keys stay."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from lib.datastores.json_files import load
from lib.trainers.stats import LastTraining, StatsFile, TrainStats
from sam3d_label.errors import NewerFormatError
from sam3d_label.model_update.progress import UpdateProgress
from sam3d_label.model_update.report import ShareResult, UpdateReport
from sam3d_label.training.log import EpochLog

SAMPLES = Path(__file__).parents[2] / "data"


@pytest.mark.parametrize("format_", ["format_0", "format_1"])
def test_the_state_of_an_earlier_release_is_read_and_sent_with_the_same_keys(format_: str) -> None:
    path = SAMPLES / format_ / "train_stats.json"
    stats = load(TrainStats, path)
    assert stats is not None
    assert stats.gate is not None
    assert stats.gate.passes
    stored, sent = json.loads(path.read_text()), stats.as_json()
    if format_ == "format_1":
        assert sent == stored
    else:
        assert sent.keys() == {*stored, "format"}


def test_the_labels_of_the_last_training_are_read() -> None:
    last = load(LastTraining, SAMPLES / "format_0" / "last_training.json")
    assert last == LastTraining(at=1795600000.0, labels={"case 0": 1795500000})


def test_a_state_of_a_newer_release_is_rejected_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "train_stats.json"
    path.write_text('{"format": 2}')
    with pytest.raises(NewerFormatError, match="update this installation"):
        load(TrainStats, path)
    path.write_text('{"epoch": "some"}')
    assert load(TrainStats, path) is None


def test_a_training_writes_its_progress_and_its_end(tmp_path: Path) -> None:
    stats = StatsFile(tmp_path / "stats.json", "train_01", 5)

    def shown() -> TrainStats:
        read = load(TrainStats, stats.path)
        assert read is not None
        return read

    stats.begin()
    assert (shown().stage, shown().epoch, shown().total_epochs) == ("starting", 0, 5)
    log = EpochLog(epoch=0, loss=0.5, dice_1=math.nan, dice_3=math.nan, learning_rate=1e-3, seconds=1)
    stats.show(UpdateProgress("training", [log], 1))
    assert (shown().epoch, shown().eval, shown().losses) == (1, {}, [0.5])
    stats.show(UpdateProgress("comparing"))
    assert (shown().epoch, shown().total_epochs, shown().stage) == (1, 1, "comparing")
    assert shown().total_time is None
    tried = [ShareResult(share=0.3, reference={"dice_1": 0.6}, loss=0.01, validation={"dice_1": 0.7})]
    stats.end(UpdateReport(version="0001", annotated=2, share=0.3, shares=tried))
    assert (shown().share, shown().shares) == (0.3, tried)
    assert (shown().stage, shown().version, shown().annotated, shown().epoch) == ("done", "0001", 2, 1)
    assert shown().total_time is not None
    stats.fail("no label")
    assert (shown().error, shown().version) == ("no label", None)


def test_steps_are_shown_with_their_speed_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    stats = StatsFile(tmp_path / "stats.json", "train_01", 5)
    stats.begin()
    stats.show(UpdateProgress("training", [], 5, steps=12, steps_in_all=50, crops_per_second=0.51, seconds_left=74.1))
    read = load(TrainStats, stats.path)
    assert read is not None
    assert (read.steps, read.total_steps, read.crops_per_second, read.remaining_time) == (12, 50, 0.51, 74.1)
    assert "training: step 12 of 50, 0.51 crops/s" in caplog.text
    assert "about 74 s of training left" in caplog.text
    stats.end(UpdateReport())
    done = load(TrainStats, stats.path)
    assert done is not None
    assert done.remaining_time is None
