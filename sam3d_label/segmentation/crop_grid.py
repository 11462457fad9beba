"""Where the model looks: crops that follow from the prompts, wider or closer as the mask asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sam3d_label.errors import VolumeError
from sam3d_label.image.frame import CropFrame
from sam3d_label.image.volume import Volume
from sam3d_label.segmentation.prompts import Box, Click, Prompts

LATTICE = 4
"""Crops of one volume lie on a lattice of a quarter of their edge, so that nearby clicks share an embedding."""

TOGETHER = 0.75
"""Clicks and boxes that span more than this share of a crop's edge belong to several crops."""

SMALL = 0.2
"""A mask whose longest edge is below this share of a crop's is looked at more closely."""

MAX_CROPS = 4096
"""Most crops that are laid over one volume; a body of 2 m at the finest grid of the shipped weights needs fewer."""


def corners(drawn: Iterable[Click | Box]) -> np.ndarray:
    """The voxels i, j, k (N, 3) that clicks and boxes touch."""
    points = [p for d in drawn for p in ([d.ijk] if isinstance(d, Click) else [d.lower, d.upper])]
    return np.array(points, float).reshape(-1, 3)


def groups(prompts: Prompts, volume: Volume, field: float) -> list[list[Click | Box]]:
    """Positive clicks and boxes, parted where one crop of `field` mm cannot show them together.

    The order in which they were drawn does not matter.
    """
    drawn: list[Click | Box] = [*prompts.positive, *prompts.boxes]
    parted: list[list[Click | Box]] = []
    for one in sorted(drawn, key=lambda d: corners([d]).tolist()):
        for group in parted:
            if fit_together(corners([*group, one]), volume, field):
                group.append(one)
                break
        else:
            parted.append([one])
    return parted


def fit_together(points: np.ndarray, volume: Volume, field: float) -> bool:
    """Whether one crop of `field` mm shows all of some stored voxels (N, 3)."""
    return bool(((np.ptp(points, axis=0) + 1) * volume.spacing <= TOGETHER * field).all())


def first_spacing(volume: Volume, size: int, spacings: Sequence[float], base: float) -> float:
    """The finest of the spacings whose crop shows the whole volume; the base spacing where that is finer still."""
    longest = float((np.array(volume.shape) * volume.spacing).max())
    covering = [spacing for spacing in spacings if spacing * size >= longest]
    return min([*covering, base])


def lattice_frame(volume: Volume, points: np.ndarray, spacing: float, size: int) -> CropFrame:
    """The crop for stored voxels (N, 3): around their middle, on the lattice, and no further out than it must."""
    edge = spacing * size / volume.spacing
    shape = np.array(volume.shape)
    middle = (points.min(0) + points.max(0)) / 2
    on_lattice = np.round(middle / edge * LATTICE) * edge / LATTICE
    inside = np.clip(on_lattice, edge / 2 - 0.5, np.maximum(shape - edge / 2 - 0.5, edge / 2 - 0.5))
    return volume.frame(np.where(edge >= shape, (shape - 1) / 2, inside).tolist(), spacing, size)


def extent(mask: Tensor) -> float:
    """Longest edge of the bounding box of a mask (D, H, W), as a share of the crop's edge; 0 when it is empty."""
    spans = [torch.nonzero(mask.any(a).any(b - 1))[:, 0] for a, b in ((1, 2), (0, 2), (0, 1))]
    return max((int(s[-1] - s[0]) + 1 if len(s) else 0) for s in spans) / mask.shape[0]


def touched(mask: Tensor, frame: CropFrame) -> np.ndarray:
    """Stored voxels i, j, k (2, 3): two corners around a mask (D, H, W) of at least one voxel."""
    where = torch.nonzero(mask)
    return frame.to_ijk(torch.stack([where.amin(0), where.amax(0)]).cpu().numpy())


def is_cut(mask: Tensor, frame: CropFrame, volume: Volume) -> bool:
    """Whether a mask (D, H, W) reaches a face of its crop behind which the volume goes on."""
    for axis in range(3):
        for face, beyond in ((0, -1.0), (frame.size - 1, float(frame.size))):
            outside = np.full((1, 3), (frame.size - 1) / 2)
            outside[0, axis] = beyond
            stored = frame.axes[axis]
            goes_on = 0 <= frame.to_ijk(outside)[0, stored] <= volume.shape[stored] - 1
            if goes_on and bool(mask.select(axis, face).any()):
                return True
    return False


def tiling(volume: Volume, points: np.ndarray, spacing: float, size: int) -> list[CropFrame]:
    """Crops that together show the box around stored voxels (N, 3), neighbours overlapping by a quarter or more.

    Raises:
        VolumeError: It takes more than `MAX_CROPS`.
    """
    lower, upper = points.min(0), points.max(0)
    counts = np.ceil((upper - lower + 1) * volume.spacing / (TOGETHER * spacing * size)).astype(int)
    counts = np.where((upper - lower + 1) * volume.spacing <= spacing * size, 1, counts)
    if (needed := float(np.prod(counts.astype(float)))) > MAX_CROPS:
        edges = " x ".join(f"{edge:.0f}" for edge in (upper - lower + 1) * volume.spacing)
        raise VolumeError(
            f"{edges} mm would need {needed:.0f} crops of {spacing * size:.0f} mm, at most {MAX_CROPS} are computed: "
            "crop the volume, correct its voxel size, or use a coarser grid (spacing)"
        )
    steps = [lo + (hi - lo) * (np.arange(n) + 0.5) / n for lo, hi, n in zip(lower, upper, counts, strict=True)]
    middles = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 1, 3)
    return list(dict.fromkeys(lattice_frame(volume, middle, spacing, size) for middle in middles))


def border_tiles(volume: Volume, mask: Tensor, frame: CropFrame, spacing: float, size: int) -> list[CropFrame]:
    """Crops of a finer spacing along the border of a mask (D, H, W) of at least one voxel in a wider crop."""
    solid = mask[None, None].float()
    border = (solid - (1 - F.max_pool3d(1 - solid, 3, stride=1, padding=1)))[0, 0] > 0
    points = frame.to_ijk(torch.nonzero(border).cpu().numpy())
    return [tile for tile in tiling(volume, points, spacing, size) if tile.holds(points).any()]
