import functools
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from sam3d_label.errors import Sam3dError
from sam3d_label.synthetic import LESION_KINDS, MODALITIES, Modality, Phantom, make_phantom, write_phantoms
from sam3d_label.synthetic.lesions import MAX_LABEL_SHARE

SMALL = (64, 56, 24)
SPACING = (1.1, 1.3, 3.0)


def made_anew(seed: int, modality: Modality | None = None) -> Phantom:
    return make_phantom(np.random.default_rng(seed), SMALL, SPACING, modality)


phantom = functools.cache(made_anew)


@pytest.mark.parametrize("modality", MODALITIES)
def test_same_seed_same_phantom(modality: Modality) -> None:
    first, second = made_anew(7, modality), made_anew(7, modality)
    assert_array_equal(first.image, second.image)
    assert_array_equal(first.label, second.label)
    assert_array_equal(first.affine, second.affine)
    assert first.meta == second.meta


def test_other_seed_other_phantom() -> None:
    assert (phantom(1, "ct").image != phantom(2, "ct").image).mean() > 0.5


@pytest.mark.parametrize("seed", range(24))
def test_volume_is_sound(seed: int) -> None:
    made = phantom(seed)
    assert made.image.dtype == np.float32
    assert made.label.dtype == np.uint8
    assert made.affine.dtype == np.float64
    assert made.image.shape == made.label.shape == made.distractors.shape == SMALL
    assert np.isfinite(made.image).all()
    assert set(np.unique(made.label)) == {0, 1}
    assert made.label.mean() <= MAX_LABEL_SHARE
    assert_allclose(np.linalg.norm(made.affine[:3, :3], axis=0), SPACING)
    assert made.meta["volume_ml"] == pytest.approx(made.label.sum() * np.prod(SPACING) / 1000)
    assert made.meta["lesion"] in LESION_KINDS


@pytest.mark.parametrize("seed", range(24))
def test_lesion_is_one_piece_and_apart_from_its_look_alikes(seed: int) -> None:
    made = phantom(seed)
    _, pieces = ndimage.label(made.label)
    assert pieces == 1
    around = ndimage.binary_dilation(made.label)
    assert not (around & (made.distractors > 0)).any()
    assert (made.meta["distractors"] > 0) == bool(made.distractors.any())


def test_ct_is_in_hounsfield_units() -> None:
    for seed in range(6):
        image = phantom(seed, "ct").image
        assert image.min() >= -1024
        assert image.max() <= 3071
        assert ((image > -150) & (image < 150)).mean() > 0.2


def test_mr_is_positive() -> None:
    assert all(phantom(seed, "mr").image.min() >= 0 for seed in range(6))


def test_lesion_differs_from_what_surrounds_it_by_about_the_contrast() -> None:
    agree = 0
    for seed in range(20):
        made = phantom(seed, "ct")
        ring = ndimage.binary_dilation(made.label, iterations=3) & (made.label == 0)
        difference = made.image[made.label > 0].mean() - made.image[ring].mean()
        agree += bool(np.sign(difference) == np.sign(made.meta["contrast"]))
    assert agree >= 12


def test_a_set_is_varied() -> None:
    metas = [make_phantom(np.random.default_rng(seed), (48, 48, 24)).meta for seed in range(60)]
    assert {meta["lesion"] for meta in metas} == set(LESION_KINDS)
    assert {meta["modality"] for meta in metas} == set(MODALITIES)
    assert len({meta["orientation"] for meta in metas}) >= 6
    assert len({meta["distractors"] for meta in metas}) >= 3
    assert {np.sign(meta["contrast"]) for meta in metas} == {-1, 1}


def test_chosen_grid_is_in_the_promised_range() -> None:
    for seed in range(8):
        made = make_phantom(np.random.default_rng(seed))
        spacing = np.linalg.norm(made.affine[:3, :3], axis=0)
        assert sorted(made.image.shape)[0] in range(32, 65)
        assert sorted(made.image.shape)[2] in range(96, 161)
        assert 0.6 <= spacing.min() <= 1.5
        assert spacing.max() <= 6.0


@pytest.mark.parametrize("shape", [(24, 24, 8), (8, 40, 40), (200, 32, 16)])
def test_odd_shapes(shape: tuple[int, int, int]) -> None:
    made = make_phantom(np.random.default_rng(0), shape, (1.0, 1.0, 1.0))
    assert made.label.any()


def test_is_quick() -> None:
    begun = time.process_time()
    make_phantom(np.random.default_rng(0), (160, 160, 60), (1.0, 1.0, 2.0))
    assert time.process_time() - begun < 6


@pytest.mark.parametrize(
    ("shape", "spacing", "modality", "message"),
    [
        ((64, 64, 4), None, None, "at least 8"),
        (None, (1.0, 0.0, 1.0), None, "positive"),
        (None, (1.0, float("nan"), 1.0), None, "positive"),
        (None, None, "pet", "modality"),
    ],
)
def test_refuses_what_makes_no_volume(shape, spacing, modality, message) -> None:
    with pytest.raises(Sam3dError, match=message):
        make_phantom(np.random.default_rng(0), shape, spacing, modality)


def test_files(tmp_path: Path) -> None:
    images = write_phantoms(tmp_path, cases=2, seed=3)
    assert images == [tmp_path / "images" / f"phantom_00{n}.nii.gz" for n in range(2)]
    for path in images:
        image, label = (
            nib.Nifti1Image.from_filename(path),
            nib.Nifti1Image.from_filename(tmp_path / "labels" / path.name),
        )
        assert image.get_data_dtype() == np.int16
        assert label.get_data_dtype() == np.uint8
        assert image.shape == label.shape
        assert_array_equal(image.affine, label.affine)
        assert_allclose(np.linalg.norm(image.affine[:3, :3], axis=0), image.header.get_zooms(), rtol=1e-5)
        assert set(np.unique(label.dataobj)) == {0, 1}
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        2 * ["phantom_000.nii.gz", "phantom_001.nii.gz"]
    )


def test_a_case_does_not_depend_on_how_many_are_written(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "one", cases=1, seed=3)
    write_phantoms(tmp_path / "two", cases=2, seed=3)
    one, two = (nib.Nifti1Image.from_filename(tmp_path / name / "images/phantom_000.nii.gz") for name in ("one", "two"))
    assert_array_equal(one.get_fdata(), two.get_fdata())


@pytest.mark.parametrize(("cases", "seed", "message"), [(0, 0, "at least 1"), (1, -1, "negative")])
def test_files_refuse(tmp_path: Path, cases: int, seed: int, message: str) -> None:
    with pytest.raises(Sam3dError, match=message):
        write_phantoms(tmp_path, cases, seed)
