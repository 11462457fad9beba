"""Saved labels as cases: names, values, and what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from lib.datastores.studies import EXTENSIONS, SafeDatastore
from lib.trainers.cases import group_of, labelled_cases, name_values
from sam3d_label.errors import VolumeError
from tests.helpers.app_helpers import ball, orthogonal, write_nifti


@pytest.fixture
def store(tmp_path: Path) -> SafeDatastore:
    """Three volumes without labels."""
    for name in "abc":
        write_nifti(tmp_path / f"{name}.nii.gz")
    return SafeDatastore(str(tmp_path), extensions=[f"*{end}" for end in EXTENSIONS], auto_reload=False)


@pytest.fixture
def save(store: SafeDatastore, tmp_path: Path) -> Any:
    """Saves a label with blocks of some values."""

    def save(image: str, values: list[int], **info: Any) -> None:
        label = np.zeros(ball().shape, np.uint8)
        for place, value in enumerate(values):
            label[4 * place : 4 * place + 3, 5:9, 5:9] = value
        path = tmp_path / "upload.nii.gz"
        nib.save(nib.Nifti1Image(label, orthogonal()), path)
        store.save_label(image, str(path), "final", info)

    return save


def entries(*named: tuple[str, int | None]) -> list[dict[str, Any]]:
    return [{"name": name} if idx is None else {"name": name, "idx": idx} for name, idx in named]


@pytest.mark.parametrize(
    ("present", "info", "labels", "expected"),
    [
        ([1], {}, ["tumor"], {1: "tumor"}),
        ([3, 7], {}, ["tumor"], {3: "tumor", 7: "tumor"}),
        ([1, 2], {}, ["tumor", "cyst"], {1: "tumor", 2: "cyst"}),
        ([1], {"label_info": entries(("tumor", None))}, ["tumor"], {1: "tumor"}),
        ([2], {"label_info": entries(("cyst", 1), ("tumor", 2))}, ["tumor"], {2: "tumor"}),
        ([5], {"label_info": entries(("liver", 5))}, ["tumor"], {5: "liver"}),
        # Slicer with a background segment first: idx counts it, the map does not
        ([1, 2], {"label_info": entries(("liver", 2), ("tumor", 3))}, ["tumor"], {1: "liver", 2: "tumor"}),
        (
            [2],
            {"label_info": entries(("liver", 2), ("tumor", 3)), "client_id": "user-xyz"},
            ["tumor"],
            {2: "tumor"},
        ),
        ([2], {"label_info": entries(("liver", 2), ("tumor", 3))}, ["tumor"], {2: "liver"}),
        ([1], {"label_info": "nonsense"}, ["tumor"], {1: "tumor"}),
    ],
)
def test_values_get_the_names_that_they_were_saved_with(
    present: list[int], info: dict[str, Any], labels: list[str], expected: dict[int, str]
) -> None:
    assert name_values(present, info, labels) == expected


@pytest.mark.parametrize(
    ("info", "labels"), [({"label_info": entries(("tumor", 1))}, ["tumor"]), ({}, ["tumor", "cyst"])]
)
def test_a_value_without_a_name_is_reported(info: dict[str, Any], labels: list[str]) -> None:
    with pytest.raises(VolumeError, match="values 1, 9, but the names of 1 = tumor"):
        name_values([1, 9], info, labels)


def test_every_named_structure_is_a_target_of_its_own(store: SafeDatastore, save: Any) -> None:
    save("a", [1, 2, 3], label_info=entries(("tumor", 1), ("liver", 2), ("cyst", 3)))
    cases, skipped = labelled_cases(store, ["tumor", "cyst"])
    assert [(case.id, [(t.target, t.value, t.salient) for t in case.targets]) for case in cases] == [
        ("a", [("tumor", 1, True), ("cyst", 3, False)])
    ]
    assert skipped == {"a: liver": "this server segments tumor, cyst only"}
    assert [target.name for target in cases[0].targets] == ["a.nii.gz tumor", "a.nii.gz cyst"]


def test_the_only_label_is_found_by_default(store: SafeDatastore, save: Any) -> None:
    save("a", [1])
    (case,), skipped = labelled_cases(store, ["tumor"])
    assert [(target.value, target.salient, target.target) for target in case.targets] == [(1, True, "")]
    assert skipped == {}


@pytest.mark.parametrize(
    ("unprompted", "expected"), [(None, [True, False]), ("cyst", [False, True]), ("liver", [False, False])]
)
def test_one_of_several_labels_is_learned_without_a_click(
    store: SafeDatastore, save: Any, unprompted: str | None, expected: list[bool]
) -> None:
    save("a", [1, 2], label_info=entries(("tumor", 1), ("cyst", 2)))
    (case,), _ = labelled_cases(store, ["tumor", "cyst"], unprompted=unprompted)
    assert [target.salient for target in case.targets] == expected


def test_what_cannot_be_used_is_left_out_with_its_reason(store: SafeDatastore, save: Any, tmp_path: Path) -> None:
    for image in "abc":
        save(image, [1])
    labels = tmp_path / "labels" / "final"
    write_nifti(labels / "a.nii.gz", np.zeros(ball().shape, np.uint8))
    write_nifti(labels / "b.nii.gz", np.ones((5, 6, 7), np.uint8))
    (labels / "c.nii.gz").write_bytes(b"garbage")
    cases, skipped = labelled_cases(store, ["tumor"])
    assert cases == []
    assert skipped["a"] == "the label is empty"
    assert "shape (5, 6, 7)" in skipped["b"]
    assert "cannot be read" in skipped["c"]


def test_images_of_one_patient_are_one_group() -> None:
    assert group_of("sts_012_mr", r"sts_(\d+)_") == group_of("sts_012_ct", r"sts_(\d+)_") == "patient 012"
    assert group_of("other", r"sts_(\d+)_") == "other"
    assert group_of("sts_012_mr", None) == "sts_012_mr"
