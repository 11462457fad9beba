"""Files that are damaged, hostile or refer to others are rejected at once; good ones are read exactly."""

from __future__ import annotations

import contextlib
import gzip
import io
import multiprocessing
import os
import random
import time
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sam3d_label.errors import Sam3dError, VolumeError
from sam3d_label.image.limits import Limits
from sam3d_label.image.volume import Volume
from tests.helpers.damaged import (
    AFFINE,
    BAD,
    GOOD,
    SECRET,
    array,
    dicom_series,
    long_values,
    metaimage,
    mutated,
    nifti,
    nrrd,
)


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_file_is_read_exactly(kind: str, tmp_path: Path) -> None:
    volume = Volume.open(GOOD[kind](tmp_path))
    np.testing.assert_array_equal(volume.array, array())
    if "nifti" in kind:
        np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize("kind", BAD)
def test_a_damaged_file_is_rejected_with_little_memory(kind: str, tmp_path: Path) -> None:
    path = BAD[kind](tmp_path)
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(Sam3dError) as caught:
            Volume.open(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert path.name in message
    assert str(tmp_path) not in message
    assert not any(word in message for word in SECRET.decode().split())
    assert peak < 20e6
    assert time.process_time() - started < 2


def _open_long_values(folder: Path) -> None:
    for what, name, content in long_values():
        (folder / "now").write_text(what)
        (folder / name).write_bytes(content)
        with contextlib.suppress(VolumeError):
            Volume.open(folder / name)


def test_a_very_long_value_in_a_header_does_not_end_the_process(tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=_open_long_values, args=(tmp_path,))
    child.start()
    child.join(120)
    child.kill()
    assert child.exitcode == 0, (tmp_path / "now").read_text()


@pytest.mark.parametrize("length", [300, 200_000])
def test_a_long_text_next_to_the_geometry_does_not_matter(length: int, tmp_path: Path) -> None:
    text = "m" * length
    for name, content in {
        "a.nrrd": nrrd(extra=f"content: {text}\n# {text}\nkey:={text}\n"),
        "a.mha": metaimage(Comment=text, Name=text, Unknown=text),
    }.items():
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(Volume.open(tmp_path / name).array, array())


def test_a_header_of_very_many_lines_is_rejected(tmp_path: Path) -> None:
    many = "\n".join(f"Comment{number} = x" for number in range(200_000))
    for name, content in {"a.nrrd": nrrd(extra="#\n" * 200_000), "a.mha": metaimage(Comment=many)}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(VolumeError, match="lines"):
            Volume.open(tmp_path / name)


@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "<i2", ">i2", "<u2", ">u2", "<i4", ">u4", "<i8", ">i8", "<u8", "f4", ">f8"]
)
def test_every_number_type_and_byte_order_is_read_as_stored(dtype: str, tmp_path: Path) -> None:
    stored = array(dtype)
    if np.dtype(dtype).kind == "i":
        stored = stored - np.asarray(100, dtype)
    image = nib.Nifti1Image(stored.astype(np.dtype(dtype).newbyteorder("=")), AFFINE, dtype=dtype)
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(dtype)
    file = nib.Nifti1Image(image.dataobj, AFFINE, header)
    nib.save(file, tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(Volume.open(tmp_path / "a.nii.gz").array, stored)


@pytest.mark.parametrize(
    ("slope", "intercept", "factor", "offset"),
    [(0.5, -3.0, 0.5, -3.0), (0.0, 7.0, 1.0, 0.0), (np.nan, 7.0, 1.0, 0.0), (np.inf, 1.0, 1.0, 0.0), (-2, 1, -2, 1)],
)
def test_slope_and_intercept_hold_unless_the_slope_is_no_factor(
    slope: float, intercept: float, factor: float, offset: float, tmp_path: Path
) -> None:
    (tmp_path / "a.nii").write_bytes(nifti(scl_slope=slope, scl_inter=intercept))
    np.testing.assert_array_equal(Volume.open(tmp_path / "a.nii").array, array() * factor + offset)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_no_flipped_bit_changes_a_voxel(suffix: str, tmp_path: Path) -> None:
    good = gzip.compress(nifti(), mtime=0) if suffix == ".nii.gz" else nrrd(encoding="gzip")
    start = 0 if suffix == ".nii.gz" else good.index(b"\n\n") + 2
    file = tmp_path / f"a{suffix}"
    rejected = 0
    for bit in range(8 * start, 8 * len(good), 23):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            read = Volume.open(file)
        except VolumeError:
            rejected += 1
        else:
            np.testing.assert_array_equal(read.array, array())
    assert rejected > 0.9 * (len(good) - start - 10) * 8 / 23


@given(kind=st.sampled_from(sorted(GOOD)), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_random_variant_is_rejected_or_one_volume(kind: str, seed: int, tmp_path: Path) -> None:
    path = GOOD[kind](tmp_path)
    path.write_bytes(mutated(path.read_bytes(), random.Random(seed)))
    try:
        volume = Volume.open(path, Limits(max_voxels=10_000))
    except Sam3dError:
        return
    assert volume.array.size <= 10_000
    assert np.isfinite(volume.array).all()
    assert volume.spacing.min() > 0


@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_random_variant_of_a_dicom_slice_is_rejected_or_one_volume(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    series = dicom_series(tmp_path_factory.mktemp("dicom") / "series")
    file = series / "001.dcm"
    file.write_bytes(mutated(file.read_bytes(), random.Random(seed)))
    try:
        volume = Volume.open(series)
    except Sam3dError:
        return
    assert volume.array.size <= 7 * 6 * 4
    assert np.isfinite(volume.array).all()


def test_a_gzip_file_of_several_members_is_one_file(tmp_path: Path) -> None:
    whole = nifti()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(whole[:500]) + gzip.compress(b"") + gzip.compress(whole[500:]))
    np.testing.assert_array_equal(Volume.open(tmp_path / "a.nii.gz").array, array())


def test_a_gzip_file_of_many_empty_members_is_rejected_early(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(nifti()) + gzip.compress(b"") * 200_000)
    start = time.monotonic()
    with pytest.raises(VolumeError, match="hold nothing"):
        Volume.open(path)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("name", ["A.NII.GZ", "a.Nii.Gz", "ä 1.nii.gz"])
def test_the_case_of_a_suffix_and_other_alphabets_do_not_matter(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(gzip.compress(nifti()))
    np.testing.assert_array_equal(Volume.open(tmp_path / name).array, array())


def test_limits_can_be_lowered(tmp_path: Path) -> None:
    path = GOOD["nifti"](tmp_path)
    for limits in (Limits(max_voxels=209), Limits(max_axis=6), Limits(max_inflated_mb=0)):
        with pytest.raises(VolumeError, match="at most"):
            Volume.open(path, limits)


def test_a_bomb_is_read_no_further_than_its_header_claims(tmp_path: Path) -> None:
    stored = io.BytesIO()
    with gzip.GzipFile(fileobj=stored, mode="wb", mtime=0) as file:
        file.write(nifti())
        for _ in range(64):
            file.write(bytes(2**20))
    (tmp_path / "a.nii.gz").write_bytes(stored.getvalue())
    tracemalloc.start()
    try:
        with pytest.raises(VolumeError, match="holds more than"):
            Volume.open(tmp_path / "a.nii.gz")
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.nii.gz")
    with pytest.raises(VolumeError, match="neither a file nor a folder"):
        Volume.open(tmp_path / "a.nii.gz")
