"""Read and verify a folder with one DICOM series: voxels and geometry."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sam3d_label.errors import VolumeError
from sam3d_label.image.dicom_file import SUFFIXES
from sam3d_label.image.dicom_slice import Slice, read_slice
from sam3d_label.image.grid import same_place
from sam3d_label.image.itk_geometry import LPS_FROM_RAS
from sam3d_label.image.limits import Limits
from sam3d_label.image.listing import is_dicom
from sam3d_label.image.read import StoredImage

logger = logging.getLogger(__name__)

UNEVEN = 0.1
"""Share of the usual step by which the step between two slices may differ from it."""

MOST_FOLDERS = 1000
"""Folders in a folder that are searched for a series."""

MOST_NAMED = 5
"""Series that a message names."""

FIX = "give a folder with one complete series of parallel slices"


def read_dicom_folder(folder: Path, limits: Limits) -> StoredImage:
    """Read the one DICOM series of a folder, slices in order of position.

    The third axis follows the positions of the slices: it is oblique to them where the gantry was tilted.

    Raises:
        VolumeError: There is no series or more than one, its slices do not form one regular grid, or are damaged.
    """
    slices = read_slices(folder, limits)
    columns, rows = slices[0].shape
    shape = (columns, rows, len(slices))
    limits.check_shape(shape, 4)
    affine = _affine(slices)
    limits.check_before_reading(shape, np.linalg.norm(affine[:3, :3], axis=0))
    array = np.empty(shape, np.float32)
    with np.errstate(over="ignore"):  # Volume counts non-finite values
        for k, one in enumerate(slices):
            array[:, :, k] = one.values()
    return StoredImage(array, LPS_FROM_RAS @ affine, modality=str(slices[0].header.get("Modality") or "") or None)


def read_slices(folder: Path, limits: Limits) -> list[Slice]:
    """Read the slices of a folder's only series in order along their normal, ignoring files that are not DICOM.

    Raises:
        VolumeError: There is no series or more than one, or the slices differ in size or orientation.
    """
    slices = _slices_in(folder, limits)
    if not slices:
        slices = _slices_in(_only_nested(folder), limits)
    by_series: dict[str, list[Slice]] = {}
    for one in slices:
        by_series.setdefault(one.series, []).append(one)
    if len(by_series) != 1:
        named = "; ".join(map(_describe, list(by_series.values())[:MOST_NAMED]))
        more = f" and {len(by_series) - MOST_NAMED} more" if len(by_series) > MOST_NAMED else ""
        inside = f" ({named}{more})" if named else ""
        raise VolumeError(f"it holds {len(by_series)} DICOM series{inside}: give a folder with exactly one")
    if len(slices) < 2:
        raise VolumeError("it has one slice: a volume needs at least two slices")
    first = slices[0]
    if any(one.shape != first.shape for one in slices):
        raise VolumeError(f"its slices differ in Rows or Columns: {FIX}")
    if any(not np.allclose(one.spacing, first.spacing, rtol=1e-3) for one in slices):
        raise VolumeError(f"its slices differ in PixelSpacing: {FIX}")
    if np.ptp([one.orientation for one in slices], axis=0).max() > 1e-3:
        raise VolumeError(f"it mixes slices of several orientations: {FIX}")
    normal = np.cross(*first.orientation)
    return sorted(slices, key=lambda one: float(normal @ one.position))


def _describe(slices: list[Slice]) -> str:
    """Return a description of a series for the user."""
    header = slices[0].header
    text = "".join(c for c in str(header.get("SeriesDescription") or "") if c.isprintable())[:40]
    number, modality = header.get("SeriesNumber"), header.get("Modality") or "unknown modality"
    name = repr(text) if text else f"number {number}" if number is not None else slices[0].file.name
    return f"{name}, {modality}, {len(slices)} slice{'s' if len(slices) != 1 else ''}"


def _slices_in(folder: Path, limits: Limits) -> list[Slice]:
    """Return the slices in a folder.

    Raises:
        VolumeError: There are too many files, or one that should be a slice is empty or no DICOM.
    """
    files = sorted(file for file in folder.iterdir() if file.is_file())
    if len(files) > 2 * limits.max_axis:
        raise VolumeError(f"it holds {len(files)} files: at most {2 * limits.max_axis} are read; {FIX}")
    slices, others = [], []
    for file in files:
        one = read_slice(file)
        if one is not None:
            slices.append(one)
        else:
            others.append(file)
    _require_no_lost_slice(others, {_kind_of(one.file) for one in slices})
    passed_over = sum(map(is_dicom, others))
    if slices and passed_over:
        logger.info(f"{passed_over} DICOM files without pixels are passed over next to {len(slices)} slices")
    return slices


def _require_no_lost_slice(others: Sequence[Path], kinds: set[str]) -> None:
    """Check that no file which is not DICOM, or empty, has the name of a slice: the series would be shorter."""
    for file in others:
        if file.name.startswith(".") or is_dicom(file):
            continue
        empty = file.stat().st_size == 0
        if _kind_of(file) in SUFFIXES or (empty and _kind_of(file) in kinds):
            raise VolumeError(f"{file.name} {'is empty' if empty else 'is not DICOM'}: copy or export it again")


def _kind_of(file: Path) -> str:
    """Return the end of a file's name, in lower case; none for numbers, as those of UIDs, and for DICOMDIR."""
    return "" if file.suffix[1:].isdecimal() else file.suffix.lower()


