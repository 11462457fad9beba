"""The one training loop: interactive rounds on crops, a checkpoint after each epoch."""

from __future__ import annotations

import copy
import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sam3d_label.errors import VolumeError
from sam3d_label.image.intensity import IntensityRule
from sam3d_label.network import PromptableNetwork
from sam3d_label.training.cases import OpenedCases
from sam3d_label.training.dataset import OpenedCase, TrainingCase, TrainingCrops
from sam3d_label.training.distributed import world
from sam3d_label.training.files import CHECKPOINT
from sam3d_label.training.log import EpochLog, write_log
from sam3d_label.training.run import OnStep, TrainingRun, TrainReport
from sam3d_label.training.settings import TrainSettings
from sam3d_label.training.trainer import VALIDATION_CLICKS, Trainer

logger = logging.getLogger(__name__)


def fine_tune(
    model: PromptableNetwork,
    run: TrainingRun,
    out: Path,
    *,
    progress: Callable[[EpochLog], None] | None = None,
    on_step: OnStep | None = None,
    pause: Callable[[], None] | None = None,
) -> TrainReport:
    """Train a model in place on annotated cases.

    Each crop is encoded once and decoded for every round of a simulated session, in which the annotator clicks on the
    current error; the loss is the mean of Dice and cross-entropy over the rounds that learn.

    Under torchrun every process calls this with the same arguments and sees the same files; the main one writes.

    Args:
        model: The network; its adapted part trains, its trunk only with `settings.trunk`.
        run: Cases and settings.
        out: Folder for the checkpoint, the log and its plot.
        progress: Called in the main process after each epoch.
        on_step: Called in the main process after each optimizer step.
        pause: Called before each crop; it returns when nobody else needs the device.

    Returns:
        The events of a run. The caller stores the weights.

    Raises:
        VolumeError: No case is usable.
        WeightsError: The checkpoint to resume from is missing or does not fit, or none can be written.
        Sam3dError: The loss is no longer finite, or a process that trained along was lost.
    """
    settings, report = run.settings, TrainReport()
    out.mkdir(parents=True, exist_ok=True)
    with world(run.device) as processes:
        model = model.to(processes.device)
        teacher = copy.deepcopy(model).eval() if any(case.rehearsed for case in run.cases) else None
        trainer = Trainer(model, settings, processes, pause, teacher)
        if run.resume:
            report.epochs = [EpochLog.model_validate(log) for log in trainer.restore(out / CHECKPOINT)]
        report.memory = trainer.memory.why
        if processes.is_main:
            logger.info(report.memory)
        room = bytes_for_cases(settings, trainer.memory.bytes_for_cases)
        training, weights = open_cases(run.cases, run.intensity, report, room)
        report.trained = [case.name for case in training.cases if not case.rehearsed]
        if not report.trained:
            given = sum(not case.rehearsed for case in run.cases)
            raise VolumeError(f"none of {given} cases can train: {report.skipped}")
        held_out, _ = open_cases(run.validation, run.intensity, report, room)
        report.salient = any(case.salient for case in training.cases)
        report.validated = [case.name for case in held_out.cases]
        length = settings.steps_per_epoch * trainer.batch
        crops = TrainingCrops(
            training,
            weights,
            size=model.config.crop,
            length=length,
            seed=settings.seed,
            inference_share=settings.inference_share,
            inference_spacings=settings.inference_spacings,
            homogeneous=settings.homogeneous,
        )
        while len(report.epochs) < settings.epochs and not is_patience_over(report.epochs, settings.patience):
            report.epochs.append(run_epoch(trainer, crops, held_out, len(report.epochs), on_step))
            if processes.is_main:
                write_log(out, report.epochs)
                trainer.save(out / CHECKPOINT, [log.model_dump() for log in report.epochs])
                if progress:
                    progress(report.epochs[-1])
        trainer.finish()
    return report


def run_epoch(
    trainer: Trainer,
    crops: TrainingCrops,
    held_out: Sequence[OpenedCase],
    epoch: int,
    on_step: OnStep | None = None,
) -> EpochLog:
    """Train for one epoch and, when it is due, score the validation cases."""
    settings, started = trainer.settings, time.monotonic()
    loss = trainer.train_epoch(crops, epoch, on_step if trainer.world.is_main else None)
    looks = held_out and ((epoch + 1) % settings.validate_every == 0 or epoch + 1 == settings.epochs)
    dice = trainer.validate(held_out) if looks else [math.nan] * VALIDATION_CLICKS
    return EpochLog(
        epoch=epoch,
        loss=loss,
        dice_1=dice[0],
        dice_3=dice[-1],
        learning_rate=trainer.learning_rate,
        seconds=time.monotonic() - started,
    )


def is_patience_over(epochs: Sequence[EpochLog], patience: int | None) -> bool:
    """Return whether Dice after one click has not risen in the last `patience` validations."""
    scores = [log.dice_1 for log in epochs if not math.isnan(log.dice_1)]
    return patience is not None and len(scores) > patience and max(scores[-patience:]) <= max(scores[:-patience])


def open_cases(
    cases: Sequence[TrainingCase], intensity: IntensityRule, report: TrainReport, max_bytes: int = sys.maxsize
) -> tuple[OpenedCases, list[float]]:
    """Open the usable cases, as far as they fit in memory, with their weights; the report lists the skipped ones."""
    opened, usable = OpenedCases(cases, intensity, max_bytes), []
    for index, case in enumerate(cases):
        try:
            opened[index]
            usable.append(case)
        except VolumeError as error:
            report.skipped[case.name] = str(error)
    opened.cases = usable
    return opened, [case.weight for case in usable]


def bytes_for_cases(settings: TrainSettings, left: int | None) -> int:
    """Return the memory for cases of one split in one process, bytes; validation and each worker get the same.

    Args:
        settings: How to train.
        left: Memory for all of them together, bytes; None if unknown.
    """
    if settings.cases_mb != "auto":
        return settings.cases_mb * 2**20
    return sys.maxsize if left is None else left // (2 + settings.workers)
