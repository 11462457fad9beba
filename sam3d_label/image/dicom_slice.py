"""One DICOM instance with one slice: its header, checked, and its pixels."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from sam3d_label.errors import VolumeError
from sam3d_label.image.dicom_codec import CODECS, DAMAGED, decode
from sam3d_label.image.dicom_file import HEAD, begins_as_dicom, has_preamble, is_explicit

config.settings.reading_validation_mode = config.IGNORE  # its warnings show the values of elements

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
NEWER_SYNTAXES = {
    "1.2.840.10008.1.2.4.110": "JPEG XL (Lossless Only)",
    "1.2.840.10008.1.2.4.111": "JPEG XL, Recompression of JPEG",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.4.201": "High-Throughput JPEG 2000 (Lossless Only)",
    "1.2.840.10008.1.2.4.202": "High-Throughput JPEG 2000 with RPCL Options (Lossless Only)",
    "1.2.840.10008.1.2.4.203": "High-Throughput JPEG 2000",
    "1.2.840.10008.1.2.4.205": "JPIP, HTJ2K Referenced",
}
"""Names that pydicom 2 does not know, by transfer syntax."""

DEFER = 2**16
"""Bytes of a header's element above which it is skipped: nothing that a volume needs is that long."""

HAS_PIXELS = ("Image Storage", "Segmentation Storage", "Dose Storage", "Parametric Map Storage", "Volume Storage")
"""Parts of the names of SOP classes that may have pixels; those of others are passed over."""

REEXPORT = "export the series again as Explicit VR Little Endian"
GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")


@dataclass(frozen=True)
class PixelKind:
    """Format of a stored pixel.

    Attributes:
        itemsize: Bytes of a pixel.
        stored: Bits that belong to it.
        high: Position of the highest of them.
        signed: Whether stored values may be negative.
    """

    itemsize: int
    stored: int
    high: int
    signed: bool

    def meaning(self, raw: np.ndarray) -> np.ndarray:
        """Return the values of raw pixels, without the bits that do not belong to them."""
        values = raw.astype(raw.dtype.newbyteorder("="))
        bits = 8 * self.itemsize
        if self.signed:
            values = values.view(f"i{self.itemsize}")
        return (values << (bits - 1 - self.high)) >> (bits - self.stored) if self.stored < bits else values


@dataclass(frozen=True)
class Slice:
    """A single slice.

    Attributes:
        file: Where it is stored.
        header: Its elements without the pixels.
        series: UID of its series.
        pixels: Byte of the file at which the element with the pixels begins.
        kind: How a pixel is stored.
        position: Middle of its first pixel, LPS mm.
        orientation: Unit vectors (2, 3) along a row and along a column, LPS.
        spacing: From pixel to pixel along a row and along a column, mm.
        shape: Columns and rows.
        slope: Factor from stored values to intensities.
        intercept: Intensity of a stored value of 0.
    """

    file: Path
    header: Dataset
    series: str
    pixels: int
    kind: PixelKind
    position: np.ndarray
    orientation: np.ndarray
    spacing: tuple[float, float]
    shape: tuple[int, int]
    slope: float
    intercept: float

    def values(self) -> np.ndarray:
        """Return intensities (columns, rows), float64: stored values times slope plus intercept of this slice.

        Raises:
            VolumeError: The pixels are cut off, damaged, or of a kind that is not supported.
        """
        return self._stored().T.astype(np.float64) * self.slope + self.intercept

    def _stored(self) -> np.ndarray:
        """Return the stored values (rows, columns), whole numbers."""
        syntax = self.header.file_meta.TransferSyntaxUID
        nbytes = self.shape[0] * self.shape[1] * self.kind.itemsize
        with self.file.open("rb") as file:
            length, start = _pixel_element(file, self.pixels, syntax)
            available = os.fstat(file.fileno()).st_size - start
            if syntax not in NATIVE:
                return self._decode(file.read())
            if length not in (nbytes, nbytes + nbytes % 2):
                raise VolumeError(
                    f"{self.file.name} has {length} bytes of pixels, its header claims {nbytes}: {REEXPORT}"
                )
            if length > available:
                raise VolumeError(f"{self.file.name} is cut off: copy or export it again")
            order = ">" if syntax == ExplicitVRBigEndian else "<"
            raw = np.frombuffer(file.read(nbytes), f"{order}u{self.kind.itemsize}")
        return self.kind.meaning(raw.reshape(self.shape[1], self.shape[0]))

    def _decode(self, encapsulated: bytes) -> np.ndarray:
        try:
            return decode(encapsulated, self.header.file_meta.TransferSyntaxUID, self.header, self.kind.itemsize)
        except VolumeError as error:
            raise VolumeError(f"{self.file.name}: {error}") from error
        except (MemoryError, OSError):
            raise
        except Exception as error:  # pydicom and the codecs raise errors of many kinds
            raise VolumeError(f"{self.file.name}: {DAMAGED}") from error


