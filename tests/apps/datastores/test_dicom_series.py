"""Series in any order and any pose become the volume that their headers tell of, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import RLELossless

from lib.datastores.dicom_series import keep_headers, keep_volume, open_series, read_headers
from sam3d_label.errors import VolumeError
from sam3d_label.image.volume import Volume
from tests.helpers.dicom_files import AXIAL, CORONAL, OBLIQUE, series_array, write_series

POSES: dict[str, dict[str, Any]] = {
    "axial": {},
    "reversed": {"reverse": True},
    "oblique": {"orientation": OBLIQUE},
    "coronal": {"orientation": CORONAL},
    "mr": {"modality": "MR", "orientation": OBLIQUE, "reverse": True},
    "tilted": {"step": [0.0, 0.5, 2.0]},
}


@pytest.mark.parametrize("pose", POSES)
def test_voxels_lie_where_the_headers_say(tmp_path: Path, pose: str) -> None:
    _, affine = write_series(tmp_path / "slices", **POSES[pose])
    volume, headers = open_series(tmp_path / "slices")
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    np.testing.assert_array_equal(volume.array, series_array())
    places = (affine @ [[0] * len(headers), [0] * len(headers), range(len(headers)), [1] * len(headers)])[:3].T
    told = [np.array(header.ImagePositionPatient, float) * [-1, -1, 1] for header in headers]
    np.testing.assert_allclose(told, places, atol=1e-4)


@pytest.mark.parametrize("pose", ["axial", "tilted"])
def test_what_is_kept_is_what_was_opened(tmp_path: Path, pose: str) -> None:
    write_series(tmp_path / "slices", **POSES[pose])
    volume, headers = open_series(tmp_path / "slices")
    keep_volume(volume, tmp_path / "kept.nii.gz")
    keep_headers(headers, tmp_path / "headers")
    again = Volume.open(tmp_path / "kept.nii.gz")
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-4)
    assert [one.SOPInstanceUID for one in read_headers(tmp_path / "headers")] == [one.SOPInstanceUID for one in headers]
    assert not any("PixelData" in header for header in read_headers(tmp_path / "headers"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["headers", "kept.nii.gz", "slices"]


def test_compressed_slices_are_read(tmp_path: Path) -> None:
    _, affine = write_series(tmp_path, reverse=True)
    for file in tmp_path.iterdir():
        instance = dcmread(file)
        instance.compress(RLELossless)
        instance.save_as(file)
    volume, _ = open_series(tmp_path)
    np.testing.assert_array_equal(volume.array, series_array())
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)


def test_fractions_are_kept(tmp_path: Path) -> None:
    volume = Volume(series_array() + 0.5, np.eye(4))
    keep_volume(volume, tmp_path / "kept.nii.gz")
    np.testing.assert_array_equal(Volume.open(tmp_path / "kept.nii.gz").array, volume.array)


def turned_slice(folder: Path) -> None:
    write_series(folder)
    file = sorted(folder.iterdir())[0]
    instance = dcmread(file)
    instance.ImageOrientationPatient = [float(value) for value in OBLIQUE]
    instance.save_as(file)


def spoilt_slice(name: str, value: Any) -> Any:
    def spoil(folder: Path) -> None:
        write_series(folder)
        file = sorted(folder.iterdir())[0]
        instance = dcmread(file)
        setattr(instance, name, value)
        instance.save_as(file)

    return spoil


REFUSED = {
    "missing slice": (lambda folder: write_series(folder, skip=[5]), "not evenly spaced.*some are missing"),
    "two stacks": (lambda folder: [write_series(folder), write_series(folder)], "2 DICOM series"),
    "one slice": (lambda folder: write_series(folder, skip=range(1, 13)), "at least two slices"),
    "several frames": (lambda folder: write_series(folder, NumberOfFrames=4), "one slice an instance"),
    "no place": (lambda folder: write_series(folder, ImagePositionPatient=None), "no ImagePositionPatient"),
    "turned slice": (turned_slice, "several orientations"),
    "another zoom": (spoilt_slice("PixelSpacing", [2.0, 2.0]), "differ in PixelSpacing"),
    "twice the same place": (spoilt_slice("ImagePositionPatient", [-40.0, -35.5, -16.25]), "not evenly spaced"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_anything_but_a_regular_grid_is_refused(tmp_path: Path, fault: str) -> None:
    spoil, expected = REFUSED[fault]
    spoil(tmp_path)
    with pytest.raises(VolumeError, match=expected):
        open_series(tmp_path)


def test_slices_that_drift_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, np.zeros((9, 8, 40), np.int16))
    for file in tmp_path.iterdir():
        instance = dcmread(file)
        drift = 0.12 * max(0, int(instance.InstanceNumber) - 20)
        instance.ImagePositionPatient = [*instance.ImagePositionPatient[:2], instance.ImagePositionPatient[2] + drift]
        instance.save_as(file)
    with pytest.raises(VolumeError, match="off a regular grid"):
        open_series(tmp_path)


def test_a_real_series(real_data: Path) -> None:
    folder = real_data / "dicom" / "CRLM-CT-1004"
    if not folder.is_dir():
        pytest.skip("no real DICOM series here")
    volume, headers = open_series(folder)
    assert volume.shape == (512, 512, 41)
    assert len(headers) == 41
    np.testing.assert_array_equal(volume.array[:, :, 0].T, dcmread(headers[0].filename).pixel_array - 1024.0)
    assert np.array_equal(headers[0].ImageOrientationPatient, AXIAL)
