"""How a training run went, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from sam3d_label.training.fine_tune import EpochLog


def plot_log(epochs: Sequence[EpochLog], path: Path) -> None:
    """Draw training loss and validation Dice over epochs into a PNG file."""
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
