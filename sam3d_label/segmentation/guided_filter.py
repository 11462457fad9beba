"""Move a mask's border to the edges of the image by a guided filter; our own, as those of libraries are 2D."""

from __future__ import annotations

import torch
from torch import Tensor

from sam3d_label.image.extent import silhouettes, spans
from sam3d_label.network.box_mean import box_mean

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
    mask = (logit > 0).contiguous()
    radius = min(round(SHARE * thickness(mask)), MOST)
    if radius < 1:
        return logit
    changes = box_around(mask, radius)
    seen = box_around(mask, 3 * radius)
    filtered = logit.clone()
    inner = tuple(slice(c.start - s.start, c.stop - s.start) for c, s in zip(changes, seen, strict=True))
    filtered[changes] = guided_logit(logit[seen].contiguous(), image[seen].contiguous(), radius)[inner]
    return filtered


def guided_logit(logit: Tensor, image: Tensor, radius: int) -> Tensor:
    """Return a logit (D, H, W), filtered with the image (D, H, W) in windows of a radius."""

    def window(values: Tensor) -> Tensor:
        return box_mean(values, radius)

    probability = logit.sigmoid()
    image_mean, mean = window(image), window(probability)
    variance = window(image * image) - image_mean**2
    slope = (window(image * probability) - image_mean * mean) / (variance.clamp(min=0) + SOFTNESS)
    fitted = window(slope) * image + window(mean - slope * image_mean)
    return torch.logit(fitted, SUREST)


def box_around(mask: Tensor, margin: int) -> tuple[slice, slice, slice]:
    """Return the box around a mask (D, H, W) of at least one voxel, widened by a margin; its ends may be outside."""
    box = spans(mask)
    assert box is not None
    d, h, w = (slice(max(0, along.start - margin), along.stop + margin) for along in box)
    return d, h, w


def thickness(mask: Tensor) -> float:
    """Return the mean depth of a mask (D, H, W) behind its largest silhouette, voxels; 0 for an empty one."""
    largest = max(int(shadow.sum()) for shadow in silhouettes(mask))
    return int(mask.sum()) / largest if largest else 0.0
