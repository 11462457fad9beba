"""Read the values of a crop from a stored array, and write them back: linear resampling by one matrix for each axis.

Our own instead of `F.grid_sample`, which does not average where the crop is coarser than the stored voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sam3d_label.image.extent import spans
from sam3d_label.image.region import Region, empty, intersection

if TYPE_CHECKING:
    from sam3d_label.image.frame import CropFrame
    from sam3d_label.image.intensity import Normalization


def read_crop(
    array: np.ndarray, spacing: np.ndarray, frame: CropFrame, normalization: Normalization | None = None
) -> Tensor:
    """Read a crop.

    Args:
        array: Intensities (I, J, K), float32.
        spacing: Edges of a voxel along I, J and K, mm.
        frame: The crop.
        normalization: Applied to the intensities; None leaves them as they are.

    Returns:
        Intensities (D, H, W), float32; 0 outside the volume.
    """
    weights = []
    for axis, stored in enumerate(frame.axes):
        along = np.zeros((frame.size, 3))
        along[:, axis] = np.arange(frame.size)
        positions = frame.to_ijk(along)[:, stored]
        weights.append(resampling_weights(positions, array.shape[stored], frame.spacing / spacing[stored]))
    values = resample(torch.from_numpy(array).permute(frame.axes), weights)
    if normalization is not None:
        values = normalization(values)
    inside = [(w.sum(1) > 0).to(values.dtype) for w in weights]
    return values * torch.einsum("d,h,w->dhw", *inside)


def write_crop(
    values: Tensor,
    frame: CropFrame,
    shape: tuple[int, int, int],
    spacing: np.ndarray,
    within: Region | None = None,
) -> tuple[np.ndarray, Region]:
    """Put a crop's values on the stored grid.

    Args:
        values: (D, H, W).
        frame: The crop.
        shape: Voxels of the stored grid along I, J and K.
        spacing: Edges of a stored voxel along I, J and K, mm.
        within: Compute only this region of the stored grid; None for all that the crop covers.

    Returns:
        The values (i, j, k), float32, of the part of the stored grid that the crop covers, and that part's slices.
    """
    covered = region_of_crop(frame, shape)
    region = covered if within is None else intersection(covered, within) or empty(within)
    weights = [
        resampling_weights(_positions(frame, axis, shape)[region[stored]], frame.size, spacing[stored] / frame.spacing)
        for axis, stored in enumerate(frame.axes)
    ]
    order = [frame.axes.index(stored) for stored in range(3)]
    part = resample(values.float().cpu(), weights).permute(order)
    return part.contiguous().numpy(), region


def region_of_crop(frame: CropFrame, shape: tuple[int, int, int]) -> Region:
    """Return the part of the stored grid that a crop covers."""
    region = [slice(0)] * 3
    for axis, stored in enumerate(frame.axes):
        positions = _positions(frame, axis, shape)
        covered = np.flatnonzero((positions > -0.5) & (positions < frame.size - 0.5))
        region[stored] = slice(int(covered[0]), int(covered[-1]) + 1) if covered.size else slice(0, 0)
    return region[0], region[1], region[2]


def region_of_mask(mask: Tensor, frame: CropFrame, shape: tuple[int, int, int], spacing: np.ndarray) -> Region | None:
    """Return the part of the stored grid whose values in `write_crop` a mask of the crop can affect.

    Args:
        mask: bool (D, H, W).
        frame: The crop.
        shape: Voxels of the stored grid along I, J and K.
        spacing: Edges of a stored voxel along I, J and K, mm.

    Returns:
        Slices of I, J and K; None when the mask is empty or outside the stored grid.
    """
    box = spans(mask)
    if box is None:
        return None
    region = [slice(0)] * 3
    for axis, stored in enumerate(frame.axes):
        support = max(1.0, spacing[stored] / frame.spacing)
        positions = _positions(frame, axis, shape)
        near = np.flatnonzero((positions > box[axis].start - support) & (positions < box[axis].stop - 1 + support))
        if not near.size:
            return None
        region[stored] = slice(int(near[0]), int(near[-1]) + 1)
    return region[0], region[1], region[2]


def _positions(frame: CropFrame, axis: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the crop voxels along one axis of a crop (D, H or W) of all stored voxels along the axis under it."""
    stored = frame.axes[axis]
    along = np.zeros((shape[stored], 3))
    along[:, stored] = np.arange(shape[stored])
    return frame.to_dhw(along)[:, axis]


def resampling_weights(positions: np.ndarray, size: int, coarseness: float) -> Tensor:
    """Return weights (N, size) that read a signal of `size` samples at N positions.

    Linear interpolation where the reader is finer than the signal; a triangle as wide as the reader's own step where
    it is `coarseness` times coarser. Positions more than half a sample outside get no weight.
    """
    samples = np.arange(size)
    clamped = np.clip(positions, 0, size - 1)
    weights = np.maximum(0, 1 - np.abs(clamped[:, None] - samples) / max(1.0, coarseness))
    weights /= weights.sum(1, keepdims=True)
    weights[(positions < -0.5) | (positions > size - 0.5)] = 0
    return torch.from_numpy(weights.astype(np.float32))


def resample(values: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Apply one (N, size) matrix along each of three axes, reading only what has weight, coarsest axis first.

    The first two products are computed with the axes as in memory, which needs no transposed copy of the values.
    """
    matrices = []
    for axis, matrix in enumerate(weights):
        used = torch.nonzero(matrix.sum(0))[:, 0]
        if not len(used):
            return torch.zeros([len(w) for w in weights])
        start, length = int(used[0]), int(used[-1] - used[0]) + 1
        values = values.narrow(axis, start, length)
        matrices.append(matrix[:, start : start + length])
    *first, last = sorted(range(3), key=lambda a: matrices[a].shape[0] / matrices[a].shape[1])
    in_memory = sorted(range(3), key=values.stride, reverse=True)
    values = values.permute(in_memory)
    for axis in first:
        values = _apply_along(matrices[axis], values, in_memory.index(axis))
    values = values.permute([in_memory.index(axis) for axis in range(3)])
    return torch.tensordot(matrices[last], values, dims=([1], [last])).movedim(0, last)


def _apply_along(matrix: Tensor, values: Tensor, axis: int) -> Tensor:
    """Apply a matrix (N, size) along one axis of values with three axes, the last one innermost in memory."""
    if axis == 0:
        return (matrix @ values.flatten(1)).unflatten(1, values.shape[1:])
    return matrix @ values if axis == 1 else values @ matrix.T
