import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sam3d_label.errors import VolumeError
from sam3d_label.image import volume as volume_module
from sam3d_label.image.intensity import Window
from sam3d_label.image.read import one_ahead
from sam3d_label.image.resample import resample, resampling_weights
from sam3d_label.image.volume import Volume, save_mask


@st.composite
def affines(draw):
    """Any orientation, any anisotropy, oblique up to half a right angle."""
    codes = draw(st.permutations(["RL", "AP", "SI"]))
    codes = tuple(draw(st.sampled_from(pair)) for pair in codes)
    orientation = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), (10, 10, 10))
    spacing = draw(st.tuples(*[st.floats(0.2, 8)] * 3))
    angle = draw(st.floats(-0.6, 0.6))
    axis = draw(st.sampled_from([0, 1, 2]))
    a, b = (other for other in range(3) if other != axis)
    rotation = np.eye(3)
    rotation[a, a] = rotation[b, b] = np.cos(angle)
    rotation[a, b], rotation[b, a] = -np.sin(angle), np.sin(angle)
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.round(orientation[:3, :3]) @ np.diag(spacing)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return affine


@given(affine=affines(), data=st.data())
@settings(deadline=None, max_examples=60)
def test_coordinates_go_to_the_crop_and_back(affine, data):
    volume = Volume(np.zeros((6, 7, 8)), affine)
    spacing = data.draw(st.floats(0.3, 6))
    frame = volume.frame(data.draw(st.tuples(*[st.floats(0, 6)] * 3)), spacing, 32)
    ijk = np.array(data.draw(st.lists(st.tuples(*[st.floats(-20, 20)] * 3), min_size=1, max_size=5)))
    assert np.allclose(frame.to_ijk(frame.to_dhw(ijk)), ijk, atol=1e-8)


@given(affine=affines())
@settings(deadline=None, max_examples=60)
def test_crop_axes_point_superior_posterior_left_and_keep_millimetres(affine):
    volume = Volume(np.zeros((6, 7, 8)), affine)
    frame = volume.frame((3, 3, 3), 1.5, 32)
    corner, *steps = frame.to_ijk([[4, 4, 4], [14, 4, 4], [4, 14, 4], [4, 4, 14]])
    world = [affine[:3, :3] @ (step - corner) for step in steps]
    assert np.allclose([np.linalg.norm(w) for w in world], 15.0)
    superior, posterior, left = world
    assert superior[2] > 0
    assert superior[2] >= np.abs(superior).max() - 1e-6
    assert posterior[1] < 0
    assert left[0] < 0


@given(affine=affines(), data=st.data())
@settings(deadline=None, max_examples=40)
def test_a_bright_voxel_is_found_where_its_coordinates_say(affine, data):
    array = np.zeros((9, 10, 11))
    ijk = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 8), st.integers(1, 9)))
    array[ijk] = 100.0
    volume = Volume(array, affine)
    frame = volume.frame(ijk, float(volume.spacing.min()) / 2, 33)
    crop = volume.crop(frame)
    assert tuple(np.unravel_index(int(crop.argmax()), crop.shape)) == (16, 16, 16)
    assert float(crop.max()) == pytest.approx(100, rel=1e-4)


@given(affine=affines())
@settings(deadline=None, max_examples=40)
def test_a_smooth_volume_survives_the_crop_and_the_way_back(affine):
    i, j, k = np.meshgrid(np.arange(8), np.arange(9), np.arange(10), indexing="ij")
    volume = Volume(1.0 * i + 2.0 * j - 3.0 * k, affine)
    spacing = float(volume.spacing.min()) / 2
    frame = volume.frame((4, 4, 4), spacing, 24)
    values, region = volume.uncrop(volume.crop(frame), frame)
    dhw = frame.to_dhw(np.argwhere(np.ones(volume.shape)))
    reach = float(volume.spacing.max()) / spacing
    in_crop = ((dhw > reach) & (dhw < 23 - reach)).all(1).reshape(volume.shape)
    in_volume = np.pad(np.ones([size - 2 for size in volume.shape], bool), 1)
    well_inside = (in_crop & in_volume)[region]
    assume(well_inside.any())
    assert np.abs(values - volume.array[region])[well_inside].max() < 0.2


