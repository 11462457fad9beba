"""The source of crops: an image, its targets and their positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

VOXELS_KEPT = 48
"""Voxels of each target that a crop may be placed on."""


@dataclass
class Target:
    """One structure of a label.

    Attributes:
        lower: First voxel along each axis.
        upper: Last voxel along each axis.
        voxels: Some of its voxels, (n, 3).
    """

    lower: np.ndarray
    upper: np.ndarray
    voxels: np.ndarray


@dataclass
class Source:
    """An image with its targets.

    Attributes:
        pool: Kind of training case; see `train.SHARES`.
        image: uint8, axes S, P, L; 0 and 255 are the ends of the intensity rule's window.
        label: uint8, the same axes; structures by value.
        spacing: mm along these axes.
        norm: Lower and upper end, mean and deviation of the intensity rule.
        targets: The structures, by value.
    """

    pool: str
    image: np.ndarray
    label: np.ndarray
    spacing: np.ndarray
    norm: tuple[float, float, float, float]
    targets: dict[int, Target]


def find_targets(label: np.ndarray, rng: np.random.Generator, fewest: int = 1) -> dict[int, Target]:
    """Return the structures of a label (uint8) that have at least the required number of voxels."""
    found = {}
    for value, box in enumerate(ndimage.find_objects(label), start=1):
        if box is None:
            continue
        voxels = np.argwhere(label[box] == value)
        if len(voxels) < max(fewest, 1):
            continue
        lower = np.array([along.start for along in box])
        kept = voxels[rng.integers(len(voxels), size=VOXELS_KEPT)] + lower
        found[value] = Target(lower, lower + voxels.max(0), kept)
    return found
