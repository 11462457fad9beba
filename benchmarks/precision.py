"""Masks in bf16 compared with masks in fp32, for the same clicks.

    python benchmarks/precision.py IMAGES LABELS [--weights tiny] [--label 1] [--clicks 5]

Clicks are placed at the deepest voxel of the largest error of the fp32 mask, and all are sent again in bf16.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from sam3d_label import Click, Segmenter, Volume, open_weights
from sam3d_label.masks import deepest_voxel, dice, largest_component
from sam3d_label.segmentation.precision import PRECISION
from sam3d_label.weights import Weights


@dataclass(frozen=True)
class Comparison:
    """Masks of the same clicks in both precisions.

    Attributes:
        between: Dice of the two.
        bf16: Dice of the mask in bf16 with the label.
        fp32: Dice of the mask in fp32 with the label.
    """

    between: float
    bf16: float
    fp32: float


def next_click(mask: np.ndarray, truth: np.ndarray, volume: Volume, clicks: list[Click]) -> Click | None:
    """Return a click at the largest error of a mask; None when no voxel is left."""
    missing, extra = largest_component(truth & ~mask), largest_component(mask & ~truth)
    positive = bool(missing.sum() >= extra.sum())
    at = deepest_voxel(missing if positive else extra, volume.spacing, [click.ijk for click in clicks])
    return None if at is None else Click(at, positive=positive)


def segment(volume: Volume, weights: Weights, clicks: list[Click], precision: str) -> np.ndarray:
    """Return the mask of some clicks in a precision, bool (I, J, K)."""
    os.environ[PRECISION] = precision
    return Segmenter(volume, weights).segment(clicks).mask > 0


def session(volume: Volume, truth: np.ndarray, weights: Weights, count: int) -> Iterator[Comparison]:
    """Yield the comparison after each click on one target."""
    clicks: list[Click] = []
    exact = np.zeros_like(truth)
    for _ in range(count):
        click = next_click(exact, truth, volume, clicks)
        if click is None:
            return
        clicks.append(click)
        exact, rough = (segment(volume, weights, clicks, precision) for precision in ("fp32", "bf16"))
        yield Comparison(dice(exact, rough), dice(rough, truth), dice(exact, truth))


def main(
    images: Annotated[Path, typer.Argument(help="Folder of volumes.")],
    labels: Annotated[Path, typer.Argument(help="Folder of labels with the same names.")],
    weights: Annotated[str, typer.Option(help="Name or path of the weights.")] = "tiny",
    label: Annotated[int, typer.Option(help="Value of the target in the labels.")] = 1,
    clicks: Annotated[int, typer.Option(min=1, help="Clicks on each target.")] = 5,
) -> None:
    """Compare masks in bf16 with masks in fp32."""
    opened = open_weights(weights)
    sessions = []
    for path in sorted(images.iterdir()):
        truth = Volume.open(labels / path.name).array == label
        if truth.any():
            sessions.append(list(session(Volume.open(path), truth, opened, clicks)))
    table = Table("clicks", "targets", "Dice of both, mean", "least", "with the label, bf16", "fp32")
    for number in range(clicks):
        found = [each[number] for each in sessions if len(each) > number]
        if found:
            both = [one.between for one in found]
            own = [f"{mean(one.bf16 for one in found):.4f}", f"{mean(one.fp32 for one in found):.4f}"]
            table.add_row(str(number + 1), str(len(found)), f"{mean(both):.4f}", f"{min(both):.4f}", *own)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
