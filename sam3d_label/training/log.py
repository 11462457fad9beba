"""The log of a training run: a line for each epoch, in a table and as a chart."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sam3d_label.charts import AMBER, TEAL, add_legend, new_chart
from sam3d_label.io import replacing
from sam3d_label.training.files import CURVES, LOG


class EpochLog(BaseModel):
    """One line of the log: mean training loss, mean Dice on the validation cases (NaN where not looked at)."""

    model_config = ConfigDict(extra="ignore", frozen=True, ser_json_inf_nan="constants")
    epoch: int
    loss: float
    dice_1: float
    dice_3: float
    learning_rate: float
    seconds: float


def describe(log: EpochLog, epochs: int) -> str:
    """Format one line of the log for people."""
    dice = "" if math.isnan(log.dice_1) else f"  Dice@1 {log.dice_1:.3f}  Dice@3 {log.dice_3:.3f}"
    return f"epoch {log.epoch + 1}/{epochs}  loss {log.loss:.4f}{dice}  {log.seconds:.0f} s"


def write_log(out: Path, epochs: Sequence[EpochLog]) -> None:
    """Write the log and its plot."""
    with replacing(out / LOG) as partial, partial.open("w", newline="") as file:
        table = csv.DictWriter(file, list(EpochLog.model_fields))
        table.writeheader()
        table.writerows(log.model_dump() for log in epochs)
    with replacing(out / CURVES) as partial:
        plot_log(epochs, partial)


def plot_log(epochs: Sequence[EpochLog], path: Path) -> None:
    """Draw training loss and validation Dice over epochs into a PNG file."""
    figure, (loss, dice) = new_chart(2)
    loss.plot([log.epoch + 1 for log in epochs], [log.loss for log in epochs], color=TEAL)
    loss.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    validated = [log for log in epochs if not math.isnan(log.dice_1)]
    at = [log.epoch + 1 for log in validated]
    dice.plot(at, [log.dice_1 for log in validated], marker=".", color=TEAL, label="1 click")
    dice.plot(at, [log.dice_3 for log in validated], marker=".", color=AMBER, label="3 clicks")
    dice.set(xlabel="epoch", ylabel="Dice, validation crops", ylim=(0, 1))
    add_legend(dice)
    figure.savefig(path)
