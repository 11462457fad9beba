"""DICOM series as scanners write them, and as they sometimes arrive: reversed, oblique, tilted, incomplete."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from sam3d_label.image.volume import Volume
from tests.helpers.app_helpers import ball

STORAGE = {"CT": CTImageStorage, "MR": MRImageStorage}
SPACING = (2.0, 1.2, 1.1)
"""Between slices, rows and columns, mm."""

AXIAL = np.array([1.0, 0, 0, 0, 1.0, 0])
TURNED = np.radians(12)
OBLIQUE = np.array([np.cos(TURNED), np.sin(TURNED), 0, -np.sin(TURNED), np.cos(TURNED), 0])
CORONAL = np.array([1.0, 0, 0, 0, 0, -1.0])


def series_array() -> np.ndarray:
    """Whole numbers with a bright ball in the middle, (columns, rows, slices)."""
    return np.rint(ball()).astype(np.int16)


def write_series(
    folder: Path,
    array: np.ndarray | None = None,
    *,
    modality: str = "CT",
    orientation: np.ndarray = AXIAL,
    step: Sequence[float] | None = None,
    reverse: bool = False,
    skip: Sequence[int] = (),
    patient: str = "P-17",
    study: str | None = None,
    **attributes: Any,
) -> tuple[str, np.ndarray]:
    """Writes a series, one file for each slice.

    Args:
        folder: Where to.
        array: Intensities (columns, rows, slices); without it, the ball.
        modality: CT or MR.
        orientation: Of rows and columns, LPS.
        step: From a slice to the next, LPS mm; perpendicular to the slices without it.
        reverse: Number the instances from the last slice to the first.
        skip: Slices that are missing.
        patient: PatientID.
        study: StudyInstanceUID; a new one without it.
        attributes: What else every instance shall have, or None for what it shall not have.

    Returns:
        SeriesInstanceUID, and the affine from i, j, k to RAS mm.
    """
    array = series_array() if array is None else array
    normal = np.cross(orientation[:3], orientation[3:])
    way = np.array(step if step is not None else normal * SPACING[0], float)
    origin = np.array([-40.0, -35.5, -20.25])
    series, study, frame = generate_uid(), study or generate_uid(), generate_uid()
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(array.shape[2]):
        number = array.shape[2] - k if reverse else k + 1
        instance = _instance(array[:, :, k].T, modality, orientation, origin + k * way)
        instance.PatientID, instance.PatientName = patient, "Müller^Käthe"
        instance.StudyInstanceUID, instance.SeriesInstanceUID, instance.FrameOfReferenceUID = study, series, frame
        instance.InstanceNumber = number
        for name, value in attributes.items():
            if value is None:
                delattr(instance, name)
            else:
                setattr(instance, name, value)
        if k not in skip:
            instance.save_as(folder / f"{series}-{number}.dcm", write_like_original=False)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = orientation[:3] * SPACING[2], orientation[3:] * SPACING[1]
    affine[:3, 2], affine[:3, 3] = way, origin
    return series, np.diag([-1.0, -1, 1, 1]) @ affine


def _instance(pixels: np.ndarray, modality: str, orientation: np.ndarray, position: np.ndarray) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = STORAGE[modality], ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    instance = pydicom.FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    instance.is_little_endian, instance.is_implicit_VR = True, False
    instance.SpecificCharacterSet = "ISO_IR 100"
    instance.SOPClassUID, instance.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    instance.Modality, instance.StudyDate, instance.StudyTime = modality, "20240102", "101112"
    instance.PatientBirthDate, instance.PatientSex = "19500101", "F"
    instance.AccessionNumber, instance.StudyID, instance.ReferringPhysicianName = "A1", "S1", ""
    instance.ImagePositionPatient = [round(float(value), 6) for value in position]
    instance.ImageOrientationPatient = [round(float(value), 8) for value in orientation]
    instance.PixelSpacing = [SPACING[1], SPACING[2]]
    instance.SliceThickness = SPACING[0]
    instance.Rows, instance.Columns = pixels.shape
    instance.SamplesPerPixel, instance.PhotometricInterpretation = 1, "MONOCHROME2"
    instance.BitsAllocated, instance.BitsStored, instance.HighBit, instance.PixelRepresentation = 16, 16, 15, 1
    if modality == "CT":
        instance.RescaleSlope, instance.RescaleIntercept = 1, 0
    instance.PixelData = np.ascontiguousarray(pixels, np.int16).tobytes()
    return instance


def label_of(volume: Volume) -> np.ndarray:
    """Return two structures without any symmetry, of the values 1 and 3."""
    label = np.zeros(volume.shape, np.uint8)
    label[3:9, 4:15, 2:6] = 1
    label[12:25, 5:7, 5:12] = 3
    return label


def sent(seg: Dataset) -> Dataset:
    """Return an instance as it arrives after it was stored and fetched."""
    buffer = io.BytesIO()
    seg.save_as(buffer, write_like_original=False)
    buffer.seek(0)
    return pydicom.dcmread(buffer)
