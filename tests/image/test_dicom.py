"""DICOM series: intensities as each slice defines them, compressed pixels, and what is rejected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
)

from sam3d_label.errors import VolumeError
from sam3d_label.image.volume import Volume, save_mask
from tests.helpers.damaged import dicom_series

ROWS, COLUMNS = 6, 7


def pixels(k: int) -> np.ndarray:
    """What `dicom_series` stores in slice k, (rows, columns)."""
    return np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) + 100 * k


def change(folder: Path, k: int, **attributes: Any) -> None:
    one = dcmread(folder / f"{k:03}.dcm")
    for name, value in attributes.items():
        setattr(one, name, value)
    one.save_as(folder / f"{k:03}.dcm")


def rewrite(folder: Path, syntax: UID) -> None:
    """Store a series in another uncompressed transfer syntax."""
    for file in folder.iterdir():
        one = dcmread(file)
        if syntax == ExplicitVRBigEndian:
            one.PixelData = np.frombuffer(one.PixelData, "<i2").astype(">i2").tobytes()
        one.file_meta.TransferSyntaxUID = syntax
        one.is_implicit_VR, one.is_little_endian = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
        one.save_as(file, write_like_original=False)


def compress(folder: Path, compressor: str) -> None:
    """Store a series with the pixels compressed by ITK."""
    for file in folder.iterdir():
        original = dcmread(file)
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetUseCompression(True)
        writer.SetCompressor(compressor)
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(file))
        image = sitk.GetImageFromArray(np.frombuffer(original.PixelData, "<i2").reshape(1, ROWS, COLUMNS))
        image.SetMetaData("0008|0060", "CT")
        writer.Execute(image)
        compressed = dcmread(file)
        original.PixelData = compressed.PixelData
        original["PixelData"].is_undefined_length = True
        original.file_meta.TransferSyntaxUID = compressed.file_meta.TransferSyntaxUID
        original.save_as(file, write_like_original=False)


@pytest.mark.parametrize(
    ("slopes", "intercepts"),
    [
        ([0.5, 0.25, 0.0125, 1], [0, 0, 0, 0]),
        ([1, 1, 1, 100], [0, 0, 0, 0]),
        ([1, 1, 1, 1], [0, -1024, 0.5, 30000]),
        ([-1, 2, 1, 1], [3, 2, 1, 0]),
    ],
)
def test_each_slice_has_its_own_slope_and_intercept(
    slopes: Sequence[float], intercepts: Sequence[float], tmp_path: Path
) -> None:
    folder = dicom_series(tmp_path / "s")
    for k, (slope, intercept) in enumerate(zip(slopes, intercepts, strict=True)):
        change(folder, k, RescaleSlope=slope, RescaleIntercept=intercept)
    expected = np.stack([pixels(k).T * slopes[k] + intercepts[k] for k in range(4)], axis=-1)
    np.testing.assert_allclose(Volume.open(folder).array, expected, rtol=1e-6)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_how_pixels_are_displayed_does_not_matter(photometric: str, tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "s", PhotometricInterpretation=photometric)
    assert Volume.open(folder).array[:, :, 1].T.tolist() == (pixels(1) - 1024).tolist()


def test_unsigned_pixels_use_all_their_bits(tmp_path: Path) -> None:
    data = np.full(ROWS * COLUMNS, 65_000, "<u2").tobytes()
    folder = dicom_series(tmp_path / "s", PixelRepresentation=0, PixelData=data)
    assert set(Volume.open(folder).array.flatten()) == {65_000 - 1024}


def test_bits_that_do_not_belong_to_a_pixel_are_left_out(tmp_path: Path) -> None:
    stored = np.array([-5, 7] * 21, "<i2")
    data = ((stored & 0x0FFF) | 0x5000).astype("<u2").tobytes()  # an overlay in the upper bits
    folder = dicom_series(tmp_path / "s", BitsStored=12, HighBit=11, PixelData=data)
    assert set(Volume.open(folder).array.flatten()) == {-5 - 1024, 7 - 1024}


def test_a_series_without_slope_holds_what_is_stored(tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "s", RescaleSlope=None, RescaleIntercept=None)
    assert Volume.open(folder).array[:, :, 0].T.tolist() == pixels(0).tolist()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_every_uncompressed_transfer_syntax_is_read(syntax: UID, tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "s")
    rewrite(folder, syntax)
    assert Volume.open(folder).array[:, :, 2].T.tolist() == (pixels(2) - 1024).tolist()


@pytest.mark.parametrize(("compressor", "syntax"), [("JPEG2000", JPEG2000Lossless), ("JPEG", JPEGLosslessSV1)])
def test_compressed_pixels_are_decoded_exactly(compressor: str, syntax: str, tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "s")
    compress(folder, compressor)
    assert dcmread(folder / "000.dcm").file_meta.TransferSyntaxUID == syntax
    change(folder, 3, RescaleSlope=0.5)
    array = Volume.open(folder).array
    assert array[:, :, 2].T.tolist() == (pixels(2) - 1024).tolist()
    assert array[:, :, 3].T.tolist() == (pixels(3) * 0.5 - 1024).tolist()


@pytest.mark.parametrize("compressor", ["JPEG2000", "JPEG"])
def test_compressed_pixels_of_another_size_are_rejected(compressor: str, tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "s")
    compress(folder, compressor)
    for k in range(4):
        change(folder, k, Rows=ROWS * 2)
    with pytest.raises(VolumeError, match="its compressed pixels claim"):
        Volume.open(folder)


@pytest.mark.parametrize("compressor", ["JPEG2000", "JPEG", "RLE"])
def test_damaged_compressed_pixels_are_rejected_or_of_the_right_size(compressor: str, tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "s")
    if compressor == "RLE":
        for file in folder.iterdir():
            one = dcmread(file)
            one.compress(RLELossless)
            one.save_as(file)
    else:
        compress(folder, compressor)
    file = folder / "001.dcm"
    whole = file.read_bytes()
    rejected = 0
    for cut in range(1, 60, 7):
        file.write_bytes(whole[:-cut])
        try:
            assert Volume.open(folder).shape == (COLUMNS, ROWS, 4)
        except VolumeError:
            rejected += 1
    assert rejected


def test_the_modality_is_known(tmp_path: Path) -> None:
    assert Volume.open(dicom_series(tmp_path / "ct")).modality == "CT"
    assert Volume.open(dicom_series(tmp_path / "mr", Modality="MR")).modality == "MR"


def test_other_files_of_a_folder_are_left_out(tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "s")
    (folder / "README.txt").write_text("not DICOM")
    (folder / ".DS_Store").write_bytes(bytes(300))
    assert Volume.open(folder).shape == (COLUMNS, ROWS, 4)


def test_masks_of_a_tilted_gantry_are_written_where_itk_opens_them(tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "s")
    for k in range(4):
        change(folder, k, ImagePositionPatient=[-10, -20 + 0.6 * k, 2.5 * k])
    volume = Volume.open(folder)
    mask = np.ones(volume.shape, np.uint8)
    save_mask(tmp_path / "mask.nrrd", mask, volume)
    last = sitk.ReadImage(str(tmp_path / "mask.nrrd")).TransformIndexToPhysicalPoint([0, 0, 3])
    np.testing.assert_allclose(last, [-10, -18.2, 7.5], atol=1e-3)
    with pytest.raises(VolumeError, match=r"axes are sheared .* write \.nrrd"):
        save_mask(tmp_path / "mask.nii.gz", mask, volume)


def test_the_only_series_in_the_folders_of_an_export_is_opened(tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "export" / "ST1" / "SE1")
    (tmp_path / "export" / "README.txt").write_text("not DICOM")
    (tmp_path / "export" / "empty").mkdir()
    np.testing.assert_array_equal(Volume.open(tmp_path / "export").array, Volume.open(folder).array)


def test_several_series_in_the_folders_of_an_export_are_named(tmp_path: Path) -> None:
    for name in ("SE1", "SE2"):
        dicom_series(tmp_path / "export" / "ST1" / name)
    with pytest.raises(VolumeError, match=r"its folders hold 2, give one of ST1/SE1, ST1/SE2"):
        Volume.open(tmp_path / "export")


def test_a_folder_without_dicom_reports_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(VolumeError, match="0 DICOM series"):
        Volume.open(tmp_path)
