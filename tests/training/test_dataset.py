from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from sam3d_label.errors import Sam3dError, VolumeError
from sam3d_label.image.intensity import Percentile
from sam3d_label.training import pair_cases
from sam3d_label.training.augmentation import IMAGE, INSIDE, LABEL, augmentation
from sam3d_label.training.dataset import OpenedCase, TrainingCrops, random_box_around


@pytest.fixture(scope="module")
def opened(phantom_cases):
    return [OpenedCase.open(case, Percentile()) for case in phantom_cases]


def test_homogeneous_crops_keep_contrast_and_orientation_but_for_left_and_right():
    """The corner that is bright stays bright, superior and posterior, through every augmentation."""
    image = torch.zeros(1, 16, 16, 16)
    image[:, :8, :8] = 1
    augment = augmentation(homogeneous=True)
    for seed in range(20):
        augment.set_random_state(seed)
        seen = augment({key: image.clone() for key in (IMAGE, LABEL, INSIDE)})
        for values in (seen[IMAGE], seen[LABEL]):
            assert values[:, 2:6, 2:6, 4:12].mean() > values[:, 10:14, 10:14, 4:12].mean()


def test_cases_pair_by_file_name(tmp_path):
    for folder, names in (("images", "abc"), ("labels", "bcd")):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.nii.gz").touch()
    assert [c.name for c in pair_cases(tmp_path / "images", tmp_path / "labels")] == ["b.nii.gz", "c.nii.gz"]
    with pytest.raises(Sam3dError, match="no volumes that match 'x"):
        pair_cases(tmp_path / "images", tmp_path / "labels", "x*")
    with pytest.raises(Sam3dError, match=r"no image that matches 'a\*' in .*images has a label of the same name in"):
        pair_cases(tmp_path / "images", tmp_path / "labels", "a*")
    (tmp_path / "none").mkdir()
    with pytest.raises(Sam3dError, match=r"no image in .*images has a label"):
        pair_cases(tmp_path / "images", tmp_path / "none")


def test_a_crop_shows_the_whole_target_at_the_asked_share(opened):
    for case in opened:
        frame = case.frame(64, 0.5, np.zeros(3))
        label = case.crop(frame)[LABEL][0]
        where = torch.nonzero(label)
        longest = int((where.amax(0) - where.amin(0)).max()) + 1
        assert longest == pytest.approx(32, abs=4)
        millilitres = float(label.sum()) * frame.spacing**3
        expected = float(case.target.array.sum() * case.volume.spacing.prod())
        assert millilitres == pytest.approx(expected, rel=0.1)


def test_crops_depend_on_seed_epoch_and_index_only(opened):
    def crops(seed, epoch):
        data = TrainingCrops(opened, [1, 1, 1], size=32, length=4, seed=seed)
        data.epoch = epoch
        return data

    first = crops(0, 1)[2]
    again = crops(0, 1)
    _ = again[0], again[3]
    assert torch.equal(again[2][IMAGE], first[IMAGE])
    for other in (crops(1, 1)[2], crops(0, 2)[2], crops(0, 1)[3]):
        assert not torch.equal(other[IMAGE], first[IMAGE])


def test_image_and_label_are_turned_together():
    """An image that is its own label still is after every augmentation, inverted at most."""
    corner = torch.zeros(1, 24, 24, 24)
    corner[:, 2:9, 3:18, 5:22] = 1
    augment = augmentation()
    for seed in range(20):
        augment.set_random_state(seed)
        crop = augment({IMAGE: 4 * corner - 2, LABEL: corner, INSIDE: torch.ones_like(corner)})
        pair = torch.stack([crop[IMAGE], crop[LABEL]]).as_subclass(torch.Tensor)[:, crop[INSIDE] > 0]
        assert abs(float(torch.corrcoef(pair)[0, 1])) > 0.8


def test_a_weight_of_zero_draws_nothing(opened):
    data = TrainingCrops(opened, [0, 1, 0], size=16, length=1, seed=0)
    assert data.shares.tolist() == [0, 1, 0]


def test_an_empty_label_and_one_on_another_grid_are_refused(phantom_cases, tmp_path):
    case = phantom_cases[0]
    image = nib.Nifti1Image.from_filename(case.image)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), tmp_path / "empty.nii.gz")
    with pytest.raises(VolumeError, match="is empty"):
        OpenedCase.open(type(case)(case.image, tmp_path / "empty.nii.gz"), Percentile())
    nib.save(nib.Nifti1Image(np.ones(image.shape, np.uint8), np.eye(4) * 3), tmp_path / "shifted.nii.gz")
    with pytest.raises(VolumeError, match="is not on the grid"):
        OpenedCase.open(type(case)(case.image, tmp_path / "shifted.nii.gz"), Percentile())


def test_a_label_of_another_format_pairs_with_its_image(tmp_path):
    for folder, name in (("images", "a.nrrd"), ("labels", "a.nii.gz")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).touch()
    (case,) = pair_cases(tmp_path / "images", tmp_path / "labels")
    assert (case.image.name, case.label.name) == ("a.nrrd", "a.nii.gz")


def test_a_label_may_be_a_fraction_of_a_voxel_off_its_image(phantom_cases, tmp_path):
    case = phantom_cases[0]
    label = nib.Nifti1Image.from_filename(case.label)
    affine = label.affine.copy()
    affine[0, 3] += 0.1
    nib.save(nib.Nifti1Image(np.asanyarray(label.dataobj), affine), tmp_path / "label.nii.gz")
    assert OpenedCase.open(type(case)(case.image, tmp_path / "label.nii.gz"), Percentile()).extent > 0


def test_a_volume_may_end_near_the_target_and_never_in_it():
    label = torch.zeros(1, 32, 32, 32)
    label[:, 10:20, 12:18, 8:24] = 1
    for seed in range(10):
        box = random_box_around(label, np.random.default_rng(seed))
        assert box[label > 0].all()
        assert 10 * 6 * 16 < box.sum() < 30 * 18 * 32
    assert random_box_around(torch.zeros(1, 8, 8, 8), np.random.default_rng(0)).all()


def test_a_crop_without_any_of_its_target_is_drawn_anew(opened, monkeypatch, rng):
    case = opened[0]
    beside = case.volume.frame((case.upper + 200).tolist(), 1.0, 32)
    monkeypatch.setattr(OpenedCase, "random_frame", lambda *_: beside)
    assert case.random_crop(32, rng)[LABEL].any()
    assert not replace(case, salient=True).random_crop(32, rng)[LABEL].any()


def test_some_crops_lie_as_serving_lays_them(opened, rng):
    """Those of the usual spacing, or of a finer one where the target is small in it, around a click on the target."""
    for case in opened:
        for _ in range(10):
            frame = case.inference_frame(32, rng, (4.0, 1.0, 2.0))
            nearest = min((1.0, 2.0, 4.0), key=lambda spacing: abs(np.log(spacing / frame.spacing)))
            assert abs(np.log(nearest / frame.spacing)) <= 0.2 + 1e-9
            assert nearest == 4.0 or case.extent <= 0.5 * 32 * nearest


def test_the_share_of_crops_as_in_serving_is_kept(opened, monkeypatch, rng):
    asked = []
    usual = OpenedCase.inference_frame
    monkeypatch.setattr(OpenedCase, "inference_frame", lambda *told: asked.append(told) or usual(*told))
    for _ in range(20):
        opened[0].random_crop(16, rng, 0.5, (4.0,))
    assert 4 <= len(asked) <= 16
    asked.clear()
    opened[0].random_crop(16, rng, 1.0, ())
    assert not asked, "nobody said where serving looks"
