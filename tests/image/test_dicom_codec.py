"""Compressed DICOM pixels of real encoders give the stored values, or are rejected by the name of their compression."""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pillow_jpls  # noqa: F401  registers JPEG-LS with Pillow
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_pixel_data_frame
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from sam3d_label.errors import VolumeError
from sam3d_label.image.volume import Volume
from tests.helpers.damaged import dicom_series

ROWS, COLUMNS, SLICES = 31, 40, 3
KINDS = {"8 bits": (8, 8, 0), "12 bits": (16, 12, 0), "16 bits": (16, 16, 0)}
KINDS |= {"12 bits, signed": (16, 12, 1), "16 bits, signed": (16, 16, 1)}
"""BitsAllocated, BitsStored and PixelRepresentation by name."""

Encoder = Callable[[np.ndarray, int, int], bytes]


def pillow(**options: Any) -> Encoder:
    """Encodes with Pillow, which takes the bits of a pixel as an unsigned number."""

    def encode(stored: np.ndarray, bits: int, _: int) -> bytes:
        plain = (stored.astype(np.int64) & (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
        encoded = io.BytesIO()
        Image.fromarray(plain).save(encoded, **options)
        return encoded.getvalue()

    return encode


def by_itk(compressor: str) -> Encoder:
    """Encodes with GDCM through ITK, which keeps the sign."""

    def encode(stored: np.ndarray, bits: int, signed: int) -> bytes:
        kind = np.int16 if signed else np.uint8 if bits == 8 else np.uint16
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetUseCompression(True)
        writer.SetCompressor(compressor)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "one.dcm")
            writer.SetFileName(str(file))
            writer.Execute(sitk.GetImageFromArray(stored.astype(kind)[None]))
            return next(generate_pixel_data_frame(dcmread(file).PixelData, 1))

    return encode


LOSSLESS: dict[str, tuple[UID, Encoder]] = {
    "JPEG lossless": (JPEGLosslessSV1, by_itk("JPEG")),
    "JPEG-LS": (JPEGLSLossless, pillow(format="JPEG-LS")),
    "JPEG 2000": (JPEG2000Lossless, by_itk("JPEG2000")),
    "JPEG 2000 by Pillow": (JPEG2000Lossless, pillow(format="JPEG2000", irreversible=False, no_jp2=True)),
}
LOSSY: dict[str, tuple[UID, Encoder, int]] = {
    "JPEG baseline": (JPEGBaseline8Bit, pillow(format="JPEG", quality=95), 6),
    "JPEG-LS near lossless": (JPEGLSNearLossless, pillow(format="JPEG-LS", near_lossless=2), 2),
    "JPEG 2000 lossy": (
        JPEG2000,
        pillow(format="JPEG2000", irreversible=True, quality_mode="dB", quality_layers=[60], no_jp2=True),
        4,
    ),
}


def stored_slice(k: int, bits: int, signed: int) -> np.ndarray:
    """A smooth slice (rows, columns) that uses the whole range of its bits."""
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    wave = (np.sin(rows / 5 + k) * np.cos(columns / 7) + 1) / 2
    lowest = -(2 ** (bits - 1)) if signed else 0
    return np.rint(lowest + wave * (2**bits - 1)).astype(np.int64)


def series(folder: Path, kind: str, make: Callable[[np.ndarray], bytes], syntax: UID) -> list[np.ndarray]:
    """Write a series whose slices `make` turns into the value of PixelData, and return what is stored in it."""
    allocated, bits, signed = KINDS[kind]
    dicom_series(folder, SLICES, Rows=ROWS, Columns=COLUMNS, RescaleIntercept=0)
    stored = [stored_slice(k, bits, signed) for k in range(SLICES)]
    for k, file in enumerate(sorted(folder.iterdir())):
        one = dcmread(file)
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = allocated, bits, bits - 1, signed
        one.PixelData = make(stored[k])
        one["PixelData"].VR = "OB" if allocated == 8 or syntax.is_compressed else "OW"
        one["PixelData"].is_undefined_length = syntax.is_compressed
        one.file_meta.TransferSyntaxUID = syntax
        one.save_as(file, write_like_original=False)
    return stored


def opened(folder: Path) -> list[np.ndarray]:
    """Slices (rows, columns) of a series."""
    return list(Volume.open(folder).array.transpose(2, 1, 0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("codec", LOSSLESS)
def test_lossless_pixels_are_decoded_exactly(codec: str, kind: str, tmp_path: Path) -> None:
    syntax, encode = LOSSLESS[codec]
    _, bits, signed = KINDS[kind]
    if bits == 12 and codec == "JPEG 2000 by Pillow":
        pytest.skip("Pillow writes 8 or 16 bits")
    if signed and codec == "JPEG 2000 by Pillow":
        pytest.skip("Pillow writes numbers without a sign, which its header says and DICOM's would contradict")
    stored = series(tmp_path / "s", kind, lambda one: encapsulate([encode(one, bits, signed)]), syntax)
    np.testing.assert_array_equal(opened(tmp_path / "s"), stored)


@pytest.mark.parametrize("kind", KINDS)
def test_run_lengths_are_decoded_exactly(kind: str, tmp_path: Path) -> None:
    allocated, bits, _ = KINDS[kind]
    plain = np.uint8 if allocated == 8 else np.dtype("<u2")
    native = UID("1.2.840.10008.1.2.1")
    stored = series(tmp_path / "s", kind, lambda one: (one & (2**bits - 1)).astype(plain).tobytes(), native)
    for file in (tmp_path / "s").iterdir():
        one = dcmread(file)
        one.compress(RLELossless)
        one.save_as(file)
    np.testing.assert_array_equal(opened(tmp_path / "s"), stored)


@pytest.mark.parametrize("codec", LOSSY)
def test_lossy_pixels_are_decoded_closely(codec: str, tmp_path: Path) -> None:
    syntax, encode, off = LOSSY[codec]
    stored = series(tmp_path / "s", "8 bits", lambda one: encapsulate([encode(one, 8, 0)]), syntax)
    assert np.abs(np.array(opened(tmp_path / "s")) - stored).max() <= off


@pytest.mark.parametrize("fragments", [2, 5])
def test_pixels_in_several_fragments_are_joined(fragments: int, tmp_path: Path) -> None:
    syntax, encode = LOSSLESS["JPEG-LS"]
    stored = series(
        tmp_path / "s",
        "16 bits",
        lambda one: encapsulate([encode(one, 16, 0)], fragments_per_frame=fragments, has_bot=False),
        syntax,
    )
    np.testing.assert_array_equal(opened(tmp_path / "s"), stored)


def syntax_element(uid: str) -> bytes:
    """The element that names a transfer syntax; pydicom writes no syntax that it does not know."""
    padded = uid.encode() + b"\0" * (len(uid) % 2)
    return b"\x02\0\x10\0UI" + struct.pack("<H", len(padded)) + padded


@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        ("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000"),
        ("1.2.840.10008.1.2.4.203", "High-Throughput JPEG 2000"),
        ("1.2.840.10008.1.2.4.110", "JPEG XL"),
        ("1.2.840.10008.1.2.4.100", "MPEG2"),
        ("1.2.840.10008.1.2.4.92", "JPEG 2000 Part 2"),
        ("1.2.840.10008.1.2.1.99", "Deflated"),
        ("1.2.3.4", "1.2.3.4"),
    ],
)
def test_other_compression_is_rejected_by_name(syntax: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    jpegls, encode = LOSSLESS["JPEG-LS"]
    series(folder, "16 bits", lambda one: encapsulate([encode(one, 16, 0)]), jpegls)
    for file in folder.iterdir():
        data, (old, new) = file.read_bytes(), (syntax_element(uid) for uid in (jpegls, syntax))
        assert old in data
        group_length = struct.unpack_from("<I", data, 140)[0] + len(new) - len(old)
        file.write_bytes(data[:140] + struct.pack("<I", group_length) + data[144:].replace(old, new, 1))
    with pytest.raises(VolumeError, match=rf"its transfer syntax \({name}.*export the series again"):
        Volume.open(folder)
