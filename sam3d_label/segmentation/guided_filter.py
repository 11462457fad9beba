"""Move a mask's border to the edges of the image by a guided filter; our own, as those of libraries are 2D."""

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
"""Least difference of a filtered probability from 0 and from 1."""


def follow_edges(logit: Tensor, image: Tensor) -> Tensor:
    """Return a logit that follows the edges of the image and is smooth where there are none.

    In each window the probability is fitted by a linear function of the image: He, Sun, Tang, Guided Image Filtering
    (2013), doi 10.1109/TPAMI.2012.213. The border of the decoder is accurate to a few voxels only. The
    filter runs in the part of the crop into which the mask can grow; the rest keeps its logit.

    Args:
        logit: (D, H, W), a cube.
        image: The normalized crop that it belongs to, (D, H, W).

    Returns:
        Logit, (D, H, W).
    """
    mask = logit > 0
    radius = min(round(SHARE * thickness(mask)), MOST)
    if radius < 1:
        return logit
    changes = box_around(mask, radius)
    seen = box_around(mask, 3 * radius)
    filtered = logit.clone()
    inner = tuple(slice(c.start - s.start, c.stop - s.start) for c, s in zip(changes, seen, strict=True))
    filtered[changes] = guided_logit(logit[seen], image[seen], radius)[inner]
    return filtered


def guided_logit(logit: Tensor, image: Tensor, radius: int) -> Tensor:
    """Return a logit (D, H, W), filtered with the image (D, H, W) in windows of a radius."""

    def window(values: Tensor) -> Tensor:
        return windows(values, radius)

    probability = logit.sigmoid()
    image_mean, mean = window(image), window(probability)
    variance = window(image * image) - image_mean**2
    slope = (window(image * probability) - image_mean * mean) / (variance.clamp(min=0) + SOFTNESS)
    fitted = window(slope) * image + window(mean - slope * image_mean)
    return torch.logit(fitted, SUREST)


def box_around(mask: Tensor, margin: int) -> tuple[slice, slice, slice]:
    """Return the box around a mask (D, H, W) of at least one voxel, widened by a margin; its ends may be outside."""
    flat = mask.any(2)
    spans = [torch.nonzero(along)[:, 0] for along in (flat.any(1), flat.any(0), mask.any(1).any(0))]
    d, h, w = (slice(max(0, int(s[0]) - margin), int(s[-1]) + margin + 1) for s in spans)
    return d, h, w


def thickness(mask: Tensor) -> float:
    """Return the mean depth of a mask (D, H, W) behind its largest silhouette, voxels; 0 for an empty one."""
    largest = max(int(mask.any(axis).sum()) for axis in range(3))
    return int(mask.sum()) / largest if largest else 0.0


def windows(values: Tensor, radius: int) -> Tensor:
    """Return the mean over the window of a radius around each voxel (D, H, W), as three matrix products."""
    depth, height, width = (_means(size, radius).to(values) for size in values.shape)
    values = height @ (values @ width.T)
    return (depth @ values.flatten(1)).view_as(values)


@lru_cache(maxsize=16)
def _means(size: int, radius: int) -> Tensor:
    """Return weights (size, size) that take the mean of a window, cut off at the ends."""
    along = torch.arange(size)
    inside = ((along[:, None] - along).abs() <= radius).float()
    return inside / inside.sum(1, keepdim=True)
