"""A studies folder whose disk is unmounted while the server runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fastapi import HTTPException

from lib.datastores import studies_folder
from lib.datastores.studies import SafeDatastore
from lib.datastores.studies_folder import check_studies
from lib.errors import StudiesGoneError
from lib.server.health import Readiness, listed
from tests.helpers.app_helpers import ball, write_nifti

EXTENSIONS = ["*.nii.gz", "*.nii", "*.nrrd"]


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    folder.mkdir()
    write_nifti(folder / "mr.nii.gz")
    return folder


@pytest.fixture(params=[False, True], ids=["gone", "another"])
def unmounted(studies: Path, request: pytest.FixtureRequest) -> tuple[SafeDatastore, Path]:
    """A datastore, and where its folder is now; another one may be in its place."""
    store = SafeDatastore(str(studies), extensions=EXTENSIONS)
    aside = studies.rename(studies.with_name("aside"))
    if request.param:
        studies.mkdir()
    return store, aside


def left_alone(studies: Path) -> bool:
    return not studies.exists() or not any(studies.iterdir())


def test_nothing_is_read_written_or_made(unmounted: tuple[SafeDatastore, Path], studies: Path, tmp_path: Path) -> None:
    store, aside = unmounted
    before = (aside / "datastore_v2.json").read_bytes()
    upload = str(write_nifti(tmp_path / "new.nii.gz", ball() + 1))
    for action in (store.list_images, store.refresh, store.datalist, lambda: store.get_image_uri("mr")):
        with pytest.raises(StudiesGoneError, match="mount its disk again"):
            action()
    for change in (
        lambda: store.add_image("new", upload, {}),
        lambda: store.save_label("mr", upload, "final", {}),
        lambda: store.remove_image("mr"),
        lambda: store.update_image_info("mr", {"a": 1}),
    ):
        with pytest.raises(HTTPException) as caught:
            change()
        assert caught.value.status_code == 503
    assert left_alone(studies)
    assert (aside / "datastore_v2.json").read_bytes() == before


def test_the_server_is_not_ready_and_says_why(unmounted: tuple[SafeDatastore, Path]) -> None:
    store, _ = unmounted
    report = Readiness({"datastore": listed(lambda: store)}).report()
    assert not report.ready
    assert "studies folder is gone" in report.checks["datastore"].detail
    assert "studies folder is gone" in store.status()["error"]


def test_all_goes_on_when_it_is_back(unmounted: tuple[SafeDatastore, Path], studies: Path, tmp_path: Path) -> None:
    store, aside = unmounted
    with pytest.raises(StudiesGoneError):
        store.list_images()
    if studies.exists():
        studies.rmdir()
    write_nifti(aside / "ct.nii.gz")
    aside.rename(studies)
    assert store.list_images() == ["mr", "ct"]
    store.update_image_info("mr", {"a": 1})
    assert "error" not in store.status()


def test_a_disk_that_is_mounted_under_another_number_is_known_by_its_index(
    studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SafeDatastore(str(studies), extensions=EXTENSIONS)
    monkeypatch.setattr(studies_folder, "device_and_inode", lambda path: (99, os.stat(path).st_ino))
    assert store.list_images() == ["mr"]
    store.update_image_info("mr", {"a": 1})


def test_an_empty_folder_is_reported_at_start(studies: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_studies(studies)
    assert not caplog.records
    (tmp_path / "studeis").mkdir()
    check_studies(tmp_path / "studeis")
    assert "check the spelling of --studies" in caplog.text
    with pytest.raises(StudiesGoneError):
        check_studies(tmp_path / "gone", must_exist=True)
