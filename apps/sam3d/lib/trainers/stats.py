"""Files about the latest training: its state, in the keys that the viewers read, and the labels that it has seen."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path

from pydantic import Field

from lib.datastores.json_files import finite_object, store
from sam3d_label.io import Record
from sam3d_label.model_update.progress import UpdateProgress
from sam3d_label.model_update.report import Activation, Compared, ShareResult, UpdateReport, Verdict
from sam3d_label.training.log import EpochLog

logger = logging.getLogger(__name__)
WRITE_SECONDS, LOG_SECONDS = 1.0, 30.0
STATS, STARTED = "train_stats.json", "last_training.json"


class TrainStats(Record):
    """State of a training. Keys that do not apply yet are left out where it is stored or sent.

    Attributes:
        epoch: Epochs that are done.
        best_metric: Highest Dice after one click on the validation cases.
        train: Loss, learning rate and seconds of the latest epoch.
        eval: Dice of the latest epoch on the validation cases.
        name: Of the run.
        start_ts: When it began, seconds since 1970.
        total_epochs: Epochs that it will have.
        steps: Optimizer steps of the current training that are done.
        total_steps: Optimizer steps that it will have.
        crops_per_second: Training crops per second.
        remaining_time: Estimated seconds until all trainings of this update are done; comparisons follow.
        losses: Loss of each epoch.
        stage: What it is doing.
        current_time: Seconds since it began.
        total_time: Seconds that it took; None while it runs.
        version: Version that it made.
        gate: The decision of the gate.
        means: Means of the scores that the gate compared.
        share: Share of the new weights in the version.
        shares: The shares that were tried, with their scores on validation and reference cases.
        annotated: Number of cases with usable labels.
        skipped: Cases that were not used, and why.
        kept_active: What a person activated during the training, so that it stays active.
        error: Why it failed.
    """

    epoch: int = 0
    best_metric: float | None = 0.0
    train: dict[str, float] = Field(default_factory=dict)
    eval: dict[str, float] = Field(default_factory=dict)
    name: str | None = None
    start_ts: int | None = None
    total_epochs: int | None = None
    steps: int | None = None
    total_steps: int | None = None
    crops_per_second: float | None = None
    remaining_time: float | None = None
    losses: list[float | None] | None = None
    stage: str | None = None
    current_time: float | None = None
    total_time: float | None = None
    version: str | None = None
    gate: Verdict | None = None
    means: dict[Compared, dict[str, float]] | None = None
    share: float | None = None
    shares: list[ShareResult] | None = None
    annotated: int | None = None
    skipped: dict[str, str] | None = None
    kept_active: Activation | None = None
    error: str | None = None

    def as_json(self) -> dict[str, object]:
        """Return it as it is sent."""
        return finite_object(self.model_dump(mode="json", exclude_none=True))


class LastTraining(Record):
    """The labels that the latest training has seen.

    Attributes:
        at: When it began, seconds since 1970; 0 when there was none.
        labels: When the label of each image was saved, seconds since 1970.
    """

    at: float = 0
    labels: dict[str, int] = Field(default_factory=dict)


class StatsFile:
    """The file with the state of a training.

    Args:
        path: The file.
        name: Of the run.
        epochs: How many it is going to have, as far as is known before it begins. Slicer divides by it.
    """

    def __init__(self, path: Path, name: str, epochs: int) -> None:
        self.path = path
        self._began = time.time()
        self._written = self._logged = 0.0
        self._shown: tuple[str, int] | None = None
        self._last = TrainStats(name=name, start_ts=int(self._began), total_epochs=epochs)

    def begin(self) -> None:
        """Write that it has begun, replacing the state of the previous training."""
        store(self.path, self._last.model_copy(update={"stage": "starting"}))

    def show(self, progress: UpdateProgress) -> None:
        """Write the state of an update: each epoch and stage, steps once a second; a line of the log now and then."""
        scores = [log.dice_1 for log in progress.epochs if not math.isnan(log.dice_1)]
        changes: dict[str, object] = {}
        if progress.epochs_in_all:
            changes["total_epochs"] = progress.epochs_in_all
        if progress.epochs:
            changes |= {
                "epoch": len(progress.epochs),
                "best_metric": round(max(scores, default=0.0), 4),
                "train": _numbers(progress.epochs[-1], ("loss", "learning_rate", "seconds")),
                "eval": _numbers(progress.epochs[-1], ("dice_1", "dice_3")),
                "losses": [round(log.loss, 5) for log in progress.epochs],
            }
        if progress.steps:
            self._log(progress)
        is_new = (progress.stage, len(progress.epochs)) != self._shown
        if not is_new and time.monotonic() - self._written < WRITE_SECONDS:
            return
        self._shown, self._written = (progress.stage, len(progress.epochs)), time.monotonic()
        self._last = self._last.model_copy(update=changes)
        now = {"stage": progress.stage, "current_time": self._seconds(), **_steps(progress)}
        store(self.path, self._last.model_copy(update=now))

    def _log(self, progress: UpdateProgress) -> None:
        if progress.seconds_left is None or time.monotonic() - self._logged < LOG_SECONDS:
            return
        self._logged = time.monotonic()
        logger.info(
            f"{progress.stage}: step {progress.steps} of {progress.steps_in_all},"
            f" {progress.crops_per_second:.2f} crops/s, {self._seconds():.0f} s so far,"
            f" about {progress.seconds_left:.0f} s of training left"
        )

    def end(self, report: UpdateReport) -> None:
        """Write the result of an update."""
        names = ("version", "gate", "means", "share", "shares", "annotated", "skipped", "kept_active")
        self._end({name: getattr(report, name) for name in names})

    def fail(self, error: str) -> None:
        """Write why there is no result."""
        self._end({"error": error})

    def _end(self, outcome: dict[str, object]) -> None:
        done = {"stage": "done", "total_time": self._seconds(), **outcome}
        store(self.path, self._last.model_copy(update=done))

    def _seconds(self) -> float:
        return round(time.time() - self._began, 1)


def _steps(progress: UpdateProgress) -> dict[str, object]:
    """Return the steps of the current training, and the estimates that follow from them."""
    if not progress.steps_in_all:
        return {}
    estimates = {"crops_per_second": progress.crops_per_second, "remaining_time": progress.seconds_left}
    known = {name: round(value, 2) for name, value in estimates.items() if value is not None}
    return {"steps": progress.steps, "total_steps": progress.steps_in_all, **known}


def _numbers(log: EpochLog, names: tuple[str, ...]) -> dict[str, float]:
    """Return the fields that are finite numbers."""
    values = {name: float(getattr(log, name)) for name in names}
    return {name: round(value, 6) for name, value in values.items() if math.isfinite(value)}
