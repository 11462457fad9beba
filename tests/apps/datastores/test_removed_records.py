"""What is known about a file survives its export, rename or change of format, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from lib.datastores.studies import SafeDatastore
from lib.trainers.cases import labelled_cases
from tests.helpers.app_helpers import SHAPE, write_nifti

PATTERNS = ["*.nii.gz", "*.nii", "*.nrrd"]
CYST = {"label_info": [{"name": "cyst", "idx": 1}], "client_id": "user-anna"}
APP_LABELS = ["tumor", "cyst"]


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """An image with a label, saved as cyst."""
    folder = tmp_path / "studies"
    folder.mkdir()
    write_nifti(folder / "ct.nii.gz")
    label = write_nifti(tmp_path / "label.nii.gz", np.ones(SHAPE, np.uint8))
    opened(folder).save_label("ct", str(label), "final", CYST)
    return folder


def opened(folder: Path) -> SafeDatastore:
    return SafeDatastore(str(folder), extensions=PATTERNS)


def learned(store: SafeDatastore) -> list[str]:
    cases, _ = labelled_cases(store, APP_LABELS)
    return [target.target for case in cases for target in case.targets]


def as_nrrd(file: Path) -> None:
    sitk.WriteImage(sitk.ReadImage(str(file)), str(file.with_name("ct.nrrd")))
    file.unlink()


def as_plain(file: Path) -> None:
    nib.save(nib.Nifti1Image.from_filename(file), file.with_name("ct.nii"))
    file.unlink()


FILES = ["ct.nii.gz", "labels/final/ct.nii.gz"]


@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_goes_and_comes_back_keeps_its_names(
    studies: Path, tmp_path: Path, name: str, restart: bool
) -> None:
    store = opened(studies)
    shutil.move(studies / name, tmp_path / "away.nii.gz")
    store.refresh()
    assert learned(store) == []
    store = opened(studies) if restart else store
    shutil.move(tmp_path / "away.nii.gz", studies / name)
    store.refresh()
    assert learned(store) == learned(opened(studies)) == ["cyst"]
    assert store.get_label_info("ct", "final")["client_id"] == "user-anna"


@pytest.mark.parametrize("change", [as_nrrd, as_plain])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_exported_in_another_format_keeps_its_names(
    studies: Path, name: str, change: Callable[[Path], None]
) -> None:
    change(studies / name)
    assert learned(opened(studies)) == ["cyst"]


def test_an_image_that_is_damaged_for_a_while_keeps_the_names(studies: Path) -> None:
    image = studies / "ct.nii.gz"
    content = image.read_bytes()
    image.write_bytes(content[:1000])
    store = opened(studies)
    assert store.list_images() == []
    image.write_bytes(content)
    store.refresh()
    assert learned(store) == ["cyst"]


def test_an_image_and_its_label_under_another_name_keep_the_names(studies: Path) -> None:
    (studies / "ct.nii.gz").rename(studies / "patient7.nii.gz")
    (studies / "labels/final/ct.nii.gz").rename(studies / "labels/final/patient7.nii.gz")
    store = opened(studies)
    assert store.list_images() == ["patient7"]
    assert learned(store) == ["cyst"]
    assert store.get_label_info("patient7", "final")["name"] == "patient7.nii.gz"


def test_another_label_under_another_name_gets_no_names(studies: Path) -> None:
    (studies / "ct.nii.gz").rename(studies / "patient7.nii.gz")
    (studies / "labels/final/ct.nii.gz").unlink()
    write_nifti(studies / "labels/final/patient7.nii.gz", 2 * np.ones(SHAPE, np.uint8))
    store = opened(studies)
    assert "label_info" not in store.get_label_info("patient7", "final")


def test_what_is_removed_by_request_is_forgotten(studies: Path, tmp_path: Path) -> None:
    image = Path(shutil.copy(studies / "ct.nii.gz", tmp_path))
    label = write_nifti(tmp_path / "other.nii.gz", np.ones(SHAPE, np.uint8))
    for remove in (lambda store: store.remove_label("ct", "final"), lambda store: store.remove_image("ct")):
        store = opened(studies)
        store.save_label("ct", str(label), "final", CYST)
        remove(store)
        shutil.copy(image, studies / "ct.nii.gz")
        shutil.copy(label, studies / "labels/final/ct.nii.gz")
        store.refresh()
        assert "label_info" not in store.get_label_info("ct", "final")
