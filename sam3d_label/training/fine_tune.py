"""The one training loop: interactive rounds on crops, a checkpoint after each epoch."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.utils import set_determinism
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from sam3d_label.errors import Sam3dError, VolumeError, WeightsError
from sam3d_label.files import replacing
from sam3d_label.intensity import IntensityRule
from sam3d_label.network import SAM3D
from sam3d_label.training.crops import ALONE, IMAGE, LABEL, Case, OpenedCase, Reader, TrainingCrops
from sam3d_label.training.interaction import train_rounds, validation_dice
from sam3d_label.training.plots import plot_log
from sam3d_label.training.settings import TrainSettings

CHECKPOINT = "checkpoint.pt"
LOG = "log.csv"
CURVES = "curves.png"
VALIDATION_CLICKS = 3
VALIDATION_FILL = 0.5


@dataclass(frozen=True)
class EpochLog:
    """One line of the log: mean training loss, mean Dice on the validation cases (NaN where not looked at)."""

    epoch: int
    loss: float
    dice_1: float
    dice_3: float
    learning_rate: float
    seconds: float


def describe(log: EpochLog, epochs: int) -> str:
    """One line of the log for people."""
    dice = "" if math.isnan(log.dice_1) else f"  Dice@1 {log.dice_1:.3f}  Dice@3 {log.dice_3:.3f}"
    return f"epoch {log.epoch + 1}/{epochs}  loss {log.loss:.4f}{dice}  {log.seconds:.0f} s"


@dataclass
class TrainReport:
    """What a training run did.

    Attributes:
        epochs: Its log, an entry an epoch, those of an interrupted run that it resumed included.
        trained: Names of the cases that trained.
        validated: Names of the cases that were looked at only.
        skipped: Cases left out, and why.
        alone: Among the cases that trained were targets that can be told without a prompt.
    """

    epochs: list[EpochLog] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)
    validated: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    alone: bool = False


def fine_tune(
    model: SAM3D,
    cases: Sequence[Case],
    out: Path,
    *,
    intensity: IntensityRule,
    validation: Sequence[Case] = (),
    settings: TrainSettings | None = None,
    device: str = "cpu",
    resume: bool = False,
    progress: Callable[[EpochLog], None] | None = None,
) -> TrainReport:
    """Train a model in place on annotated cases.

    Each step encodes one crop and decodes it for every round of a simulated session, in which the annotator clicks
    on the current error; the loss is the mean of Dice and cross-entropy over the rounds.

    Args:
        model: The network; its adapted part trains, its trunk only with `settings.trunk`.
        cases: Cases to train on. Unusable ones are skipped and reported.
        out: Folder for the checkpoint, the log and its plot.
        intensity: How the weights want intensities.
        validation: Cases that are scored and never trained on.
        settings: How to train.
        device: Where to train.
        resume: Go on from the checkpoint in `out`, with the same result as an uninterrupted run.
        progress: Called after each epoch.

    Returns:
        What happened. The caller stores the weights.

    Raises:
        VolumeError: No case is usable.
        WeightsError: The checkpoint to resume from is missing or does not fit, or none can be written.
        Sam3dError: The loss is no longer finite.
    """
    settings = settings or TrainSettings()
    out.mkdir(parents=True, exist_ok=True)
    report = TrainReport()
    training, weights = open_cases(cases, intensity, report)
    if not training:
        raise VolumeError(f"none of {len(cases)} cases can train: {report.skipped}")
    held_out, _ = open_cases(validation, intensity, report)
    report.trained = [case.name for case in training]
    report.alone = any(case.alone for case in training)
    report.validated = [case.name for case in held_out]
    crops = TrainingCrops(
        training, weights, size=model.config.crop, length=settings.steps_per_epoch, seed=settings.seed
    )
    run = Run(model.to(device), settings, torch.device(device))
    if resume:
        report.epochs = run.restore(out / CHECKPOINT)
    for epoch in range(len(report.epochs), settings.epochs):
        started = time.monotonic()
        loss = run.train_epoch(crops, epoch)
        looked = (epoch + 1) % settings.validate_every == 0 or epoch + 1 == settings.epochs
        with run.averaged():
            dice = run.validate(held_out) if looked and held_out else [math.nan] * VALIDATION_CLICKS
        log = EpochLog(epoch, loss, dice[0], dice[-1], run.learning_rate, time.monotonic() - started)
        report.epochs.append(log)
        write_log(out, report.epochs)
        run.save(out / CHECKPOINT, report.epochs)
        if progress:
            progress(log)
    run.keep_average()
    return report


def open_cases(
    cases: Sequence[Case], intensity: IntensityRule, report: TrainReport
) -> tuple[list[OpenedCase], list[float]]:
    """The usable cases in memory and their weights; the report says why the others were skipped."""
    opened, weights = [], []
    read = Reader(intensity)
    for case in cases:
        try:
            opened.append(read(case))
            weights.append(case.weight)
        except VolumeError as error:
            report.skipped[case.name] = str(error)
    return opened, weights


class Run:
    """Everything that a training run changes as it goes on: weights, optimizer, schedule.

    Args:
        model: The network, already on the device.
        settings: How to train.
        device: Where to train.
    """

    def __init__(self, model: SAM3D, settings: TrainSettings, device: torch.device) -> None:
        set_determinism(seed=settings.seed)
        self.model, self.settings, self.device = model, settings, device
        model.checkpoint_activations(settings.activation_checkpointing)
        model.requires_grad_(True)
        if not settings.trunk:
            model.freeze_trunk()
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.trained.values(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, settings.learning_rate_factor)
        self.average = [p.detach().clone() for p in self.trained.values()]
        self.criterion = DiceCELoss(sigmoid=True, lambda_dice=0.5, lambda_ce=0.5)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def train_epoch(self, crops: TrainingCrops, epoch: int) -> float:
        """Train for one epoch; the mean loss of its rounds."""
        self.model.train()
        crops.epoch = epoch
        losses = []
        loader = DataLoader(crops, batch_size=1, num_workers=self.settings.workers)
        for index, crop in enumerate(loader):
            rng = np.random.default_rng([self.settings.seed, epoch, index, 1])
            image, label, alone = crop[IMAGE].to(self.device), crop[LABEL].to(self.device), bool(crop[ALONE])
            losses.append(self.step(image, label, rng, alone))
        return float(np.mean(losses))

    def step(self, image: Tensor, label: Tensor, rng: np.random.Generator, alone: bool = False) -> float:
        """One optimizer step on a crop (1, 1, D, H, W) and its label; the mean loss of its rounds.

        A crop without any of its target teaches nothing unless the target can be told `alone`.

        Raises:
            Sam3dError: The loss is not finite.
        """
        if not (alone or label.any()):
            return 0.0
        with self.autocast():
            embedding = self.model.encode(image)
            rounds = train_rounds(self.model, embedding, label, self.settings, rng, alone)
            loss = torch.stack([self.criterion(logit, label) for logit in rounds]).mean()
        if not torch.isfinite(loss):
            raise Sam3dError("the loss is no longer finite: lower the learning rate, or train in fp32")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained.values(), self.settings.clip)
        self.optimizer.step()
        self.schedule.step()
        self._update_average()
        return float(loss.detach())

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move the average towards the weights; the first steps, which say little, fade sooner."""
        steps = self.schedule.last_epoch
        decay = min(self.settings.average, (1 + steps) / (10 + steps))
        get_ema_multi_avg_fn(decay)(self.average, list(self.trained.values()), steps)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model with the running average for its weights."""
        current = [p.detach().clone() for p in self.trained.values()]
        self._set_weights(self.average)
        try:
            yield
        finally:
            self._set_weights(current)

    def keep_average(self) -> None:
        """End the run: the model keeps the average."""
        self._set_weights(self.average)
        self.model.eval()

    @torch.no_grad()
    def _set_weights(self, values: Iterable[Tensor]) -> None:
        for parameter, value in zip(self.trained.values(), values, strict=True):
            parameter.copy_(value)

    @torch.no_grad()
    def validate(self, cases: Sequence[OpenedCase]) -> list[float]:
        """Mean Dice after each of `VALIDATION_CLICKS` clicks, on one crop a case that shows its whole target."""
        self.model.eval()
        scores = []
        for case in cases:
            crop = case.crop(case.frame(self.model.config.crop, VALIDATION_FILL, np.zeros(3)))
            with self.autocast():
                embedding = self.model.encode(crop[IMAGE][None].to(self.device))
                truth = crop[LABEL][None].to(self.device)
                scores.append(validation_dice(self.model, embedding, truth, VALIDATION_CLICKS))
        return np.mean(scores, axis=0).tolist()

    def autocast(self) -> torch.autocast:
        """The precision of the forward pass."""
        precision = self.settings.precision
        wanted = computes_bf16(self.device) if precision == "auto" else precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=wanted)

    def save(self, path: Path, epochs: Sequence[EpochLog]) -> None:
        """Write all that `restore` needs, whole or not at all; `WeightsError` when it cannot be written."""
        state = {
            "weights": {name: p.detach() for name, p in self.trained.items()},
            "average": dict(zip(self.trained, self.average, strict=True)),
            "optimizer": self.optimizer.state_dict(),
            "epochs": [asdict(log) for log in epochs],
            "steps": self.schedule.last_epoch,
            "seed": self.settings.seed,
        }
        try:
            with replacing(path) as beside:
                torch.save(state, beside)
        except (OSError, RuntimeError) as error:  # torch tells a full disk by a RuntimeError
            raise WeightsError(f"{path} cannot be written: {error}") from error

    def restore(self, path: Path) -> list[EpochLog]:
        """Go back to a saved state; the log up to it.

        Raises:
            WeightsError: There is no checkpoint, it cannot be read, or it belongs to another run.
        """
        if not path.is_file():
            raise WeightsError(f"{path} does not exist: there is nothing to resume")
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
            weights = state["weights"]
            logs = [EpochLog(**log) for log in state["epochs"]]
        except Exception as error:
            raise WeightsError(f"{path} cannot be read, remove it to start afresh: {error}") from error
        if weights.keys() != self.trained.keys() or state["seed"] != self.settings.seed:
            raise WeightsError(f"{path} belongs to a run with other settings: remove it to start afresh")
        self._set_weights(weights[name] for name in self.trained)
        self.average = [state["average"][name] for name in self.trained]
        self.optimizer.load_state_dict(state["optimizer"])
        steps = state.get("steps", len(logs) * self.settings.steps_per_epoch)
        self.schedule.last_epoch = steps
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * self.settings.learning_rate_factor(steps)
        return logs


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has bf16 arithmetic; a processor without it takes many times as long as in fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def write_log(out: Path, epochs: Sequence[EpochLog]) -> None:
    """Write the log and its plot."""
    with replacing(out / LOG) as beside, beside.open("w", newline="") as file:
        table = csv.DictWriter(file, list(EpochLog.__dataclass_fields__))
        table.writeheader()
        table.writerows(asdict(log) for log in epochs)
    with replacing(out / CURVES) as beside:
        plot_log(epochs, beside)
