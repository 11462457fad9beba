"""Read DICOM SEG as label maps."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from highdicom.spatial import PixelToReferenceTransformer
from pydicom.dataset import Dataset

from sam3d_label.errors import VolumeError
from sam3d_label.image.volume import LPS_FROM_RAS, Volume

OFF_GRID = 0.25
"""Largest offset, in voxels, between the pixels of a SEG and the image's voxels."""


def segment_names(seg: Dataset) -> dict[int, str]:
    """Return the names of the segments of a SEG by their number."""
    return {
        int(segment.SegmentNumber): str(segment.get("SegmentLabel") or f"segment {segment.SegmentNumber}")
        for segment in seg.get("SegmentSequence") or []
    }


def referenced_series(seg: Dataset) -> list[str]:
    """Return the SeriesInstanceUIDs that a SEG references."""
    return [str(item.get("SeriesInstanceUID", "")) for item in seg.get("ReferencedSeriesSequence") or []]


def written_at(seg: Dataset) -> str:
    """Return when a SEG was written, YYYYMMDDHHMMSS.ffffff; empty where it does not say."""
    for kind in ("Content", "InstanceCreation", "Series"):
        if seg.get(f"{kind}Date"):
            return f"{seg[f'{kind}Date'].value}{seg.get(f'{kind}Time') or '000000'}"
    return ""


def read_seg(seg: Dataset, volume: Volume) -> np.ndarray:
    """Return a SEG as a label map on its image's grid, with the numbers of the segments as values.

    Its frames may come in any order, flipped, or cropped. Where segments overlap, the smaller one is seen, as a
    tumour inside an organ is.

    Args:
        seg: The instance.
        volume: Its image.

    Returns:
        Label map (I, J, K), uint8 or uint16.

    Raises:
        VolumeError: It cannot be read, or it was drawn on another grid.
    """
    try:
        frames = _frames(seg)
        masks = {number: np.zeros(volume.shape, bool) for number in segment_names(seg)}
        for number, index_to_lps, pixels in frames:
            ijk = _voxels(pixels, index_to_lps, volume)
            masks[number][tuple(ijk)] = True
    except VolumeError:
        raise
    except Exception as error:
        raise VolumeError(f"the DICOM SEG cannot be read: {type(error).__name__}: {error}") from error
    label = np.zeros(volume.shape, np.uint8 if max(masks, default=0) < 256 else np.uint16)
    for number in sorted(masks, key=lambda n: -int(masks[n].sum())):
        label[masks[number]] = number
    return label


def _frames(seg: Dataset) -> Iterable[tuple[int, np.ndarray, np.ndarray]]:
    """Return each frame's segment, affine (4, 4) from column, row and 0 to LPS mm, and pixels (rows, columns)."""
    if seg.get("SegmentationType") not in ("BINARY", "FRACTIONAL"):
        raise VolumeError(f"the DICOM SEG is of type {seg.get('SegmentationType')}: BINARY and FRACTIONAL can be read")
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    least = (int(seg.MaximumFractionalValue) + 1) // 2 if seg.SegmentationType == "FRACTIONAL" else 1
    shared = (seg.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for frame, own in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = _group("SegmentIdentificationSequence", own, shared).ReferencedSegmentNumber
        yield int(number), _index_to_lps(own, shared), frame >= least


def _group(name: str, own: Dataset, shared: Dataset) -> Dataset:
    group: Dataset = (own.get(name) or shared.get(name) or [None])[0]
    if group is None:
        raise VolumeError(f"the DICOM SEG has a frame without {name}")
    return group


def _index_to_lps(own: Dataset, shared: Dataset) -> np.ndarray:
    return PixelToReferenceTransformer(
        image_position=_group("PlanePositionSequence", own, shared).ImagePositionPatient,
        image_orientation=_group("PlaneOrientationSequence", own, shared).ImageOrientationPatient,
        pixel_spacing=_group("PixelMeasuresSequence", own, shared).PixelSpacing,
    ).affine


def _voxels(pixels: np.ndarray, index_to_lps: np.ndarray, volume: Volume) -> np.ndarray:
    """Return the voxels (3, N) of an image under the set pixels of a frame.

    Raises:
        VolumeError: They are between voxels, or outside the image.
    """
    rows, columns = np.nonzero(pixels)
    index = np.stack([columns, rows, np.zeros_like(rows), np.ones_like(rows)]).astype(float)
    ijk = (np.linalg.inv(LPS_FROM_RAS @ volume.affine) @ index_to_lps @ index)[:3]
    nearest = np.rint(ijk)
    inside = (nearest >= 0) & (nearest < np.array(volume.shape).reshape(3, 1))
    if index.shape[1] and (np.abs(ijk - nearest).max() > OFF_GRID or not inside.all()):
        raise VolumeError("the DICOM SEG was drawn on another grid than that of the series it refers to")
    return nearest.astype(int)