def read_slice(file: Path) -> Slice | None:
    """Read and check the header of a DICOM instance.

    Args:
        file: A file of any kind.

    Returns:
        The slice; None for a file that is not DICOM, for a DICOMDIR, whose references are not followed, and for an
        instance that is no image, such as a structured report.

    Raises:
        VolumeError: It is damaged, or not one slice of a volume.
    """
    with file.open("rb") as opened:
        head = opened.read(HEAD)
        if not begins_as_dicom(head):
            return None
        try:
            meta = _file_meta(opened, head)
            if meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
                return None
            if "TransferSyntaxUID" not in meta and not has_preamble(head):
                meta.TransferSyntaxUID = ExplicitVRLittleEndian if is_explicit(head) else ImplicitVRLittleEndian
            if _is_known(meta.get("MediaStorageSOPClassUID")) and not _has_pixels(meta.MediaStorageSOPClassUID):
                return None
            _require_syntax(file, meta)
            opened.seek(0)
            header: Dataset = dcmread(opened, stop_before_pixels=True, defer_size=DEFER, force=True)
            header.file_meta.TransferSyntaxUID = meta.TransferSyntaxUID
            if "Rows" not in header and not _has_pixels(header.get("SOPClassUID")):
                return None
            return _slice(file, header, opened.tell())
        except VolumeError:
            raise
        except (Exception, RecursionError) as error:
            raise VolumeError(f"{file.name} is damaged ({type(error).__name__}): copy or export it again") from error


def _file_meta(opened: BinaryIO, head: bytes) -> Dataset:
    """Return the elements about the file itself; none in a file that begins with those of the instance."""
    opened.seek(HEAD if has_preamble(head) else 0)
    return read_dataset(opened, False, True, stop_when=lambda tag, vr, length: tag.group != 2)


def _is_known(kind: object) -> bool:
    return UID(str(kind or "")).name.endswith("Storage")


def _has_pixels(kind: object) -> bool:
    """Return whether instances of a SOP class have pixels, as reports and presentation states do not."""
    return any(part in UID(str(kind or "")).name for part in HAS_PIXELS)


def _require_syntax(file: Path, meta: Dataset) -> None:
    syntax = UID(str(meta.get("TransferSyntaxUID") or ""))
    if syntax == DeflatedExplicitVRLittleEndian or syntax not in (*NATIVE, *CODECS):
        name = NEWER_SYNTAXES.get(syntax, syntax.name) if syntax else "missing"
        raise VolumeError(f"{file.name}: its transfer syntax ({name}) is not supported: {REEXPORT}")


