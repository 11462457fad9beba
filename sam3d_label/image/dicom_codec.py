"""Compressed pixels of DICOM: JPEG, JPEG-LS, JPEG 2000 and RLE, decoded by GDCM.

GDCM reads a temporary file with only these pixels, after their own size has been compared with the header.
"""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_pixel_data_fragment
from pydicom.filebase import DicomBytesIO
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from sam3d_label.errors import VolumeError

JPEG_LOSSLESS = UID("1.2.840.10008.1.2.4.57")
JPEG = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEG_LOSSLESS, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless)
CODECS = (*JPEG, JPEG2000Lossless, JPEG2000, RLELossless)
"""Transfer syntaxes of compressed pixels that are decoded."""

FRAME_STARTS = {0xC0, 0xC1, 0xC2, 0xC3, 0xF7}
STANDALONE = {0x01, *range(0xD0, 0xD9)}
KEPT = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
DAMAGED = "its compressed pixels are damaged: copy or export the series again"


def decode(encapsulated: bytes, syntax: UID, header: Dataset, itemsize: int) -> np.ndarray:
    """Decode the pixels of one slice.

    Args:
        encapsulated: Value of PixelData, from its first byte to the end of the file or later.
        syntax: One of `CODECS`.
        header: The slice's elements.
        itemsize: Bytes of a pixel, decoded.

    Returns:
        Stored values (rows, columns).

    Raises:
        VolumeError: The pixels are damaged, or claim another size than the header.
    """
    rows, columns = int(header.Rows), int(header.Columns)
    frame = _frame(encapsulated)
    claimed = _size(frame, syntax)
    if claimed not in (None, (rows, columns)):
        raise VolumeError(f"its compressed pixels claim {claimed} rows and columns, its header {(rows, columns)}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "slice.dcm")
        _write(file, frame, syntax, header)
        try:
            image = sitk.ReadImage(str(file), sitk.sitkInt32 if itemsize < 4 else sitk.sitkFloat64, "GDCMImageIO")
        except RuntimeError as error:
            raise VolumeError(DAMAGED) from error
    stored = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() != 1 or stored.size != rows * columns:
        raise VolumeError(DAMAGED)
    return stored.reshape(rows, columns)


def _frame(encapsulated: bytes) -> bytes:
    """Return the one frame, which may be spread over several fragments."""
    stream = DicomBytesIO(encapsulated)
    stream.is_little_endian = True
    try:
        _, *fragments = generate_pixel_data_fragment(stream)  # the first is a table of offsets
    except (ValueError, EOFError, struct.error) as error:
        raise VolumeError(DAMAGED) from error
    if not fragments:
        raise VolumeError(DAMAGED)
    return b"".join(fragments)


def _size(frame: bytes, syntax: UID) -> tuple[int, int] | None:
    """Return rows and columns that a JPEG of any kind claims; None for RLE, which claims none."""
    if syntax == RLELossless:
        return None
    size = _jpeg_size(frame) if syntax in JPEG else _jpeg2000_size(frame)
    if size is None:
        raise VolumeError(DAMAGED)
    return size


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    at = 2
    while frame[:2] == b"\xff\xd8" and at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF or marker in STANDALONE:
            at += 1 if marker == 0xFF else 2
        elif marker in FRAME_STARTS:
            rows, columns = struct.unpack(">HH", frame[at + 5 : at + 9])
            return rows, columns
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None


def _jpeg2000_size(frame: bytes) -> tuple[int, int] | None:
    start = frame[:4096].find(b"\xff\x4f\xff\x51")
    if start < 0 or len(frame) < start + 24:
        return None
    width, height, left, top = struct.unpack(">4I", frame[start + 8 : start + 24])
    return height - top, width - left


def _write(file: Path, frame: bytes, syntax: UID, header: Dataset) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    meta.TransferSyntaxUID = syntax
    instance = Dataset()
    instance.file_meta = meta
    instance.is_little_endian, instance.is_implicit_VR = True, False
    instance.SOPClassUID, instance.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    for name in KEPT:
        if name in header:
            setattr(instance, name, header[name].value)
    instance.SamplesPerPixel, instance.PhotometricInterpretation = 1, "MONOCHROME2"
    instance.PixelData = encapsulate([frame])
    instance["PixelData"].is_undefined_length = True
    instance.save_as(file, write_like_original=False)
