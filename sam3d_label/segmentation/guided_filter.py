"""Move a mask's border to the edges of the image by a guided filter."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

SHARE, MOST = 1 / 4, 7
"""Radius of a window as a share of the mask's thickness, and its maximum in crop voxels. A window as wide as a thin
structure would smooth it away."""

SOFTNESS = 0.05
"""Variance of the normalized image below which a window counts as flat."""

SUREST = 1e-4
"""Closest that a filtered probability comes to 0 or 1."""


def follow_edges(logit: Tensor, image: Tensor) -> Tensor:
    """Move the border of a logit to the edges of the image, and smooth it where the image has none.

    In each window the probability is fitted by a linear function of the image: He, Sun, Tang, Guided Image Filtering
    (2013), doi 10.1109/TPAMI.2012.213. The decoder locates an edge to within a few voxels; the image is more accurate.

    Args:
        logit: (D, H, W), a cube.
        image: The normalized crop that it belongs to, (D, H, W).

    Returns:
        Logit, (D, H, W).
    """
    radius = min(round(SHARE * thickness(logit > 0)), MOST)
    if radius < 1:
        return logit

    def window(values: Tensor) -> Tensor:
        return windows(values, radius)

    probability = logit.sigmoid()
    image_mean, mean = window(image), window(probability)
    variance = window(image * image) - image_mean**2
    slope = (window(image * probability) - image_mean * mean) / (variance.clamp(min=0) + SOFTNESS)
    fitted = window(slope) * image + window(mean - slope * image_mean)
    return torch.logit(fitted, SUREST)


def thickness(mask: Tensor) -> float:
    """Return the mean depth of a mask (D, H, W) behind its largest silhouette, voxels; 0 for an empty one."""
    largest = max(int(mask.any(axis).sum()) for axis in range(3))
    return int(mask.sum()) / largest if largest else 0.0


def windows(values: Tensor, radius: int) -> Tensor:
    """Return the mean over the window of a radius around each voxel of a cube, as three matrix products."""
    size = values.shape[-1]
    means = _means(size, radius).to(values)
    values = means @ (values @ means.T)
    return (means @ values.reshape(size, -1)).reshape(values.shape)


@lru_cache(maxsize=16)
def _means(size: int, radius: int) -> Tensor:
    """Return weights (size, size) that take the mean of a window, cut off at the ends."""
    along = torch.arange(size)
    inside = ((along[:, None] - along).abs() <= radius).float()
    return inside / inside.sum(1, keepdim=True)
