"""Read a folder of DICOM instances as one volume with the geometry of every slice, or reject it with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from sam3d_label.image.dicom import read_slices
from sam3d_label.image.limits import default_limits
from sam3d_label.image.volume import Volume
from sam3d_label.io import replacing


def open_series(folder: Path) -> tuple[Volume, list[Dataset]]:
    """Open the one series of a folder.

    Args:
        folder: One file for each slice, in any order.

    Returns:
        The volume, and the header of each of its slices k.

    Raises:
        VolumeError: The slices are damaged or do not form one regular grid: some are missing, mixed, turned, or of
            several sizes.
    """
    headers = [one.header for one in read_slices(folder, default_limits())]
    return Volume.open(folder), headers


def keep_volume(volume: Volume, file: Path) -> None:
    """Write a volume as NIfTI atomically, with an integer type if all values are whole numbers."""
    array = volume.array
    small = array.size and array.min() >= np.iinfo(np.int16).min and array.max() <= np.iinfo(np.int16).max
    if small and np.array_equal(array, np.rint(array)):
        array = array.astype(np.int16)
    with replacing(file) as part:
        image = nib.Nifti1Image(array, volume.affine)
        if volume.modality:
            image.header["descrip"] = f"DICOM modality {volume.modality}"
        nib.save(image, part)


def keep_headers(headers: Sequence[Dataset], folder: Path) -> None:
    """Write the headers of slices, in order, to a folder that does not exist yet."""
    folder.mkdir(parents=True)
    for k, header in enumerate(headers):
        for element in [element for element in header if element.tag.is_private]:
            del header[element.tag]
        header.save_as(folder / f"{k:05d}.dcm")


def read_headers(folder: Path) -> list[Dataset]:
    """Read the headers that `keep_headers` wrote."""
    return [dcmread(file) for file in sorted(folder.glob("*.dcm"))]
