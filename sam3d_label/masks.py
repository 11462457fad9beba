"""Boxes, components, depths and overlap of masks: arrays whose non-zero voxels are inside.

Depth is the Euclidean distance to the nearest voxel outside a mask; everything beyond the array is outside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Index = tuple[int, int, int]
FACES = np.asarray(ndimage.generate_binary_structure(3, 1))
"""Voxels are connected where they share a face (6 neighbours)."""

CORNERS = np.ones((3, 3, 3), bool)
"""Voxels are connected where they share a face, an edge or a corner (26 neighbours)."""


def bounding_box(mask: NDArray[np.generic]) -> tuple[slice, ...] | None:
    """Return the smallest box around the voxels of a mask of any dimension; None when there are none.

    Our own instead of `scipy.ndimage.find_objects`, which takes 15 to 90 times as long on a whole CT (1.2 s for 512 x
    512 x 300 in Fortran order), and runs with each click.
    """
    box: list[slice] = []
    for axis in range(mask.ndim):
        rest = mask[tuple(box)]
        hits = np.flatnonzero(rest.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if hits.size == 0:
            return None
        box.append(slice(int(hits[0]), int(hits[-1]) + 1))
    return tuple(box)


def corners(mask: NDArray[np.generic]) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return the lower and the upper corner of the bounding box, both inside it; None when the mask is empty."""
    box = bounding_box(mask)
    if box is None:
        return None
    return np.array([side.start for side in box]), np.array([side.stop - 1 for side in box])


def largest_component(
    mask: NDArray[np.generic], connectivity: NDArray[np.bool_] = FACES, weight: NDArray[np.generic] | None = None
) -> NDArray[np.bool_]:
    """Return the largest connected component of a mask; of equally large ones, the first in (i, j, k) order.

    Args:
        mask: shape (I, J, K).
        connectivity: `FACES` or `CORNERS`.
        weight: shape (I, J, K): what each voxel counts; without it, each counts 1.

    Returns:
        bool, shape (I, J, K); empty when the mask is.
    """
    largest = np.zeros(mask.shape, bool)
    box = bounding_box(mask)
    if box is None:
        return largest
    labels, count = ndimage.label(mask[box], structure=connectivity)
    if weight is None:
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    else:
        sizes = ndimage.sum_labels(weight[box], labels, np.arange(1, count + 1))
    largest[box] = labels == 1 + int(np.argmax(sizes))
    return largest


def depth(
    mask: NDArray[np.generic], spacing: Sequence[float] | NDArray[np.generic] | None = None
) -> NDArray[np.float64]:
    """Return the depth of each voxel of a mask of any dimension, 0 outside.

    Args:
        mask: any shape.
        spacing: mm between voxels along each axis; without it, depth is in voxels.
    """
    inside = (slice(1, -1),) * mask.ndim
    return np.asarray(ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing))[inside]


def deepest_voxel(
    mask: NDArray[np.generic],
    spacing: Sequence[float] | NDArray[np.generic] | None = None,
    without: Sequence[Index] = (),
) -> Index | None:
    """Return the deepest voxel of a mask; of equally deep ones, the first in (i, j, k) order.

    Only the bounding box is transformed: everything beyond it is outside, so the depths are those of the whole mask.

    Args:
        mask: shape (I, J, K).
        spacing: mm along I, J, K; without it, depth is in voxels.
        without: voxels that are not returned.

    Returns:
        None when the mask has no other voxel.
    """
    box = bounding_box(mask)
    if box is None:
        return None
    depths = depth(mask[box], spacing)
    for voxel in without:
        local = tuple(at - side.start for at, side in zip(voxel, box, strict=True))
        if all(0 <= at < size for at, size in zip(local, depths.shape, strict=True)):
            depths[local] = 0
    best = int(np.argmax(depths))
    if depths.flat[best] == 0:
        return None
    i, j, k = (int(at) + side.start for at, side in zip(np.unravel_index(best, depths.shape), box, strict=True))
    return i, j, k


def dice(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient of two masks: twice the overlap over the sum of their sizes, 1 for two empty ones."""
    total = np.count_nonzero(mask) + np.count_nonzero(truth)
    if total == 0:
        return 1.0
    return 2.0 * float(np.count_nonzero(mask & truth)) / float(total)
