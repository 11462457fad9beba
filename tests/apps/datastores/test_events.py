"""Files that come and go in a studies folder while the server runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.datastores.studies import SafeDatastore
from tests.helpers.app_helpers import wait, write_nifti


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    folder.mkdir()
    write_nifti(folder / "a.nii.gz")
    return folder


@pytest.fixture
def watched(studies: Path) -> Iterator[SafeDatastore]:
    store = SafeDatastore(str(studies), extensions=["*.nii.gz"], auto_reload=True)
    yield store
    store._observer.stop()


def test_a_file_that_arrives_by_a_rename_as_rsync_writes_it_is_listed(studies: Path, watched: SafeDatastore) -> None:
    shutil.copy(studies / "a.nii.gz", studies / ".b.nii.gz.Xy12")
    os.rename(studies / ".b.nii.gz.Xy12", studies / "b.nii.gz")
    wait(lambda: sorted(watched.list_images()) == ["a", "b"], "the renamed file is not listed", 20)


def test_an_image_with_a_new_name_is_listed_under_that_name_only(studies: Path, watched: SafeDatastore) -> None:
    os.rename(studies / "a.nii.gz", studies / "a2.nii.gz")
    wait(lambda: watched.list_images() == ["a2"], "the new name is not listed alone", 20)


def test_a_file_that_is_copied_slowly_is_listed_once_it_is_whole(studies: Path, watched: SafeDatastore) -> None:
    content = (studies / "a.nii.gz").read_bytes()
    with (studies / "slow.nii.gz").open("wb") as file:
        file.write(content[:1000])
        file.flush()
        wait(lambda: "slow.nii.gz" in watched.skipped, "the half file is not skipped", 20)
        assert watched.list_images() == ["a"]
        file.write(content[1000:])
    wait(lambda: sorted(watched.list_images()) == ["a", "slow"], "the whole file is not listed", 20)
    assert not watched.skipped


def test_a_label_in_a_folder_that_is_new_is_noticed(studies: Path, watched: SafeDatastore) -> None:
    (studies / "labels" / "second").mkdir()
    shutil.copy(studies / "a.nii.gz", studies / "labels" / "second" / "a.nii.gz")
    wait(lambda: watched.status()["label_tags"] == {"second": 1}, "the label is not noticed", 20)


def test_many_changes_at_once_are_read_together(studies: Path, watched: SafeDatastore) -> None:
    reads = []
    refresh = watched._reconcile_datastore

    def counted() -> None:
        reads.append(1)
        refresh()

    watched._reconcile_datastore = counted
    for number in range(50):
        shutil.copy(studies / "a.nii.gz", studies / f"b{number}.nii.gz")
    wait(lambda: len(watched.list_images()) == 51, "the files are not listed", 20)
    assert len(reads) < 25
