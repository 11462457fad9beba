"""Logits of several crops on the stored grid: tiles merged, clicks enforced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sam3d_label.image.frame import CropFrame
from sam3d_label.image.volume import Volume
from sam3d_label.segmentation.prompts import Click

Region = tuple[slice, slice, slice]
Part = tuple[np.ndarray, Region]
"""Logits (I, J, K), float32, and the region of the stored grid that they cover."""

ENFORCED_MM = 2.0
"""Radius around a click that the network did not follow, within which voxels get the click's sign."""

MIN_LOGIT = 0.1
"""Least absolute logit there."""

TAPER = 0.125
"""Share of a tile's edge over which its weight falls to 0."""


def merge_tiles(volume: Volume, base: Part | None, tiles: Sequence[tuple[CropFrame, Tensor]]) -> Part:
    """Merge tiles (D, H, W) over a base; towards its faces, a tile fades into its neighbours and the base.

    Args:
        volume: The volume that they show.
        base: Logits under the tiles; None for 0 on the whole stored grid.
        tiles: Each frame, and its logits.
    """
    whole: Region = (slice(0, volume.shape[0]), slice(0, volume.shape[1]), slice(0, volume.shape[2]))
    under, region = base or (np.zeros(volume.shape, np.float32), whole)
    if not tiles:
        return under, region
    total, weight = np.zeros_like(under), np.zeros_like(under)
    for frame, logit in tiles:
        ramp = taper(frame.size)
        values, place = volume.uncrop(logit, frame)
        share, _ = volume.uncrop(ramp, frame)
        there, here = overlap(region, place)
        total[there] += (share * values)[here]
        weight[there] += share[here]
    rest = np.maximum(1 - weight, 0)
    return (total + rest * under) / (weight + rest), region


def enforce_clicks(part: Part, clicks: Sequence[Click], spacing: np.ndarray) -> None:
    """Give every clicked voxel of a part the sign of its click, in place, where the network did not.

    Voxels within `ENFORCED_MM` of such a click get its sign too, unless a click of the other sign is nearer.

    Args:
        part: Logits, and their region.
        clicks: All clicks.
        spacing: mm along I, J, K.
    """
    logit, region = part
    lower = np.array([along.start for along in region])
    reach = np.ceil(ENFORCED_MM / spacing).astype(int)
    for click in clicks:
        at = np.array(click.ijk) - lower
        if ((at < 0) | (at >= logit.shape)).any() or (logit[tuple(at)] > 0) == click.positive:
            continue
        first, last = np.maximum(at - reach, 0), np.minimum(at + reach + 1, logit.shape)
        voxels = np.stack(np.meshgrid(*map(np.arange, first, last), indexing="ij"), -1) + lower
        own = np.linalg.norm((voxels - click.ijk) * spacing, axis=-1)
        goes = own <= ENFORCED_MM
        for other in clicks:
            if other.positive != click.positive:
                goes &= own < np.linalg.norm((voxels - other.ijk) * spacing, axis=-1)
        window = logit[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
        window[goes] = np.maximum(np.abs(window[goes]), MIN_LOGIT) * (1 if click.positive else -1)


def taper(size: int) -> Tensor:
    """Return the weights (size, size, size) of a tile: 1, falling to 0 towards its faces."""
    along = torch.arange(size) + 0.5
    ramp = (torch.minimum(along, size - along) / (TAPER * size)).clamp(max=1)
    return torch.einsum("d,h,w->dhw", ramp, ramp, ramp)


def overlap(first: Region, second: Region) -> tuple[Region, Region]:
    """Return the overlap of two regions, counted from the beginning of each."""
    spans = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(first, second, strict=True)]
    in_first = [slice(lo - a.start, max(hi, lo) - a.start) for (lo, hi), a in zip(spans, first, strict=True)]
    in_second = [slice(lo - b.start, max(hi, lo) - b.start) for (lo, hi), b in zip(spans, second, strict=True)]
    return (in_first[0], in_first[1], in_first[2]), (in_second[0], in_second[1], in_second[2])
