"""Convert label maps to DICOM SEG and back."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import highdicom
import numpy as np
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from monailabel.datastore.utils.colors import GENERIC_ANATOMY_COLORS
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from skimage.color import rgb2lab

import sam3d_label
from sam3d_label.errors import VolumeError
from sam3d_label.image.volume import LPS_FROM_RAS, Volume

logger = logging.getLogger(__name__)
PRODUCT = "SAM3D for MONAI Label"
SERIES_NUMBER = 300
LONG_STRING = 64
"""Characters of DICOM's LO."""

OFF_GRID = 0.25
"""Largest offset, in voxels, between the pixels of a SEG and the image's voxels."""

TISSUE = (Code("85756007", "SCT", "Tissue"), Code("85756007", "SCT", "Tissue"))
LESION = (
    Code("49755003", "SCT", "Morphologically Abnormal Structure"),
    Code("4147007", "SCT", "Mass"),
)
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
LESION_WORDS = ("tumor", "tumour", "lesion", "mass", "metasta", "cancer", "carcinoma", "sarcoma", "nodule")
REQUIRED_EVEN_IF_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)


def make_seg(
    headers: Sequence[Dataset], label: np.ndarray, names: Mapping[int, str], colors: Any = None, earlier: int = 0
) -> Dataset:
    """Make a DICOM SEG of a label map, one segment for each of its values in ascending order.

    Its description and number distinguish it from the other DICOM SEGs of its study in a viewer's list of series.

    Args:
        headers: Of the slices k of the image.
        label: Label map (I, J, K), whole numbers from 0.
        names: Of its values; when it is empty, the first one names the empty segment.
        colors: Red, green and blue, 0 to 255, by name.
        earlier: How many DICOM SEGs the study has.

    Raises:
        VolumeError: The series lacks what a SEG has to refer to.
    """
    now = datetime.now()
    values = [int(value) for value in np.unique(label) if value] or sorted(names)[:1]
    listed = ", ".join(names[value] for value in values)
    sources = [_complete(header, _step(headers)) for header in headers]
    frames = np.stack([label == value for value in values], axis=-1).transpose(2, 1, 0, 3)
    described = [_segment(n, names[value], (colors or {}).get(names[value])) for n, value in enumerate(values, 1)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a name without a caret, which it would show
            seg = Segmentation(
                source_images=sources,
                pixel_array=frames.astype(np.uint8),
                segmentation_type=SegmentationTypeValues.BINARY,
                segment_descriptions=described,
                series_instance_uid=highdicom.UID(),
                series_number=SERIES_NUMBER + earlier,
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer=PRODUCT,
                manufacturer_model_name=PRODUCT,
                software_versions=sam3d_label.__version__,
                device_serial_number="1",
                content_label="SEGMENTATION",
                content_description=listed[:LONG_STRING],
                series_description=_description(listed, now),
            )
    except (ValueError, TypeError, AttributeError) as error:
        raise VolumeError(f"no DICOM SEG can refer to this series: {error}") from error
    seg.SeriesDate, seg.SeriesTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    seg.SpecificCharacterSet = "ISO_IR 192"
    return seg


def _description(listed: str, at: datetime) -> str:
    """Return the names of the segments and the time, such as "tumor, cyst 2025-03-01 14:05:33"."""
    time = f"{at:%Y-%m-%d %H:%M:%S}"
    space = LONG_STRING - len(time) - 1
    return f"{listed if len(listed) <= space else f'{listed[: space - 1]}…'} {time}"


def _step(headers: Sequence[Dataset]) -> float:
    """Distance of the planes of two slices, mm."""
    orientation = np.array(headers[0].ImageOrientationPatient, float)
    normal = np.cross(orientation[:3], orientation[3:])
    way = np.array(headers[-1].ImagePositionPatient, float) - np.array(headers[0].ImagePositionPatient, float)
    return round(float(abs(np.dot(normal, way))) / (len(headers) - 1), 6)


def _complete(header: Dataset, step: float) -> Dataset:
    """Return a header with everything that highdicom asks a source for, empty where the standard lets it be."""
    complete = copy.copy(header)
    for name in REQUIRED_EVEN_IF_EMPTY:
        if name not in complete:
            setattr(complete, name, "")
    if complete.PatientSex not in ("M", "F", "O", ""):
        complete.PatientSex = ""
    if not complete.get("SliceThickness"):
        complete.SliceThickness = step
    if not complete.get("SpacingBetweenSlices"):
        complete.SpacingBetweenSlices = step
    if not complete.get("FrameOfReferenceUID"):
        raise VolumeError("no DICOM SEG can refer to this series: it has no FrameOfReferenceUID")
    return complete


def _segment(number: int, name: str, color: Sequence[float] | None) -> SegmentDescription:
    category, kind = LESION if any(word in name.lower() for word in LESION_WORDS) else TISSUE
    segment = SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=PRODUCT, family=ARTIFICIAL_INTELLIGENCE, version=sam3d_label.__version__
        ),
        tracking_uid=highdicom.UID(),
        tracking_id=name[:64],
    )
    segment.RecommendedDisplayCIELabValue = _cielab(color or GENERIC_ANATOMY_COLORS.get(name, (230, 60, 60)))
    return segment


def _cielab(rgb: Sequence[float]) -> list[int]:
    """Return a colour, red, green and blue 0 to 255, as DICOM writes it."""
    lightness, a, b = rgb2lab(np.clip(np.array(rgb[:3], float), 0, 255) / 255)
    return [round(lightness / 100 * 65535), round((a + 128) / 255 * 65535), round((b + 128) / 255 * 65535)]


def segment_names(seg: Dataset) -> dict[int, str]:
    """Return the names of the segments of a SEG by their number."""
    return {
        int(segment.SegmentNumber): str(segment.get("SegmentLabel") or f"segment {segment.SegmentNumber}")
        for segment in seg.get("SegmentSequence") or []
    }


def referenced_series(seg: Dataset) -> list[str]:
    """SeriesInstanceUIDs of what a SEG was drawn on."""
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
    """Of each frame its segment, the way (4, 4) from column, row and 0 to LPS mm, and its pixels (rows, columns)."""
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
    orientation = np.array(_group("PlaneOrientationSequence", own, shared).ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, _group("PixelMeasuresSequence", own, shared).PixelSpacing)
    way = np.eye(4)
    way[:3, 0], way[:3, 1] = orientation[0] * between_columns, orientation[1] * between_rows
    way[:3, 3] = np.array(_group("PlanePositionSequence", own, shared).ImagePositionPatient, float)
    return way


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