def _slice(file: Path, header: Dataset, pixels: int) -> Slice:
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise VolumeError(f"{file.name} stores several frames in an instance: export it with one slice an instance")
    missing = [name for name in GEOMETRY if header.get(name) in (None, "")]
    if missing:
        raise VolumeError(
            f"{file.name} has no {', '.join(missing)}, so that its position or size is not known: {REEXPORT}"
        )
    if int(header.get("SamplesPerPixel") or 1) != 1 or not str(
        header.get("PhotometricInterpretation", "MONOCHROME2")
    ).startswith("MONOCHROME"):
        raise VolumeError(f"{file.name} is in colour: export the series with one number a pixel")
    if header.get("ModalityLUTSequence"):
        raise VolumeError(f"{file.name} maps intensities by a table, which is not supported: export it with a slope")
    position = _vector(file, header, "ImagePositionPatient", 3)
    orientation = _vector(file, header, "ImageOrientationPatient", 6).reshape(2, 3)
    between_rows, between_columns = _vector(file, header, "PixelSpacing", 2)
    if min(between_rows, between_columns) <= 0:
        raise VolumeError(f"{file.name} has a PixelSpacing of {between_rows:g} x {between_columns:g} mm: {REEXPORT}")
    lengths = np.linalg.norm(orientation, axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(orientation[0] @ orientation[1]) > 0.01:
        raise VolumeError(f"{file.name} has an ImageOrientationPatient that is no pair of directions: {REEXPORT}")
    columns, rows = int(header.Columns), int(header.Rows)
    if min(columns, rows) < 1:
        raise VolumeError(f"{file.name} has {rows} rows and {columns} columns: {REEXPORT}")
    slope, intercept = _number(file, header, "RescaleSlope", 1.0), _number(file, header, "RescaleIntercept", 0.0)
    if slope == 0:
        raise VolumeError(f"{file.name} has a RescaleSlope of 0, so that its intensities are lost: {REEXPORT}")
    return Slice(
        file=file,
        header=header,
        series=str(header.get("SeriesInstanceUID", "")),
        pixels=pixels,
        kind=_pixel_kind(file, header),
        position=position,
        orientation=orientation / lengths[:, None],
        spacing=(float(between_columns), float(between_rows)),
        shape=(columns, rows),
        slope=slope,
        intercept=intercept,
    )


def _pixel_kind(file: Path, header: Dataset) -> PixelKind:
    allocated, stored = int(header.get("BitsAllocated") or 0), int(header.get("BitsStored") or 0)
    high = int(header.get("HighBit") if header.get("HighBit") is not None else stored - 1)
    if allocated not in (8, 16, 32) or not 0 < stored <= allocated or not stored - 1 <= high < allocated:
        raise VolumeError(f"{file.name} has {stored} of {allocated} bits a pixel, which is not supported: {REEXPORT}")
    if allocated == 8 and header.file_meta.TransferSyntaxUID == ExplicitVRBigEndian:
        raise VolumeError(f"{file.name} has 8-bit pixels in big-endian order, which is not supported: {REEXPORT}")
    return PixelKind(allocated // 8, stored, high, int(header.get("PixelRepresentation") or 0) == 1)


def _vector(file: Path, header: Dataset, name: str, count: int) -> np.ndarray:
    values = np.atleast_1d(np.array(header[name].value, float))
    if values.shape != (count,) or not np.isfinite(values).all():
        raise VolumeError(f"{file.name} has a {name} that is not {count} numbers: {REEXPORT}")
    return values


def _number(file: Path, header: Dataset, name: str, default: float) -> float:
    try:
        number = default if header.get(name) in (None, "") else float(header[name].value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise VolumeError(f"{file.name} has a {name} that is no number: {REEXPORT}")
    return number


def _pixel_element(file: BinaryIO, start: int, syntax: UID) -> tuple[int, int]:
    """Return length and first byte of the pixels, whose element begins at `start`."""
    file.seek(start)
    order: Literal["big", "little"] = "big" if syntax == ExplicitVRBigEndian else "little"
    element = file.read(8 if syntax == ImplicitVRLittleEndian else 12)
    tag = tuple(int.from_bytes(element[at : at + 2], order) for at in (0, 2))
    if len(element) < 8 or tag != (0x7FE0, 0x0010):
        raise VolumeError(f"{Path(file.name).name} has no pixels (PixelData): {REEXPORT}")
    if syntax != ImplicitVRLittleEndian and element[4:6] not in (b"OW", b"OB"):
        raise VolumeError(f"{Path(file.name).name} has pixels of an unknown kind: {REEXPORT}")
    return int.from_bytes(element[-4:], order), start + len(element)
