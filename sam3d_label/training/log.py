"""The log of a training run: a line for each epoch, in a table and as a chart."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sam3d_label.io import replacing
from sam3d_label.training.files import CURVES, LOG

LINE = "epoch log "


@dataclass(frozen=True)
class EpochLog:
    """One line of the log: mean training loss, mean Dice on the validation cases (NaN where not looked at)."""

    epoch: int
    loss: float
    dice_1: float
    dice_3: float
    learning_rate: float
    seconds: float

    def as_line(self) -> str:
        """For a program that reads along."""
        return LINE + json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> EpochLog | None:
        """The inverse of `as_line`; None for any other line."""
        return cls(**json.loads(line.removeprefix(LINE))) if line.startswith(LINE) else None


def describe(log: EpochLog, epochs: int) -> str:
    """One line of the log for people."""
    dice = "" if math.isnan(log.dice_1) else f"  Dice@1 {log.dice_1:.3f}  Dice@3 {log.dice_3:.3f}"
    return f"epoch {log.epoch + 1}/{epochs}  loss {log.loss:.4f}{dice}  {log.seconds:.0f} s"


def write_log(out: Path, epochs: Sequence[EpochLog]) -> None:
    """Write the log and its plot."""
    with replacing(out / LOG) as beside, beside.open("w", newline="") as file:
        table = csv.DictWriter(file, list(EpochLog.__dataclass_fields__))
        table.writeheader()
        table.writerows(asdict(log) for log in epochs)
    with replacing(out / CURVES) as beside:
        plot_log(epochs, beside)


def plot_log(epochs: Sequence[EpochLog], path: Path) -> None:
    """Draw training loss and validation Dice over epochs into a PNG file."""
    from matplotlib.figure import Figure  # takes a second

    figure = Figure(figsize=(8, 3.2), layout="constrained", dpi=120)
    loss, dice = figure.subplots(1, 2)
    at = np.array([log.epoch + 1 for log in epochs])
    loss.plot(at, [log.loss for log in epochs], color="tab:blue")
    loss.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    for clicks, color in ((1, "tab:green"), (3, "tab:orange")):
        scores = np.array([getattr(log, f"dice_{clicks}") for log in epochs])
        looked = ~np.isnan(scores)
        dice.plot(at[looked], scores[looked], marker=".", color=color, label=f"{clicks} click{'s' * (clicks > 1)}")
    dice.set(xlabel="epoch", ylabel="Dice, validation crops", ylim=(0, 1))
    dice.legend(loc="lower right", frameon=False)
    for axes in (loss, dice):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
