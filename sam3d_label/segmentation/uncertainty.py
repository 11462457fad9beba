"""Uncertainty of a mask under perturbed prompts, and the voxel where the next click helps most."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sam3d_label.masks import CORNERS, deepest_voxel, largest_component
from sam3d_label.segmentation.prompts import Box, Click, Ijk, Prompts

DRAWS = 8
"""Times that the prompts are perturbed."""

SLIP_MM = 3.0
"""Standard deviation of the offset of a perturbed click."""

LEAST = 0.1
"""Uncertainty below which no further click is suggested."""


@dataclass(frozen=True)
class UncertaintyMap:
    """Disagreement of masks under perturbed prompts.

    Attributes:
        map: Twice the standard deviation of the probability, float32 (I, J, K) on the stored grid, 0 to 1.
        next_click: The voxel i, j, k where a click would help most; None when the masks agree.
        seconds: Time that it took.
        model_version: Version of the weights.
    """

    map: np.ndarray
    next_click: Ijk | None
    seconds: float
    model_version: str


def perturb(prompts: Prompts, shape: Ijk, spacing: np.ndarray) -> list[Prompts]:
    """Return perturbed prompts: shifted clicks, one click left out, looser boxes.

    The first click inside, the initial prompt, stays the first; the order of the others has no effect.
    """
    first = prompts.positive[:1]
    others = [click for click in prompts.clicks if click not in first]
    clicks = [*first, *sorted(others, key=lambda click: (click.ijk, click.positive))]
    rng = np.random.default_rng(zlib.crc32(repr((clicks, prompts.boxes)).encode()))
    drawn = []
    for index in range(DRAWS):
        moved = [replace(click, ijk=_shift_click(click.ijk, shape, spacing, rng)) for click in clicks]
        boxes = tuple(_loosen_box(box, shape, rng) for box in prompts.boxes)
        left_out = moved[index % len(moved)] if index % 2 and len(moved) > 1 else None
        kept = tuple(click for click in moved if click is not left_out)
        marks_target = boxes or any(click.positive for click in kept)
        drawn.append(Prompts(kept if marks_target else tuple(moved), boxes))
    return drawn


def next_click(map_: np.ndarray, spacing: np.ndarray, clicks: Sequence[Click]) -> Ijk | None:
    """Return the middle of the region that holds the most uncertainty, never a voxel clicked already.

    Args:
        map_: Uncertainty, (I, J, K).
        spacing: mm along I, J, K.
        clicks: The clicks given so far.
    """
    if map_.max() < LEAST:
        return None
    unsure = map_ >= map_.max() / 2
    for click in clicks:
        unsure[click.ijk] = False
    return deepest_voxel(largest_component(unsure, CORNERS, weight=map_), spacing)


def _shift_click(ijk: Ijk, shape: Ijk, spacing: np.ndarray, rng: np.random.Generator) -> Ijk:
    at = np.rint(np.array(ijk) + rng.normal(0, SLIP_MM, 3) / spacing).astype(int)
    i, j, k = np.clip(at, 0, np.array(shape) - 1).tolist()
    return i, j, k


def _loosen_box(box: Box, shape: Ijk, rng: np.random.Generator) -> Box:
    lower, upper = np.array(box.lower), np.array(box.upper)
    slack = 0.1 * (upper - lower + 1)
    lower = np.clip(np.rint(lower + rng.uniform(-slack, slack / 2)), 0, np.array(shape) - 1)
    upper = np.clip(np.rint(upper + rng.uniform(-slack / 2, slack)), lower, np.array(shape) - 1)
    pairs = np.stack([lower, upper], 1).astype(int).ravel().tolist()
    return Box.from_pairs(pairs)