def _only_nested(folder: Path) -> Path:
    """Return the one subfolder, at any depth, that contains slices, as in exports of viewers.

    Raises:
        VolumeError: There is none, or more than one; the message names them.
    """
    found = []
    others = any(map(is_dicom, folder.iterdir()))
    for number, (place, folders, files) in enumerate(os.walk(folder)):
        folders.sort()
        if number > MOST_FOLDERS:
            raise VolumeError(f"it holds no DICOM file, and more than {MOST_FOLDERS} folders: give the one of a series")
        if number and any(_is_slice(Path(place, name)) for name in sorted(files)):
            found.append(Path(place))
        others = others or any(is_dicom(Path(place, name)) for name in files[:1])
    if len(found) == 1:
        return found[0]
    names = ", ".join(str(path.relative_to(folder)) for path in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    inside = f": its folders hold {len(found)}, give one of {names}{more}" if found else ""
    without = " with pixels, only reports and the like" if others else ""
    raise VolumeError(f"it holds 0 DICOM series{inside or f'{without}: give a folder with exactly one'}")


def _is_slice(file: Path) -> bool:
    """Return whether a file is a slice, or would be one if it were not damaged."""
    try:
        return is_dicom(file) and read_slice(file) is not None
    except VolumeError:
        return True


def _affine(slices: Sequence[Slice]) -> np.ndarray:
    """Return the affine (4, 4), voxel i, j, k to LPS mm, of slices in order.

    Raises:
        VolumeError: The slices are not on one regular grid.
    """
    first = slices[0]
    affine = np.eye(4)
    affine[:3, :2] = first.orientation.T * first.spacing
    affine[:3, 2] = _step(slices)
    affine[:3, 3] = first.position
    grid = first.position + np.arange(len(slices))[:, None] * affine[:3, 2]
    off = float(np.linalg.norm(grid - [one.position for one in slices], axis=1).max())
    if not same_place(off, affine):
        raise VolumeError(f"its slices are up to {off:.2f} mm off a regular grid: {FIX}")
    return affine


def _step(slices: Sequence[Slice]) -> np.ndarray:
    """Return the step (3,), LPS mm, from a slice to the next.

    Raises:
        VolumeError: The slices are not evenly spaced.
    """
    positions = np.array([one.position for one in slices])
    steps = np.diff(positions, axis=0)
    usual = np.median(steps, axis=0)
    length = float(np.linalg.norm(usual))
    off = np.linalg.norm(steps - usual, axis=1)
    worst = int(off.argmax())
    if length == 0 or off[worst] > UNEVEN * length:
        gap = np.linalg.norm(steps[worst])
        raise VolumeError(
            f"it holds slices that are not evenly spaced ({gap:.2f} mm between {slices[worst].file.name} and "
            f"{slices[worst + 1].file.name}, mostly {length:.2f} mm): some are missing or mixed; {FIX}"
        )
    return (positions[-1] - positions[0]) / (len(slices) - 1)
