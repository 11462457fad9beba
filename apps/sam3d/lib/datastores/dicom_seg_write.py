"""Write label maps as DICOM SEG."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime

import highdicom
import numpy as np
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from monailabel.datastore.utils.colors import GENERIC_ANATOMY_COLORS
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from skimage.color import rgb2lab

import sam3d_label
from sam3d_label.errors import VolumeError
from sam3d_label.studies.label_names import name_fault, name_values

PRODUCT = "SAM3D for MONAI Label"
SERIES_NUMBER = 300
LONG_STRING = 64
"""Characters of DICOM's LO."""

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
    headers: Sequence[Dataset],
    label: np.ndarray,
    names: Mapping[int, str],
    colors: Mapping[str, Sequence[float]] | None = None,
    earlier: int = 0,
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


def make_label_seg(
    headers: Sequence[Dataset], label: np.ndarray, info: Mapping[str, object], labels: Sequence[str], earlier: int
) -> Dataset:
    """Make a DICOM SEG of a label map with the names and colours of the label's record.

    Args:
        headers: Of the slices k of the image.
        label: Label map (I, J, K); negative values are ignored voxels, which a SEG cannot hold.
        info: The label's record, with `label_info`.
        labels: Names of what the app segments, for values that the record does not name.
        earlier: How many DICOM SEGs the study has.

    Raises:
        VolumeError: A value has no usable name, or the series lacks what a SEG has to refer to.
    """
    label = np.maximum(label, 0)
    present = [int(value) for value in np.unique(label) if value]
    names = name_values(present or [1], info, labels)
    for name in names.values():
        if reason := name_fault(name):
            raise VolumeError(f"{name[:60]!r} cannot be the name of a segment: {reason}")
    return make_seg(headers, label, names, _colors(info.get("label_info")), earlier)


def _colors(listed: object) -> dict[str, Sequence[float]]:
    """Return the colours of a label's record by structure, without those that are no colours."""
    return {
        one["name"]: one["color"]
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, Mapping) and _is_color(one.get("color")) and isinstance(one.get("name"), str)
    }


def _is_color(value: object) -> bool:
    numbers = value if isinstance(value, list | tuple) else []
    return len(numbers) >= 3 and all(isinstance(number, int | float) for number in numbers)


def _description(listed: str, at: datetime) -> str:
    """Return the names of the segments and the time, such as "tumor, cyst 2025-03-01 14:05:33"."""
    time = f"{at:%Y-%m-%d %H:%M:%S}"
    space = LONG_STRING - len(time) - 1
    return f"{listed if len(listed) <= space else f'{listed[: space - 1]}…'} {time}"


def _step(headers: Sequence[Dataset]) -> float:
    """Return the distance between the planes of two slices, mm."""
    orientation = np.array(headers[0].ImageOrientationPatient, float)
    normal = np.cross(orientation[:3], orientation[3:])
    way = np.array(headers[-1].ImagePositionPatient, float) - np.array(headers[0].ImagePositionPatient, float)
    return round(float(abs(np.dot(normal, way))) / (len(headers) - 1), 6)


def _complete(header: Dataset, step: float) -> Dataset:
    """Return a header with all attributes that highdicom requires of a source, empty where the standard allows it."""
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
