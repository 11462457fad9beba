"""Logits of several crops on the stored grid: tiles merged, clicks enforced.

Our own instead of MONAI's `sliding_window_inference`, which merges windows of one size on a regular grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sam3d_label.image.frame import CropFrame
from sam3d_label.image.region import Region, around, intersection, relative, shape_of, union, whole
from sam3d_label.image.resample import region_of_crop, region_of_mask
from sam3d_label.image.volume import Volume
from sam3d_label.segmentation.outside_air import OutsideAir
from sam3d_label.segmentation.prompts import Click

Layer = tuple[CropFrame, Tensor]
"""A crop and its logits (D, H, W)."""

Part = tuple[np.ndarray, Region]
"""Logits (I, J, K), float32, and the region of the stored grid that they cover."""

ENFORCED_MM = 2.0
"""Radius around a click that the network did not follow, within which voxels get the click's sign."""

MIN_LOGIT = 0.1
"""Least absolute logit there."""

TAPER = 0.125
"""Share of a tile's edge over which its weight falls to 0."""


@dataclass(frozen=True)
class TargetLogits:
    """Logits of one target, computed for any region of the stored grid.

    Towards its faces, a tile fades into its neighbours and the base. Clicked voxels have the sign of their click
    (`enforce_clicks`).

    Attributes:
        volume: The volume.
        base: The crop under the tiles; None for 0 on the whole stored grid.
        tiles: Further crops.
        clicks: All clicks.
        air: Air outside the body, which is not in the target; None where it may be.
    """

    volume: Volume
    base: Layer | None
    tiles: tuple[Layer, ...] = ()
    clicks: tuple[Click, ...] = ()
    air: OutsideAir | None = None

    @cached_property
    def region(self) -> Region:
        """The region that the logits cover."""
        if self.base is None:
            return whole(self.volume.shape)
        return region_of_crop(self.base[0], self.volume.shape)

    def mask_region(self) -> Region | None:
        """Return a region that has all voxels with a positive logit; None when there are none."""
        shape, spacing = self.volume.shape, self.volume.spacing
        layers = [*self.tiles, *([self.base] if self.base else [])]
        masks = [region_of_mask(logit > 0, frame, shape, spacing) for frame, logit in layers]
        clicked = [around(click.ijk, reach_of_click(spacing), shape) for click in self.clicks if click.positive]
        found = union([region for region in [*masks, *clicked] if region])
        return intersection(self.region, found) if found else None

    def read(self, within: Region | None = None) -> Part:
        """Return the logits of a region of the stored grid; of all that they cover without one."""
        logit, region = self._merged(within or self.region)
        if self.air:
            np.minimum(logit, -MIN_LOGIT, out=logit, where=self.air.within(region))
        enforce_clicks((logit, region), self.clicks, self.volume.spacing)
        return logit, region

    def _merged(self, region: Region) -> Part:
        if self.base is None:
            under = np.zeros(shape_of(region), np.float32)
        else:
            under, region = self.volume.uncrop(self.base[1], self.base[0], region)
        if not self.tiles:
            return under, region
        total, weight = np.zeros_like(under), np.zeros_like(under)
        for frame, logit in self.tiles:
            values, place = self.volume.uncrop(logit, frame, region)
            share, _ = self.volume.uncrop(taper(frame.size), frame, region)
            there = relative(place, region)
            total[there] += share * values
            weight[there] += share
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
    reach = reach_of_click(spacing)
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


def reach_of_click(spacing: np.ndarray) -> np.ndarray:
    """Return `ENFORCED_MM` in voxels along each axis, rounded up."""
    return np.ceil(ENFORCED_MM / spacing).astype(int)


def taper(size: int) -> Tensor:
    """Return the weights (size, size, size) of a tile: 1, falling to 0 towards its faces."""
    along = torch.arange(size) + 0.5
    ramp = (torch.minimum(along, size - along) / (TAPER * size)).clamp(max=1)
    return torch.einsum("d,h,w->dhw", ramp, ramp, ramp)
