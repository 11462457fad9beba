"""Label maps: whole numbers; negative ones mean that the voxel is unknown."""

from __future__ import annotations

import os

import numpy as np

from sam3d_label.errors import VolumeError
from sam3d_label.image.limits import Limits
from sam3d_label.image.volume import Volume

IGNORE = -1.0
"""Value of voxels that are neither target nor background, in training and in evaluation."""

WITHIN = 1e-3
"""Largest difference of a stored value from a whole number, as caused by resampling or a slope."""

LARGEST = 65535
"""Largest value, of 16 bits."""


def open_label(path: str | os.PathLike[str], limits: Limits | None = None) -> Volume:
    """Read a label file.

    Returns:
        A volume of whole numbers: 0 for background, 1 and above for structures, `IGNORE` for negative values.

    Raises:
        VolumeError: The file cannot be read, or holds other numbers.
    """
    return as_label(Volume.open(path, limits))


def as_label(volume: Volume) -> Volume:
    """Return the label map that a volume holds, as `open_label` returns it; errors as there."""
    name = volume.path.name if volume.path else "the label"
    whole = np.rint(volume.array)
    if np.abs(volume.array - whole).max() > WITHIN:
        raise VolumeError(f"{name} holds values that are not whole numbers: save a label map, not an image")
    if whole.max() > LARGEST:
        raise VolumeError(f"{name} holds values up to {whole.max():.0f}: number structures from 1 to {LARGEST}")
    whole[whole < 0] = IGNORE
    whole += 0.0  # no negative zeros
    return Volume(whole, volume.affine, path=volume.path, forms=volume.forms, modality=volume.modality)


def structures(label: Volume) -> list[int]:
    """Return the values of the structures in a label map, in order."""
    return [int(value) for value in np.unique(label.array) if value > 0]
