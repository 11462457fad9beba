"""Metrics of a mask: overlap, surface agreement, and number of clicks.

Masks are bool, shape (I, J, K), voxels of the stored image. Nothing here knows of files or models.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam3d_label.masks import bounding_box
from sam3d_label.segmentation.prompts import Click

TOLERANCES_MM = (2.0, 5.0)
NOC_TARGETS = (0.80, 0.85, 0.90)
NOC_CAP = 20
LOWERED_BY = 0.01
AUC_CLICKS = 5
_RESAMPLES = 10_000


class ClicksToReach(NamedTuple):
    """Clicks needed for a Dice; ``clicks`` is the cap where ``failed``."""

    clicks: int
    failed: bool


def nsd(
    mask: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing: Sequence[float],
    tolerances: Sequence[float] = TOLERANCES_MM,
) -> tuple[float, ...]:
    """Return the normalised surface Dice: the share of both surfaces within a tolerance of the other one.

    The value of MONAI's ``SurfaceDiceMetric`` with ``use_subvoxels=True``, which agrees with DeepMind's
    implementation, from the same functions; the surface distances are computed once for all tolerances.

    Args:
        mask: shape (I, J, K).
        truth: shape (I, J, K).
        spacing: mm between voxels along I, J, K.
        tolerances: mm.

    Returns:
        One value in [0, 1] for each tolerance. Two empty masks agree (1); one empty mask has no surface to
        agree with (0).
    """
    box = bounding_box(mask | truth)
    if box is None:
        return (1.0,) * len(tolerances)
    if not mask.any() or not truth.any():
        return (0.0,) * len(tolerances)
    (mask_to_truth, truth_to_mask), (mask_areas, truth_areas) = _surfaces(mask[box], truth[box], spacing)
    whole = float(mask_areas.sum() + truth_areas.sum())
    return tuple(
        float(mask_areas[mask_to_truth <= limit].sum() + truth_areas[truth_to_mask <= limit].sum()) / whole
        for limit in tolerances
    )


def noc(dices: Sequence[float], target: float, cap: int = NOC_CAP) -> ClicksToReach:
    """Count the clicks needed to reach a Dice.

    Args:
        dices: after click 1, 2, …
        target: the Dice to reach.
        cap: clicks after which the annotator gives up; a failure counts as this many.
    """
    for clicks, value in enumerate(dices[:cap], start=1):
        if value >= target:
            return ClicksToReach(clicks, failed=False)
    return ClicksToReach(cap, failed=True)


def auc(dices: Sequence[float], clicks: int = AUC_CLICKS) -> float | None:
    """Return the area under Dice over clicks 1 to ``clicks`` (trapezoid) divided by its width; ``None`` with fewer."""
    if len(dices) < clicks:
        return None
    area = sum(dices[:clicks]) - (dices[0] + dices[clicks - 1]) / 2
    return area / (clicks - 1)


def count_lowered(dices: Sequence[float], by: float = LOWERED_BY) -> int:
    """Count the clicks after the first that lower Dice by more than ``by``."""
    return sum(before - after > by for before, after in pairwise(dices))


def count_honoured(mask: NDArray[np.bool_], clicks: Sequence[Click]) -> int:
    """Count the clicked voxels on which the mask agrees with the sign of the click."""
    return sum(bool(mask[click.ijk]) == click.positive for click in clicks)


def median_and_p95(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """Return the median as `name` and the 95th percentile as `name_p95`; None without values."""
    shares = {name: 0.5, f"{name}_p95": 0.95}
    return {key: float(np.quantile(values, share)) if values else None for key, share in shares.items()}


def bootstrap_interval(
    values: Sequence[float], *, level: float = 0.95, seed: int = 0, resamples: int = _RESAMPLES
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean.

    Args:
        values: one for each case; at least one.
        level: probability inside the interval.
        seed: of the resampling; the same values and seed give the same interval.
        resamples: how many means are drawn.
    """
    sample = np.asarray(values, float)
    if sample.size == 0:
        return (math.nan, math.nan)
    drawn = np.random.default_rng(seed).integers(sample.size, size=(resamples, sample.size))
    low, high = np.quantile(sample[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return (float(low), float(high))


_Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


def _surfaces(mask: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float]) -> tuple[_Pair, _Pair]:
    """Return distance to the other surface, mm, and area, mm², of every surface element of mask and truth."""
    import torch
    from monai.metrics.utils import get_edge_surface_distance

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy")  # MONAI's own call of itself
        pairs = get_edge_surface_distance(
            torch.from_numpy(np.ascontiguousarray(mask)),
            torch.from_numpy(np.ascontiguousarray(truth)),
            spacing=[float(side) for side in spacing],
            use_subvoxels=True,
            symmetric=True,
        )
    edges, distances, areas = map(list, pairs)  # of mask and truth
    return (
        (distances[0].numpy(), distances[1].numpy()),
        (areas[0][edges[0]].numpy(), areas[1][edges[1]].numpy()),
    )
