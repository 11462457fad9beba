"""A mask's border drawn to the edges of the image, by a guided filter."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

RADIUS = 5
"""Voxels of a crop by which a window reaches beyond its middle."""

SOFTNESS = 0.05
"""Variance of the normalized image below which a window counts as flat."""

SUREST = 1e-4
"""Closest that a filtered probability comes to 0 or 1."""


def follow_edges(logit: Tensor, image: Tensor) -> Tensor:
    """Let a logit follow the image, where the image has edges, and be smooth, where it has none.

    In each window the probability is fitted by a linear function of the image: He, Sun, Tang, Guided Image Filtering
    (2013), doi 10.1109/TPAMI.2012.213. The decoder sees an edge to within a few voxels; the image knows it better.

    Args:
        logit: (D, H, W), a cube.
        image: The normalized crop that it belongs to, (D, H, W).

    Returns:
        Logit, (D, H, W).
    """
    probability = logit.sigmoid()
    image_mean, mean = windows(image), windows(probability)
    variance = windows(image * image) - image_mean**2
    slope = (windows(image * probability) - image_mean * mean) / (variance.clamp(min=0) + SOFTNESS)
    fitted = windows(slope) * image + windows(mean - slope * image_mean)
    return torch.logit(fitted, SUREST)


def windows(values: Tensor) -> Tensor:
    """Mean over the window around each voxel of a cube, as three matrix products."""
    size = values.shape[-1]
    means = _means(size).to(values)
    values = means @ (values @ means.T)
    return (means @ values.reshape(size, -1)).reshape(values.shape)


@lru_cache(maxsize=8)
def _means(size: int) -> Tensor:
    """Weights (size, size) that take the mean of a window, cut off at the ends."""
    along = torch.arange(size)
    inside = ((along[:, None] - along).abs() <= RADIUS).float()
    return inside / inside.sum(1, keepdim=True)