def test_outside_the_volume_a_crop_is_zero_after_normalization_too():
    volume = Volume(np.full((4, 4, 4), 50.0), np.eye(4))
    crop = volume.crop(
        volume.frame((1.5, 1.5, 1.5), 1.0, 8), Window(lower=0, upper=100, mean=0, std=1).fit(volume.array)
    )
    assert float(crop[2:6, 2:6, 2:6].min()) == 50.0
    assert float(crop.sum()) == 50.0 * 64


def test_a_coarse_crop_averages_instead_of_skipping():
    checkers = np.indices((32, 32, 32)).sum(0) % 2 * 2.0 - 1.0
    volume = Volume(checkers, np.eye(4))
    crop = volume.crop(volume.frame((15.5, 15.5, 15.5), 4.0, 6))
    assert float(crop[1:-1, 1:-1, 1:-1].abs().max()) < 0.1


def test_resampling_weights_sum_to_one_inside_and_to_zero_outside():
    sums = resampling_weights(np.array([-0.6, -0.4, 0.0, 3.3, 5.4, 5.6]), 6, 1.0).sum(1)
    assert torch.allclose(sums, torch.tensor([0.0, 1, 1, 1, 1, 0]))


@pytest.fixture
def oblique_affine():
    affine = np.array([[-0.8, 0.1, 0.0, 90.0], [0.1, 0.8, -0.4, -20.0], [0.0, 0.05, 3.0, 5.0], [0, 0, 0, 1]])
    rotation, _ = np.linalg.qr(affine[:3, :3])
    affine[:3, :3] = rotation @ np.diag([0.7, 0.9, 3.0])
    return affine


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_a_mask_is_stored_on_the_grid_of_its_volume(suffix, oblique_affine, tmp_path):
    volume = Volume(np.zeros((5, 6, 7)), oblique_affine)
    mask = (np.random.default_rng(0).random((5, 6, 7)) > 0.5).astype(np.uint8)
    save_mask(tmp_path / f"mask{suffix}", mask, volume)
    stored = Volume.open(tmp_path / f"mask{suffix}")
    assert np.array_equal(stored.array, mask)
    assert np.allclose(stored.affine, oblique_affine, atol=1e-4)
    assert sitk.ReadImage(str(tmp_path / f"mask{suffix}")).GetPixelID() == sitk.sitkUInt8
    assert [p.name for p in tmp_path.iterdir()] == [f"mask{suffix}"]


def test_nifti_and_nrrd_of_one_image_are_the_same_volume(oblique_affine, tmp_path):
    array = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    nib.save(nib.Nifti1Image(array, oblique_affine), tmp_path / "a.nii.gz")
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "a.nii.gz")), str(tmp_path / "a.nrrd"))
    nifti, nrrd = Volume.open(tmp_path / "a.nii.gz"), Volume.open(tmp_path / "a.nrrd")
    assert np.array_equal(nifti.array, nrrd.array)
    assert np.allclose(nifti.affine, nrrd.affine, atol=1e-4)


def test_a_mask_of_another_shape_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(VolumeError, match="does not fit"):
        save_mask(tmp_path / "mask.nii.gz", np.zeros((2, 2, 2), np.uint8), Volume(np.zeros((3, 3, 3)), np.eye(4)))
    assert not list(tmp_path.iterdir())


def test_a_mask_that_cannot_be_written_reports_it_and_leaves_the_old_one(tmp_path):
    volume = Volume(np.zeros((3, 3, 3)), np.eye(4))
    (tmp_path / "mask.unknown").write_text("old")
    with pytest.raises(VolumeError, match="cannot be written"):
        save_mask(tmp_path / "mask.unknown", np.zeros((3, 3, 3), np.uint8), volume)
    assert (tmp_path / "mask.unknown").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def store(path, array):
    nib.save(nib.Nifti1Image(array.astype(np.float32), np.eye(4)), path)
    return path


def truncated(path):
    store(path, np.random.default_rng(0).normal(size=(20, 20, 20)))
    path.write_bytes(path.read_bytes()[:2000])
    return path


def with_nan(path):
    array = np.ones((4, 4, 4))
    array[1, 2, 3] = np.nan
    return store(path, array)


