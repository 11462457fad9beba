"""The reference set: real crops and phantoms of several kinds, and a team's own cases."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from sam3d_label.errors import Sam3dError
from sam3d_label.model_update.reference_set import REAL, SHIPPED, open_reference_set
from sam3d_label.weights.load import UNTRAINED_INTENSITY


@pytest.fixture
def own(tmp_path):
    """Two cases of a team, one of them with an empty label."""
    for name, edge in (("anna", 3), ("bert", 0)):
        label = np.zeros((10, 9, 8), np.uint8)
        label[2 : 2 + edge, 2 : 2 + edge, 2 : 2 + edge] = 4
        image = np.random.default_rng(0).normal(size=label.shape).astype(np.float32)
        for folder, array in (("images", image), ("labels", label)):
            (tmp_path / folder).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / folder / f"{name}.nii.gz")
    return tmp_path


def test_it_is_the_same_each_time_and_holds_several_kinds():
    first, second = (open_reference_set(UNTRAINED_INTENSITY) for _ in range(2))
    assert first.digest == second.digest
    assert {case.name.split()[0] for case in first.cases} == {"CT", "MR", "PT"}
    assert len({case.name for case in first.cases}) == len(first.cases)
    assert all(case.target.array.any() for case in first.cases)
    assert all(case.normalization.modality == case.name[:2] for case in first.cases if case.name[:2] != "PT")


def test_pet_phantoms_have_hot_lesions():
    hot = [case for case in open_reference_set(UNTRAINED_INTENSITY).cases if case.name.startswith("PT")]
    for case in hot:
        inside = case.target.array > 0
        assert case.volume.array.min() >= 0
        assert case.volume.array[inside].mean() > 3 * np.median(case.volume.array)


def test_the_real_crops_ship_with_their_licence():
    assert (SHIPPED / "LICENSE.pyradiomics").read_text().startswith("Copyright 2017 Harvard Medical School")
    assert {path.name.split(".")[0] for path in (SHIPPED / "images").iterdir()} == set(REAL)


def test_own_cases_are_added_without_their_names_and_bad_ones_are_skipped(own):
    shipped, found = open_reference_set(UNTRAINED_INTENSITY), open_reference_set(UNTRAINED_INTENSITY, own)
    assert [case.name for case in found.cases[len(shipped.cases) :]] == ["own 1"]
    assert found.digest != shipped.digest
    assert list(found.skipped) == ["bert.nii.gz"]
    assert "is empty" in found.skipped["bert.nii.gz"]


def test_a_folder_without_cases_is_an_error(tmp_path):
    with pytest.raises(Sam3dError, match="images"):
        open_reference_set(UNTRAINED_INTENSITY, tmp_path)
