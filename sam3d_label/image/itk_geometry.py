"""Positions of the voxels of a NIfTI, NRRD or MetaImage file according to ITK and 3D Slicer.

ITK's readers of text headers write beyond their buffers if a value is long. Therefore they never read a file from
outside, only a header that is written here from numbers and words that have been checked.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from sam3d_label.errors import VolumeError
from sam3d_label.image.header import Header

READERS = {"NIfTI": ("NiftiImageIO", ".nii"), "NRRD": ("NrrdImageIO", ".nrrd"), "MetaImage": ("MetaImageIO", ".mha")}
"""Reader of ITK and suffix, by format."""

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def itk_affine(header: Header, rewritten: bytes) -> np.ndarray | None:
    """Return the affine as ITK reads it.

    Args:
        header: The file's header.
        rewritten: A header of the same format with the same geometry, in which every value has been checked.

    Returns:
        4 x 4, voxel to RAS in mm; None where ITK cannot read the header.

    Raises:
        VolumeError: The axes are not those of one scalar volume, or the voxel size is not above 0.
    """
    reader = sitk.ImageFileReader()
    name, suffix = READERS[header.format]
    reader.SetImageIO(name)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"header{suffix}")
        file.write_bytes(rewritten)
        reader.SetFileName(str(file))
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            return None
    if reader.GetNumberOfComponents() != 1 or tuple(reader.GetSize())[:3] != header.shape:
        raise VolumeError("its axes are not those of one scalar 3D volume: store one number for each voxel")
    spacing = np.array(reader.GetSpacing()[:3])
    if not np.isfinite(spacing).all() or spacing.min() <= 0:
        raise VolumeError(f"its voxel size is {spacing.tolist()} mm: set it to the edges of a voxel, all above 0")
    dimension = reader.GetDimension()
    affine = np.eye(4)
    affine[:3, :3] = np.array(reader.GetDirection()).reshape(dimension, dimension)[:3, :3] * spacing
    affine[:3, 3] = reader.GetOrigin()[:3]
    return LPS_FROM_RAS @ affine
