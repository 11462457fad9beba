"""Crops of one size over a volume: where they are placed for prompts, for masks and for the whole volume."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sam3d_label.errors import VolumeError
from sam3d_label.image.extent import spans
from sam3d_label.image.frame import CropFrame
from sam3d_label.image.volume import Volume
from sam3d_label.segmentation.prompts import Box, Click, Prompts

LATTICE = 4
"""Crops of one volume are placed on a lattice of a quarter of their edge, so that nearby clicks share an embedding."""

GROUP_SHARE = 0.75
"""Clicks and boxes that span more than this share of a crop's edge belong to several crops."""

MAX_CROPS = 4096
"""Most crops that are placed over one volume; a body of 2 m at the finest grid of the shipped weights needs fewer."""


class CropGrid:
    """Cubic crops of one size, at one of several spacings, over one volume.

    Args:
        volume: The volume.
        size: Edge of a crop, crop voxels.
        spacings: Edges of a crop voxel, mm.
        base: The spacing at which a target of unknown size is shown first, unless a finer one shows the whole volume.

    Attributes:
        spacings: In ascending order.
        first: Spacing of the first crop for a target of unknown size, mm.
    """

    def __init__(self, volume: Volume, size: int, spacings: Sequence[float], base: float) -> None:
        self.volume, self.size, self.spacings = volume, size, sorted(spacings)
        longest = float((np.array(volume.shape) * volume.spacing).max())
        self.first = min([*(spacing for spacing in self.spacings if spacing * size >= longest), base])

    def frame(self, points: np.ndarray, spacing: float) -> CropFrame:
        """Return the crop for some stored voxels: around their middle, on the lattice, and inside the volume.

        Args:
            points: Stored voxels i, j, k (N, 3).
            spacing: mm.
        """
        edge = spacing * self.size / self.volume.spacing
        shape = np.array(self.volume.shape)
        middle = (points.min(0) + points.max(0)) / 2
        on_lattice = np.round(middle / edge * LATTICE) * edge / LATTICE
        inside = np.clip(on_lattice, edge / 2 - 0.5, np.maximum(shape - edge / 2 - 0.5, edge / 2 - 0.5))
        return self.volume.frame(np.where(edge >= shape, (shape - 1) / 2, inside).tolist(), spacing, self.size)

    def groups(self, prompts: Prompts) -> list[list[Click | Box]]:
        """Return the positive clicks and boxes, in groups that one crop of the first spacing can show.

        The order in which they were drawn does not matter.
        """
        drawn: list[Click | Box] = [*prompts.positive, *prompts.boxes]
        groups: list[list[Click | Box]] = []
        for one in sorted(drawn, key=lambda d: prompt_voxels([d]).tolist()):
            for group in groups:
                if self._fits(prompt_voxels([*group, one])):
                    group.append(one)
                    break
            else:
                groups.append([one])
        return groups

    def whole_volume(self) -> list[CropFrame]:
        """Return crops of the first spacing that together show the whole volume.

        Raises:
            VolumeError: It takes more than `MAX_CROPS`.
        """
        return self.tiling(np.array([[0, 0, 0], np.array(self.volume.shape) - 1], float))

    def tiling(self, points: np.ndarray) -> list[CropFrame]:
        """Return crops of the first spacing that show the box around some voxels; neighbours overlap by a quarter.

        Args:
            points: Stored voxels i, j, k (N, 3).

        Raises:
            VolumeError: It takes more than `MAX_CROPS`.
        """
        lower, upper = points.min(0), points.max(0)
        edges, crop = (upper - lower + 1) * self.volume.spacing, self.first * self.size
        counts = np.where(edges <= crop, 1, np.ceil(edges / (GROUP_SHARE * crop)))
        if (needed := float(np.prod(counts))) > MAX_CROPS:
            field = " x ".join(f"{edge:.0f}" for edge in edges)
            raise VolumeError(
                f"{field} mm would need {needed:.0f} crops of {crop:.0f} mm, at most {MAX_CROPS} are computed: "
                "crop the volume, correct its voxel size, or use a coarser grid (spacing)"
            )
        steps = [
            lo + (hi - lo) * (np.arange(n) + 0.5) / n
            for lo, hi, n in zip(lower, upper, counts.astype(int), strict=True)
        ]
        middles = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 1, 3)
        return list(dict.fromkeys(self.frame(middle, self.first) for middle in middles))

    def border_tiles(self, mask: Tensor, frame: CropFrame) -> list[CropFrame]:
        """Return crops of the first spacing along the border, if any, of a mask (D, H, W) in a wider crop."""
        solid = mask[None, None].float()
        border = (solid - (1 - F.max_pool3d(1 - solid, 3, stride=1, padding=1)))[0, 0] > 0
        points = frame.to_ijk(torch.nonzero(border).cpu().numpy())
        if not len(points):
            return []
        return [tile for tile in self.tiling(points) if tile.holds(points).any()]

    def is_cut(self, mask: Tensor, frame: CropFrame) -> bool:
        """Return whether a mask (D, H, W) reaches a face of its crop behind which the volume continues."""
        for axis in range(3):
            for face, beyond in ((0, -1.0), (frame.size - 1, float(frame.size))):
                outside = np.full((1, 3), (frame.size - 1) / 2)
                outside[0, axis] = beyond
                stored = frame.axes[axis]
                goes_on = 0 <= frame.to_ijk(outside)[0, stored] <= self.volume.shape[stored] - 1
                if goes_on and bool(mask.select(axis, face).any()):
                    return True
        return False

    def _fits(self, points: np.ndarray) -> bool:
        """Return whether one crop of the first spacing shows all of some stored voxels (N, 3)."""
        edges = (np.ptp(points, axis=0) + 1) * self.volume.spacing
        return bool((edges <= GROUP_SHARE * self.first * self.size).all())


def prompt_voxels(drawn: Iterable[Click | Box]) -> np.ndarray:
    """Return the voxels i, j, k (N, 3) of clicks and of corners of boxes."""
    points = [p for d in drawn for p in ([d.ijk] if isinstance(d, Click) else [d.lower, d.upper])]
    return np.array(points, float).reshape(-1, 3)


def extent(mask: Tensor) -> float:
    """Return the longest edge of a mask's (D, H, W) bounding box as a share of the crop's edge; 0 when it is empty."""
    return max((along.stop - along.start for along in spans(mask) or ()), default=0) / mask.shape[0]


def mask_corners(mask: Tensor, frame: CropFrame) -> np.ndarray:
    """Return stored voxels i, j, k (2, 3): two corners around a mask (D, H, W) of at least one voxel."""
    box = spans(mask)
    assert box is not None
    return frame.to_ijk([[along.start for along in box], [along.stop - 1 for along in box]])
