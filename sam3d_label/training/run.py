"""Inputs and report of a training run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pydantic import ConfigDict, Field

from sam3d_label.image.intensity import IntensityRule
from sam3d_label.io import Record
from sam3d_label.network import PromptableNetwork
from sam3d_label.training.dataset import TrainingCase
from sam3d_label.training.log import EpochLog
from sam3d_label.training.settings import TrainSettings

OnStep = Callable[[int, int, int], None]
"""Called after an optimizer step with the epoch, from 0, the steps done in it, and the steps of an epoch."""


class TrainingRun(Record):
    """A training run: its result depends on this and the weights that it starts from.

    Attributes:
        cases: Cases to train on. Unusable ones are skipped and reported.
        validation: Cases that are scored and never trained on.
        intensity: Intensity rule of the weights.
        settings: How to train.
        device: Where to train.
        resume: Continue from the checkpoint in the folder of the run, with the same result as an uninterrupted run.
    """

    cases: list[TrainingCase]
    validation: list[TrainingCase] = Field(default_factory=list)
    intensity: IntensityRule
    settings: TrainSettings = Field(default_factory=TrainSettings)
    device: str = "cpu"
    resume: bool = False


class TrainReport(Record):
    """Result of a training run, next to the weights.

    Attributes:
        epochs: Its log, an entry an epoch, those of an interrupted run that it resumed included.
        trained: Names of the cases that trained, without rehearsed ones.
        validated: Names of the cases that were scored only.
        skipped: Cases left out, and why.
        salient: Among the cases that trained were targets that can be found without a prompt.
        memory: How memory was used, and why.
    """

    model_config = ConfigDict(frozen=False)
    epochs: list[EpochLog] = Field(default_factory=list)
    trained: list[str] = Field(default_factory=list)
    validated: list[str] = Field(default_factory=list)
    skipped: dict[str, str] = Field(default_factory=dict)
    salient: bool = False
    memory: str = ""


class FineTune(Protocol):
    """Trains a model in place, such as `fine_tune`."""

    def __call__(
        self,
        model: PromptableNetwork,
        run: TrainingRun,
        out: Path,
        *,
        progress: Callable[[EpochLog], None] | None = None,
        on_step: OnStep | None = None,
        pause: Callable[[], None] | None = None,
    ) -> TrainReport:
        """Train the model on a run, with checkpoint and log in a folder; `fine_tune` explains the arguments."""
