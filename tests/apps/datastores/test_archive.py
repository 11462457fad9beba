"""The archive of a dataset is whole, or nothing is left of it."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lib.datastores.archive import pack
from sam3d_label.errors import DiskFullError


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def case(tmp_path: Path) -> dict[str, str]:
    for name in ("image", "label"):
        (tmp_path / f"{name}.nii").write_bytes(name.encode())
    return {name: str(tmp_path / f"{name}.nii") for name in ("image", "label")}


def left(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_it_holds_the_files_by_their_use_and_the_metadata(case: dict[str, str]) -> None:
    os.utime(case["image"], (0, 0))  # ZIP knows no time before 1980
    with zipfile.ZipFile(pack([case], '{"name": "x"}')) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "image/image.nii": b"image",
            "label/label.nii": b"label",
            "metadata.json": b'{"name": "x"}',
        }


def test_a_file_that_is_gone_leaves_nothing(case: dict[str, str], temporary: Path) -> None:
    os.remove(case["label"])
    with pytest.raises(FileNotFoundError):
        pack([case], "{}")
    assert not left(temporary)


def test_a_full_disk_leaves_nothing(case: dict[str, str], temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(DiskFullError, match=r"dataset\.zip"):
        pack([case], "{}")
    assert not left(temporary)
