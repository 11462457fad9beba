"""A mask is where its image is, for ITK and for nibabel, whatever the image's header says; or the image is rejected."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sam3d_label.errors import VolumeError
from sam3d_label.image.limits import Limits
from sam3d_label.image.volume import SHEARED, Volume, save_mask
from tests.helpers.damaged import dicom_series, nifti, nrrd

SHAPE = (6, 5, 4)
UNITS = {"mm": 1.0, "micron": 1e-3, "meter": 1e3, "unknown": 1.0}
numbers = st.floats(-200, 200)


@st.composite
def poses(draw: st.DrawFn) -> np.ndarray:
    """An affine in mm: any orientation and handedness, some with a little shear."""
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", [draw(st.floats(-180, 180)) for _ in range(3)], degrees=True).as_matrix()
    flips = np.diag([draw(st.sampled_from([-1.0, 1.0])) for _ in range(3)])
    affine[:3, :3] = rotation @ flips @ np.diag([draw(st.floats(0.3, 6)) for _ in range(3)])
    if draw(st.integers(0, 4)) == 0:
        affine[:3, 2] += draw(st.floats(0.01, 1)) * affine[:3, 1]
    affine[:3, 3] = [draw(numbers) for _ in range(3)]
    return affine


def corners(affine: np.ndarray) -> np.ndarray:
    grid = np.array(np.meshgrid(*[(0, side - 1) for side in SHAPE], [1])).reshape(4, -1)
    return (affine @ grid)[:3]


def affine_by_nibabel(path: Path) -> np.ndarray:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)  # or its subclass for NIfTI-2
    return image.affine


def itk_corners(path: Path) -> np.ndarray:
    """Corners in RAS mm as ITK sees them.

    Raises:
        RuntimeError: ITK cannot open the file.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    affine = np.eye(4)
    affine[:3, :3] = np.array(reader.GetDirection()).reshape(3, 3) * reader.GetSpacing()
    affine[:3, 3] = reader.GetOrigin()
    return corners(np.diag([-1.0, -1, 1, 1]) @ affine)


def itk_corners_if_it_opens(path: Path) -> np.ndarray | None:
    try:
        return itk_corners(path)
    except RuntimeError:
        return None


