"""Progress of an update."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sam3d_label.training.log import EpochLog


@dataclass
class UpdateProgress:
    """The progress of an update.

    Attributes:
        stage: `training`, or `leaving out CASE`, or `comparing WEIGHTS, case N of M`.
        epochs: The log of the current training.
        epochs_in_all: Epochs that it will have.
        steps: Optimizer steps that it has done.
        steps_in_all: Optimizer steps that it will have; 0 before the first.
        crops_per_second: Training crops per second, validation included; None before the first step.
        seconds_left: Estimate for this training and those that follow, without comparisons; None before the first step.
    """

    stage: str
    epochs: list[EpochLog] = field(default_factory=list)
    epochs_in_all: int = 0
    steps: int = 0
    steps_in_all: int = 0
    crops_per_second: float | None = None
    seconds_left: float | None = None


class WorkClock:
    """Counts the seconds of an update, without those in which it waits.

    Args:
        pause: Returns when nobody else needs the device.
        clock: Seconds.
    """

    def __init__(self, pause: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._pause, self._clock, self._waited = pause, clock, 0.0

    def wait(self) -> None:
        """Wait until nobody else needs the device."""
        began = self._clock()
        self._pause()
        self._waited += self._clock() - began

    def __call__(self) -> float:
        """Return the seconds of work since some moment."""
        return self._clock() - self._waited


class StepClock:
    """Estimates from the optimizer steps of a training how long it will take.

    Args:
        progress: What it updates.
        batch: Crops of a step.
        following: How many trainings of the same length follow.
        clock: Seconds.
    """

    def __init__(
        self, progress: UpdateProgress, batch: int, following: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._progress, self._batch, self._following, self._clock = progress, batch, following, clock
        self._first: tuple[int, float] | None = None

    def __call__(self, epoch: int, done: int, steps_per_epoch: int) -> None:
        """Count a step: the epoch, from 0, the steps done in it, and the steps of an epoch."""
        progress, now = self._progress, self._clock()
        progress.steps, progress.steps_in_all = epoch * steps_per_epoch + done, progress.epochs_in_all * steps_per_epoch
        if self._first is None:
            self._first = progress.steps, now
        before, since = self._first
        if progress.steps > before and now > since:
            seconds_per_step = (now - since) / (progress.steps - before)
            left = progress.steps_in_all - progress.steps + self._following * progress.steps_in_all
            progress.crops_per_second = self._batch / seconds_per_step
            progress.seconds_left = left * seconds_per_step
