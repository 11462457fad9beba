"""Size of a target, estimated before the network runs: from the image around a click, and from clicks outside.

The mask of one click fills about the same share of its crop whatever the image is, so the first crop must suit the
size of the target.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sam3d_label.network.resize import along_axes

FILL = 0.5
"""Largest share of a crop's edge that a target of known size takes."""

DIFFERENT = 0.35
"""Difference of normalized intensities at which another structure begins."""

LONGEST_OVER_WAY = 3.0
"""Longest edge of a target, at most, over the distance from a click in it to another structure."""

MOST = 0.75
"""Share of the directions in which that distance is shorter: near the border, half of them end immediately."""

TAIL, ROOT_HALF = 4, 0.70710678
"""Radius of the Gaussian of `smooth`, voxels; factor of the argument of its error function."""

RAYS, STEP, REACH = 200, 0.5, 0.25
"""Rays from a click; voxels between two samples; their length as a share of the crop's edge."""


def size_by_appearance(image: Tensor, click: np.ndarray) -> Tensor:
    """Return the size of a structure, voxels, (): how far it is homogeneous in all but a quarter of the directions.

    Args:
        image: The normalized crop, (D, H, W), a cube.
        click: Voxel d, h, w of the crop, (3,).
    """
    size = image.shape[0]
    blurred = smooth(image)[None, None]
    ways = torch.arange(0, REACH * size, STEP)
    points = torch.from_numpy(click).float() + directions()[:, None] * ways[:, None]
    grid = (points / (size - 1) * 2 - 1).flip(-1)[None, None].to(image)
    seen = F.grid_sample(blurred, grid, padding_mode="border", align_corners=True)[0, 0, 0]
    there = seen[:, ways <= 1].median()
    similar = ((seen - there).abs() <= DIFFERENT).cumprod(1).sum(1)
    return LONGEST_OVER_WAY * STEP * similar.float().quantile(MOST)


def smooth(image: Tensor) -> Tensor:
    """Return an image (D, H, W) under a Gaussian with a deviation of one voxel; outside it is 0.

    The values of `monai.networks.layers.GaussianFilter(3, 1.0)`, in a tenth of its time.
    """
    d, h, w = (_gaussian(size).to(image) for size in image.shape)
    return along_axes(image, (d, h, w))


@lru_cache
def _gaussian(size: int) -> Tensor:
    """Return weights (size, size): the share of a Gaussian around each place of a line that is in each other place."""
    along = torch.arange(size)
    offsets = (along - along[:, None]).float()
    weights = 0.5 * (((offsets + 0.5) * ROOT_HALF).erf() - ((offsets - 0.5) * ROOT_HALF).erf())
    return weights * (offsets.abs() <= TAIL)


def size_by_clicks(inside: np.ndarray, outside: np.ndarray, spacing: np.ndarray) -> float:
    """Return an upper bound of a target's size, mm: from the nearest click outside beyond all inside; infinite without.

    A click outside that is nearer than one inside, such as one of the wrong sign, does not bound the target all around.

    Args:
        inside: Stored voxels i, j, k (M, 3), that of the click in the middle first.
        outside: Stored voxels i, j, k (N, 3).
        spacing: mm along I, J, K.
    """
    reached, ways = (np.linalg.norm((clicks - inside[0]) * spacing, axis=1) for clicks in (inside, outside))
    return LONGEST_OVER_WAY * float(ways[ways > reached.max()].min(initial=np.inf))


@lru_cache
def directions() -> Tensor:
    """Return unit vectors (RAYS, 3) spread evenly over a sphere."""
    turn = torch.arange(RAYS) * torch.pi * (1 + 5**0.5)
    height = 1 - 2 * (torch.arange(RAYS) + 0.5) / RAYS
    flat = (1 - height**2).sqrt()
    return torch.stack([turn.cos() * flat, turn.sin() * flat, height], 1)