@given(
    forms=st.tuples(poses(), poses()),
    codes=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    same=st.booleans(),
    unit=st.sampled_from(sorted(UNITS)),
    dtype=st.sampled_from(["u1", "<i2", ">i2", "<u2", "<f4", ">f8"]),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
    version=st.sampled_from([1, 2]),
)
@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_masks_of_nifti_files_are_where_their_image_is(
    forms, codes, same: bool, unit: str, dtype: str, suffix: str, version: int, tmp_path: Path
) -> None:
    q, s = (form.copy() for form in (forms if not same else (forms[1], forms[1])))
    for form in (q, s):
        form[:3] /= UNITS[unit]
    kind, image_kind = [(nib.Nifti1Header, nib.Nifti1Image), (nib.Nifti2Header, nib.Nifti2Image)][version - 1]
    header = kind(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(dtype)
    header.set_xyzt_units(unit)
    image = image_kind(np.arange(120).reshape(SHAPE), s, header)
    image.set_sform(s, codes[1])
    image.set_qform(q, codes[0])
    path = tmp_path / f"image{suffix}"
    nib.save(image, path)
    try:
        volume = Volume.open(path)
    except VolumeError:
        return
    save_mask(tmp_path / f"mask{suffix}", np.ones(SHAPE, np.uint8), volume)
    save_mask(tmp_path / "mask.nrrd", np.ones(SHAPE, np.uint8), volume)
    scale = UNITS[unit]
    Volume.open(tmp_path / f"mask{suffix}").require_same_grid(volume)
    Volume.open(tmp_path / "mask.nrrd").require_same_grid(volume)
    by_nibabel = [corners(affine_by_nibabel(file)) * scale for file in (path, tmp_path / f"mask{suffix}")]
    np.testing.assert_allclose(by_nibabel[1], by_nibabel[0], atol=0.1)
    by_itk = itk_corners_if_it_opens(path)
    if by_itk is not None:
        np.testing.assert_allclose(itk_corners(tmp_path / f"mask{suffix}"), by_itk, atol=0.1)
        np.testing.assert_allclose(itk_corners(tmp_path / "mask.nrrd"), by_itk, atol=0.1)
        np.testing.assert_allclose(corners(volume.affine), by_itk, atol=0.1)


@pytest.mark.parametrize("field", [{"qform_code": 70_000}, {"srow_x": [1e300, 0, 0, 0]}, {"pixdim": [1e300] * 8}])
def test_nifti_2_beyond_the_range_of_nifti_1_is_rejected(field: dict[str, object], tmp_path: Path) -> None:
    image = nib.Nifti2Image(np.ones(SHAPE, np.int16), np.diag([-1.0, -1.0, 2.0, 1.0]))
    stored = image.to_bytes()
    header = nib.Nifti2Header(stored[:540], check=False)
    for name, value in field.items():
        header[name] = value
    (tmp_path / "a.nii").write_bytes(header.binaryblock + stored[540:])
    with pytest.raises(VolumeError, match="range of NIfTI-1"):
        Volume.open(tmp_path / "a.nii")


@pytest.mark.parametrize("codes", [(0, 0), (1, 2)])
def test_a_mask_of_nifti_2_is_where_its_image_is(codes: tuple[int, int], tmp_path: Path) -> None:
    moved = np.diag([-1.0, -1.0, 2.0, 1.0])
    moved[:3, 3] = (30, 20, 10)
    image = nib.Nifti2Image(np.ones(SHAPE, np.int16), np.diag([-1.0, -1.0, 2.0, 1.0]))
    image.set_sform(image.affine, codes[1])
    image.set_qform(moved, codes[0])
    nib.save(image, tmp_path / "a.nii")
    volume = Volume.open(tmp_path / "a.nii")
    for name in ("mask.nii.gz", "mask.nrrd"):
        save_mask(tmp_path / name, np.ones(SHAPE, np.uint8), volume)
        volume.require_same_grid(Volume.open(tmp_path / name))


SPACES = ["left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "LPS", "RAS", "LAS"]
SPACES += ["scanner-xyz", "3D-right-handed", "3D-left-handed"]


@given(pose=poses(), space=st.sampled_from(SPACES))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_masks_of_nrrd_files_are_where_their_image_is(pose: np.ndarray, space: str, tmp_path: Path) -> None:
    directions = " ".join(f"({','.join(map(str, column))})" for column in pose[:3, :3].T)
    origin = f"({','.join(map(str, pose[:3, 3]))})"
    data = np.arange(120, dtype="<i2").tobytes()
    fields = {"space directions": directions, "space origin": origin, "space": space}
    fields["sizes"] = " ".join(map(str, SHAPE))
    path = tmp_path / "image.nrrd"
    path.write_bytes(nrrd(data, **{name.replace(" ", "_"): value for name, value in fields.items()}))
    try:
        volume = Volume.open(path)
    except VolumeError:
        return
    save_mask(tmp_path / "mask.nrrd", np.ones(SHAPE, np.uint8), volume)
    by_itk = itk_corners(path)
    np.testing.assert_allclose(itk_corners(tmp_path / "mask.nrrd"), by_itk, atol=0.1)
    axes = pose[:3, :3] / np.linalg.norm(pose[:3, :3], axis=0)
    if np.abs(axes.T @ axes - np.eye(3)).max() > SHEARED:
        with pytest.raises(VolumeError, match=r"axes are sheared .* write \.nrrd"):
            save_mask(tmp_path / "mask.nii.gz", np.ones(SHAPE, np.uint8), volume)
        return
    save_mask(tmp_path / "mask.nii.gz", np.ones(SHAPE, np.uint8), volume)
    np.testing.assert_allclose(itk_corners(tmp_path / "mask.nii.gz"), by_itk, atol=0.1)
    np.testing.assert_allclose(corners(affine_by_nibabel(tmp_path / "mask.nii.gz")), by_itk, atol=0.1)


def test_a_label_of_slicer_fits_an_image_whose_forms_differ(tmp_path: Path) -> None:
    moved = np.diag([-1.0, -1.0, 2.0, 1.0])
    moved[:3, 3] = (30, 20, 10)
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), np.diag([-1.0, -1.0, 2.0, 1.0]))
    image.set_qform(moved, 1)
    image.set_sform(image.affine, 2)
    nib.save(image, tmp_path / "image.nii.gz")
    slicer = sitk.GetImageFromArray(np.ones(SHAPE[::-1], np.uint8))
    slicer.CopyInformation(sitk.ReadImage(str(tmp_path / "image.nii.gz")))
    sitk.WriteImage(slicer, str(tmp_path / "label.nrrd"))
    Volume.open(tmp_path / "image.nii.gz").require_same_grid(Volume.open(tmp_path / "label.nrrd"))


@pytest.mark.parametrize(("unit", "edge"), [(1, 0.001), (2, 1.0), (3, 1000.0)])
def test_lengths_are_in_millimetres_whatever_the_unit(unit: int, edge: float, tmp_path: Path) -> None:
    affine = np.diag([edge, edge, 2 * edge])
    rows = {f"srow_{axis}": [*affine[number], 0] for number, axis in enumerate("xyz")}
    path = tmp_path / "a.nii"
    path.write_bytes(nifti(xyzt_units=unit, qform_code=0, pixdim=[1, edge, edge, 2 * edge, 0, 0, 0, 0], **rows))
    np.testing.assert_allclose(Volume.open(path).spacing, [1, 1, 2], rtol=1e-5)


