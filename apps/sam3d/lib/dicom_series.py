"""A folder of DICOM instances -> one volume whose geometry is that of every slice, or a refusal that says why not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from sam3d_label.errors import VolumeError
from sam3d_label.io import replacing
from sam3d_label.volume import ALIGNED, LPS_FROM_RAS, Volume

GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")


def open_series(folder: Path) -> tuple[Volume, list[Dataset]]:
    """Opens the one series of a folder.

    Args:
        folder: One file for each slice, in any order.

    Returns:
        The volume, and the header of each of its slices k.

    Raises:
        VolumeError: The slices do not form one regular grid: some are missing, mixed, turned, or of several sizes.
    """
    headers: list[Dataset] = [dcmread(file, stop_before_pixels=True) for file in sorted(folder.iterdir())]
    require_slices(headers)
    volume = Volume.open(folder)
    headers.sort(key=height)
    require_places(volume, headers)
    return volume, headers


def require_slices(headers: Sequence[Dataset]) -> None:
    """Check that instances are single slices of one kind.

    Raises:
        VolumeError: They are not.
    """
    if len(headers) < 2:
        raise VolumeError(f"it has {len(headers)} instance: a volume needs at least two slices")
    for header in headers:
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise VolumeError("it stores several frames in an instance: export it with one slice an instance")
        missing = [name for name in GEOMETRY if header.get(name) in (None, "")]
        if missing:
            raise VolumeError(f"an instance has no {', '.join(missing)}, so that its place is not known")
    first = headers[0]
    for name in ("Rows", "Columns", "PixelSpacing"):
        if any(not np.allclose(header[name].value, first[name].value, rtol=1e-3) for header in headers):
            raise VolumeError(f"its slices differ in {name}: they do not form one volume")


def height(header: Dataset) -> float:
    """How far along the normal of the slices one lies, mm."""
    orientation = np.array(header.ImageOrientationPatient, float)
    normal = np.cross(orientation[:3], orientation[3:])
    return float(np.dot(normal, np.array(header.ImagePositionPatient, float)))


def require_places(volume: Volume, headers: Sequence[Dataset]) -> None:
    """Check that voxels 0, 0, k lie where the headers say, and that i and j run as they say.

    Raises:
        VolumeError: They do not.
    """
    first = headers[0]
    if volume.shape != (first.Columns, first.Rows, len(headers)):
        raise VolumeError(f"it reads as {volume.shape} voxels, but has {len(headers)} slices")
    lps = LPS_FROM_RAS @ volume.affine
    along_rows, along_columns = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, first.PixelSpacing)
    in_plane = np.stack([along_rows * between_columns, along_columns * between_rows], axis=1)
    places = lps[:3, 2:3] * np.arange(len(headers)) + lps[:3, 3:]
    told = np.array([header.ImagePositionPatient for header in headers], float).T
    apart = np.linalg.norm(places - told, axis=0).max()
    turned = np.abs(in_plane - lps[:3, :2]).max() * max(volume.shape[:2])
    if max(apart, turned) > ALIGNED * volume.spacing.min():
        raise VolumeError(f"its slices lie up to {max(apart, turned):.2f} mm beside a regular grid")


def keep_volume(volume: Volume, file: Path) -> None:
    """Writes a volume as NIfTI, as whole numbers where it holds nothing else; whole or not at all."""
    array = volume.array
    small = array.size and array.min() >= np.iinfo(np.int16).min and array.max() <= np.iinfo(np.int16).max
    if small and np.array_equal(array, np.rint(array)):
        array = array.astype(np.int16)
    with replacing(file) as beside:
        nib.save(nib.Nifti1Image(array, volume.affine), beside)


def keep_headers(headers: Sequence[Dataset], folder: Path) -> None:
    """Writes the headers of slices, in order, to a folder that does not exist yet."""
    folder.mkdir(parents=True)
    for k, header in enumerate(headers):
        for element in [element for element in header if element.tag.is_private]:
            del header[element.tag]
        header.save_as(folder / f"{k:05d}.dcm")


def read_headers(folder: Path) -> list[Dataset]:
    """What `keep_headers` wrote."""
    return [dcmread(file) for file in sorted(folder.glob("*.dcm"))]
