"""Folders as archives export them: reports and localizers next to a series, files without preamble, lost files."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from sam3d_label.errors import VolumeError
from sam3d_label.image.volume import Volume
from tests.helpers.damaged import dicom_series

SHAPE = (7, 6, 4)


def write_report(file: Path, kind: UID = EnhancedSRStorage) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report = Dataset()
    report.file_meta, report.is_little_endian, report.is_implicit_VR = meta, True, False
    report.SOPClassUID, report.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    report.Modality, report.SeriesInstanceUID = "SR", generate_uid()
    file.parent.mkdir(parents=True, exist_ok=True)
    report.save_as(file, write_like_original=False)


@pytest.mark.parametrize("kind", [EnhancedSRStorage, UID("1.2.840.10008.5.1.4.1.1.66"), UID("1.3.12.2.1107.5.9.1")])
def test_instances_without_pixels_next_to_a_series_are_passed_over(
    kind: UID, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = dicom_series(tmp_path / "s")
    for number in range(3):
        write_report(folder / f"report{number}.dcm", kind)
    with caplog.at_level(logging.INFO):
        assert Volume.open(folder).shape == SHAPE
    assert [record.getMessage() for record in caplog.records] == [
        "3 DICOM files without pixels are passed over next to 4 slices"
    ]


def test_a_folder_of_structured_reports_is_rejected(tmp_path: Path) -> None:
    write_report(tmp_path / "export" / "SE1" / "report.dcm")
    for folder in (tmp_path / "export", tmp_path / "export" / "SE1"):
        with pytest.raises(VolumeError, match="0 DICOM series with pixels, only reports"):
            Volume.open(folder)


def test_the_only_folder_with_slices_is_opened(tmp_path: Path) -> None:
    dicom_series(tmp_path / "export" / "SE1")
    write_report(tmp_path / "export" / "SE2" / "report.dcm")
    assert Volume.open(tmp_path / "export").shape == SHAPE


def test_the_series_of_a_folder_are_named(tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "s", SeriesDescription="Thorax 1.0")
    localizer = dicom_series(tmp_path / "localizer", 1, SeriesNumber=1, Modality="MR")
    shutil.copy(localizer / "000.dcm", folder / "localizer.dcm")
    with pytest.raises(VolumeError, match=r"2 DICOM series \('Thorax 1.0', CT, 4 slices; number 1, MR, 1 slice\)"):
        Volume.open(folder)


@pytest.mark.parametrize("content", [b"", b"text" * 100])
@pytest.mark.parametrize("name", ["{}.dcm", "{}.IMA", "IM00{}", "1.2.{}"])
def test_a_lost_slice_is_not_passed_over(name: str, content: bytes, tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "s")
    for k in range(4):
        (folder / f"{k:03}.dcm").rename(folder / name.format(k))
    (folder / name.format(3)).write_bytes(content)
    if content and not name.lower().endswith((".dcm", ".ima")):  # the name does not promise a slice
        assert Volume.open(folder).shape == (7, 6, 3)
        return
    with pytest.raises(VolumeError, match="is not DICOM" if content else "is empty"):
        Volume.open(folder)


@pytest.mark.parametrize("which", [[3], [0, 1, 2, 3]])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("with_meta", [True, False])
def test_slices_without_a_preamble_are_read(which: list[int], syntax: UID, with_meta: bool, tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "s")
    expected = Volume.open(folder)
    for k in which:
        file = folder / f"{k:03}.dcm"
        one = dcmread(file)
        one.file_meta.TransferSyntaxUID, one.is_implicit_VR = syntax, syntax == ImplicitVRLittleEndian
        one.save_as(file, write_like_original=False)
        stored = file.read_bytes()
        file.write_bytes(stored[132:] if with_meta else stored[144 + int.from_bytes(stored[140:144], "little") :])
    volume = Volume.open(folder)
    np.testing.assert_array_equal(volume.array, expected.array)
    np.testing.assert_array_equal(volume.affine, expected.affine)


@pytest.mark.parametrize("fragments", [[b""], [b"", b""], [b"\0"], [bytes(64)], [b"\1" * 65], [b"\xff" * 64]])
def test_broken_fragments_are_rejected_with_the_name_of_the_slice(fragments: list[bytes], tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "s")
    for file in folder.iterdir():
        one = dcmread(file)
        one.compress(RLELossless)
        one.save_as(file)
    one = dcmread(folder / "002.dcm")
    one.PixelData = encapsulate([b"12"])[:8] + b"".join(
        b"\xfe\xff\x00\xe0" + len(part).to_bytes(4, "little") + part for part in fragments
    )
    one["PixelData"].is_undefined_length = True
    one.save_as(folder / "002.dcm")
    with pytest.raises(VolumeError, match=r"002\.dcm"):
        Volume.open(folder)