@pytest.mark.parametrize("edges", [(1000.0, 1000, 2000), (1e-4, 1, 1), (1, 1, 240)])
def test_sizes_that_no_scanner_makes_are_rejected_before_work(edges: tuple[float, ...], tmp_path: Path) -> None:
    volume = Volume(np.zeros((3, 3, 20)), np.diag([*edges, 1.0]))
    with pytest.raises(VolumeError, match="mm"):
        volume.require_plausible_size()
    Volume(np.zeros((512, 3, 3)), np.diag([2.0, 1, 1, 1])).require_plausible_size()
    with pytest.raises(VolumeError, match="m long"):
        Volume(np.zeros((512, 3, 3)), np.diag([2.0, 1, 1, 1])).require_plausible_size(Limits(max_extent=1000))


def test_a_small_volume_of_any_size_is_opened_and_not_worked_on(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), np.diag([1000.0, 1000, 2000, 1])), tmp_path / "a.nii.gz")
    volume = Volume.open(tmp_path / "a.nii.gz")
    with pytest.raises(VolumeError, match="1000 x 1000 x 2000 mm"):
        volume.require_plausible_size()


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha", "series"])
@pytest.mark.parametrize("edge", [1e6, 1e-7, 300.0])
def test_a_size_that_no_scanner_makes_is_rejected_before_the_voxels_are_read(
    name: str, edge: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "series":
        dicom_series(tmp_path / name, PixelSpacing=[edge, edge])
    else:
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros(SHAPE, np.uint8)), str(tmp_path / name))
        image = sitk.ReadImage(str(tmp_path / name))
        image.SetSpacing([edge] * 3)
        sitk.WriteImage(image, str(tmp_path / name))
    monkeypatch.setattr("sam3d_label.image.limits.SMALL_VOXELS", 0)
    monkeypatch.setattr("sam3d_label.image.read.voxel_pieces", None)
    monkeypatch.setattr("sam3d_label.image.dicom_slice.Slice.values", None)
    with pytest.raises(VolumeError, match=r"voxels are .* mm"):
        Volume.open(tmp_path / name)


EDGES = st.one_of(st.floats(0.3, 6), st.sampled_from([0.0, -1.0, float("nan"), float("inf"), 1e-6, 1e6]))


@given(
    pose=poses(),
    edges=st.tuples(EDGES, EDGES, EDGES),
    qfac=st.sampled_from([-1.0, 0.0, 1.0, float("nan")]),
    codes=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_broken_voxel_size_is_rejected_with_a_reason_or_means_the_same_to_all(
    pose: np.ndarray, edges: tuple[float, ...], qfac: float, codes: tuple[int, int], tmp_path: Path
) -> None:
    image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(SHAPE), pose)
    image.set_sform(pose, codes[1])
    image.set_qform(pose, codes[0], strip_shears=True)
    block = bytearray(image.to_bytes())
    block[76:92] = np.array([qfac, *edges], "<f4").tobytes()
    path = tmp_path / "image.nii"
    path.write_bytes(bytes(block))
    volume, reason = None, ""
    try:
        volume = Volume.open(path)
        volume.require_plausible_size()
    except VolumeError as error:
        volume, reason = None, str(error)
    if volume is None:
        assert "cannot be" in reason
        return
    save_mask(tmp_path / "mask.nii", np.ones(SHAPE, np.uint8), volume)
    by_nibabel = [corners(affine_by_nibabel(file)) for file in (path, tmp_path / "mask.nii")]
    np.testing.assert_allclose(by_nibabel[1], by_nibabel[0], atol=0.1)
    by_itk = itk_corners_if_it_opens(path)
    if by_itk is not None:
        np.testing.assert_allclose(itk_corners(tmp_path / "mask.nii"), by_itk, atol=0.1)
        np.testing.assert_allclose(corners(volume.affine), by_itk, atol=0.1)


@given(pose=poses(), dtype=st.sampled_from(["u1", "<i2", "<u2", "<f4"]))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_masks_of_metaimage_files_are_where_their_image_is(pose: np.ndarray, dtype: str, tmp_path: Path) -> None:
    turned = np.linalg.qr(pose[:3, :3])[0]
    image = sitk.GetImageFromArray(np.arange(120).reshape(SHAPE[::-1]).astype(dtype))
    image.SetDirection(turned.flatten().tolist())
    image.SetSpacing(np.linalg.norm(pose[:3, :3], axis=0).tolist())
    image.SetOrigin(pose[:3, 3].tolist())
    path = tmp_path / "image.mha"
    sitk.WriteImage(image, str(path))
    volume = Volume.open(path)
    for name in ("mask.mha", "mask.nrrd", "mask.nii.gz"):
        save_mask(tmp_path / name, np.ones(SHAPE, np.uint8), volume)
        np.testing.assert_allclose(itk_corners(tmp_path / name), itk_corners(path), atol=0.1)
    np.testing.assert_allclose(corners(affine_by_nibabel(tmp_path / "mask.nii.gz")), itk_corners(path), atol=0.1)
