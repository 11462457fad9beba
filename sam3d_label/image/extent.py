"""Extent of the mask of a crop."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def silhouettes(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the shadows of a mask (D, H, W) along its axes, bool (H, W), (D, W) and (D, H)."""
    mask = mask.contiguous()
    return mask.any(0), mask.any(1), mask.any(2)


def planes(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return which planes across each axis of a mask (D, H, W) have a voxel, bool (D,), (H,) and (W,)."""
    mask = mask.contiguous()
    along_d, along_w = mask.any(0), mask.any(2)
    return along_w.any(1), along_d.any(1), along_d.any(0)


def spans(mask: Tensor) -> tuple[slice, slice, slice] | None:
    """Return the smallest box around the voxels of a mask (D, H, W); None when there are none."""
    found = [plane.nonzero()[:, 0].tolist() for plane in planes(mask)]
    if not found[0]:
        return None
    d, h, w = (slice(at[0], at[-1] + 1) for at in found)
    return d, h, w
