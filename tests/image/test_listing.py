"""Which files of a folder are volumes, and what is said about the others."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from sam3d_label.image.listing import LONGEST_ID, FolderReader, end_of, id_fault
from sam3d_label.image.volume import Volume


def write(file: Path) -> Path:
    nib.save(nib.Nifti1Image(np.arange(6 * 7 * 8, dtype=np.int16).reshape(6, 7, 8), np.eye(4)), file)
    return file


def in_members(file: Path) -> None:
    content = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def cut_before_compression(file: Path) -> None:
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-2]))


def as_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def as_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def as_dangling_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere.nii.gz")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda file: file.write_bytes(b""), "empty"),
    "text": (lambda file: file.write_bytes(b"no volume" * 100), "unknown format"),
    "cut": (cut, "compression"),
    "cut before compression": (cut_before_compression, "ends before"),
    "folder": (as_folder, "folder"),
    "pipe": (as_pipe, "regular file"),
    "dangling link": (as_dangling_link, "does not exist"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_no_volume_is_skipped_with_a_reason(tmp_path: Path, damage: str) -> None:
    write(tmp_path / "good.nii.gz")
    spoil, reason = DAMAGES[damage]
    spoil(write(tmp_path / "bad.nii.gz"))
    found = FolderReader().read(tmp_path)
    assert found.volumes == {"good": ".nii.gz"}
    assert list(found.skipped) == ["bad.nii.gz"]
    assert reason in found.skipped["bad.nii.gz"]


def test_a_gzip_file_of_several_members_is_a_volume(tmp_path: Path) -> None:
    in_members(write(tmp_path / "members.nii.gz"))
    assert FolderReader().read(tmp_path).volumes == {"members": ".nii.gz"}
    assert Volume.open(tmp_path / "members.nii.gz").shape == (6, 7, 8)


@pytest.mark.parametrize("end", [".nii.gz", ".nii", ".nrrd"])
def test_a_cut_file_of_any_format_is_skipped(tmp_path: Path, end: str) -> None:
    source = write(tmp_path / "source.nii")
    file = tmp_path / f"x{end}"
    if end == ".nrrd":
        sitk.WriteImage(sitk.ReadImage(str(source)), str(file))
    else:
        write(file)
    assert FolderReader().read(tmp_path).volumes["x"] == end
    cut(file)
    assert f"x{end}" in FolderReader().read(tmp_path).skipped


def test_suffixes_count_in_any_case_and_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "low.nii.gz").rename(tmp_path / "UPPER.NII.GZ")
    write(tmp_path / "x.nii").rename(tmp_path / "Mixed.Nii")
    assert FolderReader().read(tmp_path).volumes == {"Mixed": ".Nii", "UPPER": ".NII.GZ"}
    assert Volume.open(tmp_path / "UPPER.NII.GZ").shape == (6, 7, 8)


def test_files_of_other_programs_are_named_and_notes_are_passed_over(tmp_path: Path) -> None:
    for name in ("._ct.nii.gz", ".ct.nii.gz", "ct.mha", "notes.txt", "README"):
        write(tmp_path / "x.nii.gz").rename(tmp_path / name)
    nested = tmp_path / "export" / "ST1" / "SE1"
    nested.mkdir(parents=True)
    (nested / "IM1").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "labels").mkdir()
    found = FolderReader().read(tmp_path)
    assert not found.volumes
    assert found.skipped.keys() == {"._ct.nii.gz", ".ct.nii.gz", "ct.mha", "export"}
    assert "macOS" in found.skipped["._ct.nii.gz"]
    assert "DICOM" in found.skipped["export"]


def test_of_files_with_one_id_one_is_listed_and_the_others_are_named(tmp_path: Path) -> None:
    for end in (".nii", ".nii.gz", ".NII.GZ"):
        write(tmp_path / f"x{end.lower()}").rename(tmp_path / f"ct{end}")
    found = FolderReader().read(tmp_path)
    assert found.volumes == {"ct": ".NII.GZ"}
    assert found.skipped.keys() == {"ct.nii", "ct.nii.gz"}
    assert all("same id" in reason for reason in found.skipped.values())
    assert FolderReader().read(tmp_path, {"ct": ".nii"}).volumes == {"ct": ".nii"}


def test_a_damaged_file_gives_way_to_a_good_one_with_its_id(tmp_path: Path) -> None:
    write(tmp_path / "ct.nii")
    cut(write(tmp_path / "ct.nii.gz"))
    assert FolderReader().read(tmp_path).volumes == {"ct": ".nii"}


def test_a_file_that_was_repaired_is_listed(tmp_path: Path) -> None:
    reader, file = FolderReader(), write(tmp_path / "ct.nii.gz")
    content = file.read_bytes()
    cut(file)
    assert not reader.read(tmp_path).volumes
    file.write_bytes(content)
    assert reader.read(tmp_path).volumes == {"ct": ".nii.gz"}


BAD_NAMES = [
    "a\nb",
    "a\u202eb",
    "a\x07",
    " a",
    "a ",
    "\u00e4" * (LONGEST_ID // 2 + 1),
    "x" * (LONGEST_ID + 1),
    "a\\b",
    "\udcff",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_cannot_be_an_id_is_skipped_with_a_reason(tmp_path: Path, name: str) -> None:
    assert id_fault(name)
    try:
        write(tmp_path / "x.nii.gz").rename(tmp_path / f"{name}.nii.gz")
    except OSError:
        pytest.skip("this file system does not take the name")
    found = FolderReader().read(tmp_path)
    assert not found.volumes
    assert ["cannot be an image id" in reason for reason in found.skipped.values()] == [True]


def test_a_name_without_an_id_is_no_volume() -> None:
    assert [end_of(name) for name in (".nii.gz", ".nii", "nii.gz", "x.NRRD")] == ["", "", "", ".NRRD"]
