"""What a training run is given and what it reports are records."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from sam3d_label.errors import NewerFormatError, Sam3dError
from sam3d_label.image.intensity import Percentile
from sam3d_label.training import TrainingCase, TrainingRun, TrainReport, TrainSettings
from sam3d_label.training.log import EpochLog


def test_a_run_is_the_same_after_it_was_stored() -> None:
    case = TrainingCase(Path("a.nii.gz"), Path("b.nii.gz"), value=2, target="liver")
    run = TrainingRun(cases=[case], intensity=Percentile(), settings=TrainSettings(epochs=3), resume=True)
    assert TrainingRun.parse(run.model_dump(mode="json"), Path("job.json")) == run
    assert run.validation == []


def test_a_report_is_read_with_epochs_that_had_no_validation() -> None:
    log = EpochLog(epoch=0, loss=0.5, dice_1=math.nan, dice_3=math.nan, learning_rate=1e-3, seconds=1)
    report = TrainReport(epochs=[log], trained=["a"], skipped={"b": "it is damaged"})
    read = TrainReport.parse(report.model_dump(mode="json"), Path("done.pt"))
    assert math.isnan(read.epochs[0].dice_1)
    assert (read.trained, read.skipped) == (["a"], {"b": "it is damaged"})


def test_a_run_of_a_newer_release_or_with_a_wrong_value_is_rejected() -> None:
    with pytest.raises(NewerFormatError, match="format 2"):
        TrainingRun.parse({"format": 2}, Path("job.json"))
    with pytest.raises(Sam3dError, match=r"job\.json is damaged.*cases"):
        TrainingRun.parse({"cases": 3, "intensity": {"kind": "percentile"}}, Path("job.json"))