WRONG_FILES = {
    "missing": (lambda p: p, "does not exist"),
    "empty": (lambda p: (p.write_bytes(b""), p)[1], "cannot be read"),
    "text": (lambda p: (p.write_text("not an image"), p)[1], "cannot be read"),
    "gzip of nothing": (lambda p: (p.write_bytes(gzip.compress(b"")), p)[1], "cannot be read"),
    "truncated": (truncated, "cannot be read"),
    "2D": (lambda p: store(p, np.ones((5, 6))), "2 dimensions"),
    "4D": (lambda p: store(p, np.ones((4, 5, 6, 2))), "4 dimensions"),
    "one slice": (lambda p: store(p, np.ones((5, 6, 1))), "at least two voxels"),
    "NaN": (with_nan, "1 voxels that are NaN"),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_a_wrong_file_says_what_is_wrong(kind, tmp_path):
    make, complaint = WRONG_FILES[kind]
    with pytest.raises(VolumeError, match=complaint):
        Volume.open(make(tmp_path / "scan.nii.gz"))


def test_a_fourth_axis_of_length_one_is_dropped(tmp_path):
    assert Volume.open(store(tmp_path / "scan.nii", np.ones((4, 5, 6, 1)))).shape == (4, 5, 6)


def test_a_degenerate_affine_is_refused():
    with pytest.raises(VolumeError, match="degenerate affine"):
        Volume(np.zeros((3, 3, 3)), np.diag([1.0, 1.0, 0.0, 1.0]))


def test_a_folder_without_dicom_reports_it(tmp_path):
    with pytest.raises(VolumeError, match="0 DICOM series"):
        Volume.open(tmp_path)


def test_a_dicom_folder_opens_with_its_geometry(real_data):
    volume = Volume.open(real_data / "dicom" / "CRLM-CT-1004")
    assert volume.shape == (512, 512, 41)
    assert volume.spacing.round(3).tolist() == [0.797, 0.797, 5.0]
    assert volume.array.min() < -900


@pytest.mark.parametrize("in_memory", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_resampling_does_not_depend_on_the_order_of_the_axes_in_memory(in_memory):
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(9, 12, 7, generator=generator)
    weights = [torch.rand(n, size, generator=generator) for n, size in zip((4, 20, 6), values.shape, strict=True)]
    view = values.permute(in_memory).contiguous().permute(np.argsort(in_memory).tolist())
    expected = torch.einsum("xi,yj,zk,ijk->xyz", *weights, values)
    torch.testing.assert_close(resample(view, weights), expected)


def test_signatures_differ_with_voxels_and_with_geometry():
    array = np.random.default_rng(0).normal(size=(4, 4, 4))
    signatures = {
        Volume(array, np.eye(4)).signature,
        Volume(array + 1, np.eye(4)).signature,
        Volume(array, np.diag([1, 1, 2, 1])).signature,
    }
    assert len(signatures) == 3
    assert Volume(array.copy(), np.eye(4)).signature in signatures


def test_signatures_of_files_differ_with_the_stored_voxels_and_not_with_the_compression(tmp_path):
    array = np.random.default_rng(0).integers(0, 9, (5, 6, 7)).astype(np.int16)

    def stored(name: str, voxels: np.ndarray, scale: float = 1.0) -> str:
        image = nib.Nifti1Image(voxels, np.eye(4))
        image.header.set_slope_inter(scale, 0)
        nib.save(image, tmp_path / name)
        return Volume.open(tmp_path / name).signature

    plain = stored("plain.nii", array)
    assert stored("compressed.nii.gz", array) == plain
    assert stored("turned.nii", array[::-1]) != plain
    assert stored("scaled.nii", array, scale=0.5) != plain


def test_signatures_differ_with_the_shape_alone():
    array = np.zeros((4, 6, 5))
    assert Volume(array, np.eye(4)).signature != Volume(array.reshape(6, 4, 5), np.eye(4)).signature


def test_pieces_that_are_read_ahead_come_in_order_and_errors_after_them():
    def pieces():
        yield from (b"a", b"b")
        raise VolumeError("damaged")

    found = one_ahead(pieces())
    assert [next(found), next(found)] == [b"a", b"b"]
    with pytest.raises(VolumeError, match="damaged"):
        next(found)


def test_signatures_depend_on_the_order_of_the_parts_that_are_hashed_apart(monkeypatch):
    monkeypatch.setattr(volume_module, "PART", 60)
    array = np.arange(120, dtype=np.float32).reshape(2, 10, 6)
    assert Volume(array, np.eye(4)).signature == Volume(array.copy(), np.eye(4)).signature
    assert Volume(array, np.eye(4)).signature != Volume(array[::-1], np.eye(4)).signature


def test_finite_voxels_whose_sum_is_not_are_accepted():
    assert Volume(np.full((3, 3, 3), 3e38), np.eye(4)).array.max() > 1e38


@pytest.mark.parametrize("pair", [(np.inf, -np.inf), (np.nan, 0.0)])
def test_values_that_are_not_finite_are_counted(pair):
    array = np.zeros((3, 3, 3))
    array[0, 0, :2] = pair
    with pytest.raises(VolumeError, match=f"{int((~np.isfinite(pair)).sum())} voxels that are NaN or infinite"):
        Volume(array, np.eye(4))


@pytest.mark.parametrize("name", ["mask.mhd", "mask.nhdr", "mask.hdr", "mask.png", "mask.dcm", "mask"])
def test_a_mask_is_written_in_formats_of_one_whole_file_only(name, tmp_path):
    with pytest.raises(VolumeError, match="cannot be written: the name of a mask ends in"):
        save_mask(tmp_path / name, np.zeros((3, 3, 3), np.uint8), Volume(np.zeros((3, 3, 3)), np.eye(4)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_mask_keeps_a_sheared_geometry(suffix, tmp_path):
    affine = np.array([[0.8, 0, 0, -10], [0, 0.8, 0.9, 5], [0, 0, 3.0, 7], [0, 0, 0, 1]])
    save_mask(tmp_path / f"mask{suffix}", np.ones((5, 6, 7), np.uint8), Volume(np.zeros((5, 6, 7)), affine))
    assert np.allclose(Volume.open(tmp_path / f"mask{suffix}").affine, affine, atol=1e-4)


def test_an_affine_of_very_small_voxels_is_regular():
    assert Volume(np.zeros((3, 3, 3)), np.diag([1e-4, 1e-4, 1e-4, 1])).spacing.tolist() == [1e-4] * 3


def slices(folder, positions, directions=None):
    """A CT series with a slice at each position (x, y, z), LPS mm; its value is its index."""
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    folder.mkdir()
    for index, position in enumerate(positions):
        image = sitk.GetImageFromArray(np.full((1, 6, 5), index, np.int16))
        direction = directions[index] if directions else "1\\0\\0\\0\\1\\0"
        tags = {
            "0008|0060": "CT",
            "0020|000e": "1.2.826.0.1.3680043.2.1125.1",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.2",
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.3.{index + 1}",
            "0020|0032": "\\".join(f"{x:.6f}" for x in position),
            "0020|0037": direction,
            "0020|0013": str(index),
            "0028|0030": "0.8\\0.8",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{index:02}.dcm"))
        writer.Execute(image)
    return folder


def test_dicom_slices_in_reverse_order_open_from_low_to_high(tmp_path):
    volume = Volume.open(slices(tmp_path / "s", [(0, 0, 20 - 4 * n) for n in range(6)]))
    assert volume.array[0, 0].tolist() == [5, 4, 3, 2, 1, 0]
    assert np.allclose(volume.affine @ [0, 0, 0, 1], [0, 0, 0, 1])
    assert np.allclose(volume.affine @ [0, 0, 5, 1], [0, 0, 20, 1])


def test_a_tilted_gantry_is_in_the_affine(tmp_path):
    volume = Volume.open(slices(tmp_path / "s", [(0, 1.5 * n, 4 * n) for n in range(6)]))
    ends = volume.affine @ np.array([[0, 0, 0, 1], [0, 0, 5, 1]]).T
    assert np.allclose(np.abs(ends[1]), [0, 7.5], atol=1e-5)
    assert np.allclose(ends[2], [0, 20], atol=1e-5)


@pytest.mark.parametrize(
    ("positions", "directions", "complaint"),
    [
        ([(0, 0, z) for z in (0, 4, 8, 16, 20)], None, "not evenly spaced .8.00 mm"),
        ([(0, 0, z) for z in (0, 4, 8, 8, 12)], None, "not evenly spaced"),
        ([(0, 0, 0)] * 4, None, "not evenly spaced"),
        (
            [(0, 0, z) for z in (0, 4, 8, 12)],
            ["1\\0\\0\\0\\1\\0"] * 3 + ["1\\0\\0\\0\\0\\-1"],
            "several orientations",
        ),
    ],
    ids=["missing", "doubled", "no positions", "localizer"],
)
def test_dicom_slices_that_form_no_grid_are_refused(positions, directions, complaint, tmp_path):
    with pytest.raises(VolumeError, match=complaint):
        Volume.open(slices(tmp_path / "s", positions, directions))
