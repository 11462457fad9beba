"""Images and labels are paired by name."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from sam3d_label.errors import Sam3dError
from sam3d_label.evaluation.cases import find_cases


def test_other_suffix_and_single_files(cohort, save, truth):
    (cohort / "labels/a_ct.nii.gz").unlink()
    label = save("labels/a_ct.nii", truth.astype(np.uint8))
    image = cohort / "images/a_ct.nii.gz"
    assert find_cases(cohort / "images", cohort / "labels")[0].label == label
    assert find_cases(image, cohort / "labels")[0].label == label
    assert find_cases(image, label)[0].label == label


@pytest.mark.parametrize("forms", [("NFD", "NFC"), ("NFC", "NFD")])
def test_image_and_label_pair_however_their_accents_are_encoded(cohort, forms):
    image, label = (unicodedata.normalize(form, "caf\u00e9.nii.gz") for form in forms)
    for old in (cohort / "images").iterdir():
        old.rename(cohort / "images" / image)
    next((cohort / "labels").iterdir()).rename(cohort / "labels" / label)
    for pattern in (None, "caf\u00e9", "cafe\u0301.*"):
        (case,) = find_cases(cohort / "images", cohort / "labels", pattern)
        assert case.label == cohort / "labels" / label


def test_suffixes_of_labels_count_in_any_case_and_hidden_files_do_not(cohort):
    label = cohort / "labels/a_ct.NII.GZ"
    (cohort / "labels/a_ct.nii.gz").rename(label)
    (cohort / "labels/._a_ct.nii").write_bytes(b"attributes")
    assert find_cases(cohort / "images", cohort / "labels")[0].label == label


def test_a_name_that_no_table_can_hold_is_rejected_before_work(cohort):
    (cohort / "images/a_ct.nii.gz").rename(cohort / "images/a\udcff.nii.gz")
    with pytest.raises(Sam3dError, match=r"a\\udcff\.nii\.gz' is not valid UTF-8: rename the file"):
        find_cases(cohort / "images", cohort / "labels")


def test_no_cases_is_an_error(cohort, tmp_path):
    with pytest.raises(Sam3dError, match="does not exist"):
        find_cases(tmp_path / "nowhere", cohort / "labels")
    with pytest.raises(Sam3dError, match="match 'z\\*'"):
        find_cases(cohort / "images", cohort / "labels", "z*")
