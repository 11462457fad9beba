"""A training run from two folders to weights: what the command line does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from sam3d_label.training.dataset import TrainingCase, pair_cases
from sam3d_label.training.export import store
from sam3d_label.training.fine_tune import fine_tune
from sam3d_label.training.log import describe
from sam3d_label.training.run import TrainingRun
from sam3d_label.training.settings import TrainSettings
from sam3d_label.training.split import hash_position
from sam3d_label.weights import Card, DataSource, Weights


def train_folder(
    start: Weights,
    images: Path,
    labels: Path,
    out: Path,
    *,
    value: int | None = None,
    epochs: int = 20,
    resume: bool = False,
    validation_share: float = 0.2,
    seed: int = 0,
    device: str = "cpu",
    console: Console | None = None,
    show: Callable[[str, int, int], None] = lambda item, done, total: None,
) -> Card:
    """Fine-tune weights on the cases of two folders and store the result.

    Args:
        start: The weights to start from; their network is trained in place.
        images: Folder of volumes.
        labels: Folder of labels with the images' names.
        out: Folder to write to.
        value: Value of the target in the labels; None for any but 0.
        epochs: Epochs to train.
        resume: Go on from the checkpoint in `out`.
        validation_share: Share of the cases, chosen by name, that are scored and never trained on.
        seed: Fixes every random choice.
        device: Where to train.
        console: Where each epoch is printed.
        show: Called after each step with the step's name, the number of steps done and of all steps.

    Returns:
        Card of the new weights.

    Raises:
        Sam3dError: A folder is missing, or no case is usable.
        WeightsError: The checkpoint to resume from is missing or does not fit, or a file cannot be written.
    """
    cases = [replace(case, value=value, salient=True) for case in pair_cases(images, labels)]
    training, validation = split(cases, validation_share)
    from_nothing = start.card.base.sha256 is None and not start.card.capabilities
    if from_nothing:
        settings = TrainSettings(epochs=epochs, seed=seed, trunk=True)
    else:
        settings = TrainSettings.few_cases(len(training), start.card, epochs=epochs, seed=seed)
    console = console or Console(quiet=True)

    console.print(f"{len(training)} cases train, {len(validation)} are held out", highlight=False)
    report = fine_tune(
        start.model,
        TrainingRun(
            cases=training,
            validation=validation,
            intensity=start.card.intensity,
            settings=settings,
            device=device,
            resume=resume,
        ),
        out,
        progress=lambda log: console.print(describe(log, epochs), highlight=False),
        on_step=lambda epoch, step, steps: show(
            f"epoch {epoch + 1}/{epochs}, step {step}/{steps}", epoch * steps + step, epochs * steps
        ),
    )
    console.print(f"memory: {report.memory}", highlight=False, markup=False, soft_wrap=True)
    for name, reason in report.skipped.items():
        console.print(f"skipped {name}: {reason}", highlight=False, markup=False, soft_wrap=True)
    data = [DataSource(name=str(images.resolve().name), licence="not stated", cases=len(report.trained))]
    last = report.epochs[-1]
    metrics = {"validation_crops": {"dice_1": last.dice_1, "dice_3": last.dice_3}} if report.validated else {}
    version = out.resolve().name
    return store(
        start.model,
        start.card,
        out,
        report=report,
        settings=settings,
        data=data,
        version=version,
        metrics=metrics,
    )


def split(cases: Sequence[TrainingCase], share: float) -> tuple[list[TrainingCase], list[TrainingCase]]:
    """Split cases into training and validation by a hash of their names, so that a case never changes its split."""
    held_out = [case for case in cases if hash_position(case.name) < share]
    training = [case for case in cases if case not in held_out]
    return (training, held_out) if training else (held_out, [])
