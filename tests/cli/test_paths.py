"""Paths that a command is given are checked before it works."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sam3d_label.cli.paths import require_folder, require_suffix, require_unused
from sam3d_label.errors import Sam3dError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a file and a folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("of the user")
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["m.nii", "m.nii.gz", "a/b.nii.gz", "x.y.nii"])
def test_a_suffix_that_is_allowed_is_accepted(name: str) -> None:
    require_suffix(Path(name), [".nii", ".nii.gz"], "a mask")


@pytest.mark.parametrize("name", ["m", "m.nii.txt", "m.gz", ".nii", "nii", "m.nii/x"])
def test_any_other_suffix_is_rejected_with_those_that_are_allowed(name: str) -> None:
    with pytest.raises(Sam3dError, match=r"the name of a mask ends in \.nii, \.nii\.gz"):
        require_suffix(Path(name), [".nii", ".nii.gz"], "a mask")


@pytest.mark.parametrize("output", ["new", "new/deep/file", "folder/new"])
def test_new_files_and_folders_are_accepted(here: Path, output: str) -> None:
    require_unused(Path(output), overwrite=False)
    require_folder(Path(output))
    assert sorted(path.name for path in here.rglob("*")) == ["file", "folder"]


def test_a_file_is_overwritten_only_with_the_users_consent(here: Path) -> None:
    with pytest.raises(Sam3dError, match="file exists: write elsewhere, or add --overwrite"):
        require_unused(Path("file"), overwrite=False)
    require_unused(Path("file"), overwrite=True)


def test_a_folder_is_never_overwritten_by_a_file(here: Path) -> None:
    with pytest.raises(Sam3dError, match="folder is a folder"):
        require_unused(Path("folder"), overwrite=True)


def test_two_outputs_need_two_names(here: Path) -> None:
    with pytest.raises(Sam3dError, match="new is given for two outputs"):
        require_unused(Path("new"), here / "new", overwrite=True)


@pytest.mark.parametrize("check", [require_folder, lambda path: require_unused(path, overwrite=True)])
def test_nothing_is_written_below_a_file(here: Path, check: object) -> None:
    with pytest.raises(Sam3dError, match="file is not a folder"):
        check(Path("file/new/name"))  # type: ignore[operator]


def test_a_file_is_not_taken_for_a_folder(here: Path) -> None:
    with pytest.raises(Sam3dError, match="file is not a folder"):
        require_folder(Path("file"))


def test_a_folder_that_is_read_only_is_rejected(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(Sam3dError, match="folder is read-only"):
        require_unused(Path("folder/new"), overwrite=False)
