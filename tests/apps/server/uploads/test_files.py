"""What a session keeps on disk: one image that was read to its end, and nothing else."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lib.configs.limits import RequestLimits
from lib.server.uploads import archives
from lib.server.uploads.archives import Upload
from lib.server.uploads.files import store_image
from sam3d_label.errors import VolumeError
from sam3d_label.image.suffixes import MASK_SUFFIXES
from sam3d_label.image.volume import Volume, save_mask
from tests.helpers.app_helpers import ball, write_nifti
from tests.helpers.dicom_files import series_array, write_series

CODE = b"import os; os.system('id')\n"


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    return write_nifti(tmp_path / "source.nii.gz").read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "session"
    folder.mkdir()
    return folder


def store(folder: Path, *files: tuple[str, bytes], unpack: bool = False, limits: RequestLimits | None = None) -> Path:
    uploads = [Upload(name, io.BytesIO(content)) for name, content in files]
    return store_image(uploads, folder, limits or RequestLimits(), unpack)


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def zipped(*members: tuple[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return content.getvalue()


def tarred(*members: tuple[str, bytes], mode: str = "w:gz") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return content.getvalue()


ARCHIVES = {
    "zip": zipped,
    **{mode: (lambda *members, mode=mode: tarred(*members, mode=mode)) for mode in ("w", "w:gz", "w:bz2")},
}
every_archive = pytest.mark.parametrize("pack", ARCHIVES.values(), ids=ARCHIVES)


def test_an_image_is_kept_under_a_name_of_the_server(folder: Path, image: bytes) -> None:
    assert store(folder, ("../../Müller, Anna.nii.gz", image)) == folder / "image.nii.gz"
    assert files_in(folder) == ["image.nii.gz"]


def test_the_slices_of_a_series_are_kept_whatever_their_names(folder: Path, tmp_path: Path) -> None:
    write_series(tmp_path / "slices")
    sent = [(f"../{path.name}.py", path.read_bytes()) for path in (tmp_path / "slices").iterdir()]
    stored = store(folder, *sent)
    np.testing.assert_array_equal(Volume.open(stored).array, series_array())
    assert all(name.endswith(".dcm") for name in files_in(folder))


@pytest.mark.parametrize("name", ["sitecustomize.py", "x.pth", "x.nhdr", "x.mhd", "x.so", "", "nii.gz.exe"])
def test_anything_but_an_image_is_rejected(folder: Path, image: bytes, name: str) -> None:
    with pytest.raises(VolumeError, match="is no image"):
        store(folder, (name, CODE))
    with pytest.raises(VolumeError, match="is no image"):
        store(folder, (name, image))


@pytest.mark.parametrize("content", [b"", CODE, b"NRRD0004\ntype: uchar\n"])
def test_an_image_that_cannot_be_read_is_rejected_without_the_servers_path(folder: Path, content: bytes) -> None:
    for name in ("x.nii.gz", "x.nii", "x.nrrd", "x.mha"):
        with pytest.raises(VolumeError) as caught:
            store(folder, (name, content))
        assert str(folder) not in str(caught.value)
        (folder / f"image{name[1:]}").unlink()


def test_every_type_of_the_page_about_files_is_taken(folder: Path, image: bytes, tmp_path: Path) -> None:
    volume = Volume.open(tmp_path / "source.nii.gz")
    for suffix in MASK_SUFFIXES:
        save_mask(tmp_path / f"mask{suffix}", np.ones(volume.shape, np.uint8), volume)
        stored = store(folder, (f"X{suffix.upper()}", (tmp_path / f"mask{suffix}").read_bytes()))
        assert Volume.open(stored).array.all()
        stored.unlink()


def test_two_images_are_not_one(folder: Path, image: bytes) -> None:
    with pytest.raises(VolumeError, match="Send one image"):
        store(folder, ("a.nii.gz", image), ("b.nii.gz", image))


@every_archive
def test_an_archive_with_one_image_gives_that_image_and_no_other_file(
    folder: Path, image: bytes, pack: Callable[..., bytes]
) -> None:
    archive = pack(("sitecustomize.py", CODE), ("deep/er/x.nii.gz", image), (".hidden.nii.gz", b"x"), ("README", b"x"))
    stored = store(folder, ("any name", archive), unpack=True)
    np.testing.assert_allclose(Volume.open(stored).array, ball())
    assert files_in(folder) == ["image.nii.gz"]


@every_archive
def test_an_archive_without_an_image_is_rejected(folder: Path, pack: Callable[..., bytes]) -> None:
    with pytest.raises(VolumeError, match="There is no image in it"):
        store(folder, ("x.zip", pack(("sitecustomize.py", CODE))), unpack=True)
    assert files_in(folder) == []


@every_archive
@pytest.mark.parametrize("name", ["../x.nii.gz", "/x.nii.gz", "a/../../x.nii.gz"])
def test_a_name_that_leads_out_of_the_archive_is_rejected(
    folder: Path, image: bytes, pack: Callable[..., bytes], name: str
) -> None:
    with pytest.raises(VolumeError, match="leads out of it"):
        store(folder, ("x.zip", pack((name, image))), unpack=True)
    assert files_in(folder) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_file_are_rejected(folder: Path, kind: bytes) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        entry = tarfile.TarInfo("x.nii.gz")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(VolumeError, match="links or devices"):
        store(folder, ("x.tar", content.getvalue()), unpack=True)


def test_links_in_a_zip_file_are_rejected(folder: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        entry = zipfile.ZipInfo("x.nii.gz")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(VolumeError, match="links"):
        store(folder, ("x.zip", content.getvalue()), unpack=True)


@every_archive
@pytest.mark.parametrize("name", ["x.nii", ".hidden", "README"])
def test_an_archive_that_inflates_too_far_is_rejected_while_it_is_read(
    folder: Path, pack: Callable[..., bytes], name: str
) -> None:
    bomb = pack((name, bytes(40 * 2**20)))
    with pytest.raises(VolumeError, match=r"larger than the .* \(--conf max_inflated_mb\)|no image in it"):
        store(folder, ("x.zip", bomb), unpack=True, limits=RequestLimits(max_inflated_mb=2))
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 4 * 2**20


@every_archive
def test_an_archive_with_too_many_files_is_rejected(
    folder: Path, pack: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MOST_FILES", 3)
    with pytest.raises(VolumeError, match="More than 3 files"):
        store(folder, ("x.zip", pack(*[(str(n), b"x") for n in range(4)])), unpack=True)


@every_archive
def test_a_damaged_archive_is_rejected(folder: Path, image: bytes, pack: Callable[..., bytes]) -> None:
    whole = bytearray(pack(("x.nii.gz", image)))
    for cut in (len(whole) // 2, 40, 3):
        with pytest.raises(VolumeError):
            store(folder, ("x.zip", bytes(whole[:cut])), unpack=True)
        for path in folder.rglob("*.gz"):
            path.unlink()


@every_archive
@pytest.mark.parametrize("name", [".hidden{}", "folder{}/"])
def test_members_that_are_passed_over_count(
    folder: Path, pack: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(archives, "MOST_FILES", 3)
    with pytest.raises(VolumeError, match="More than 3 files"):
        store(folder, ("x.zip", pack(*[(name.format(n), b"") for n in range(4)])), unpack=True)


def test_a_zip_directory_is_not_read_whatever_record_states_its_size(folder: Path) -> None:
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"x"
    count = archives.MOST_DIRECTORY_BYTES // len(entry) + 1
    directory = entry * count
    zip64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(directory), 1)
    small_claim = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 50, 0, 0)
    with pytest.raises(VolumeError, match="lists more than"):
        store(folder, ("x.zip", directory + zip64 + locator + small_claim), unpack=True)


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9", "GNU.sparse.name": "x.nii"},
        {"GNU.sparse.map": "0,x", "GNU.sparse.size": "5"},
        {"GNU.sparse.size": "x"},
    ],
    ids=str,
)
def test_a_tar_header_with_numbers_that_are_none_is_damage(folder: Path, headers: dict[str, str]) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("x.nii")
        entry.pax_headers, entry.size = headers, 4
        archive.addfile(entry, io.BytesIO(b"text"))
    with pytest.raises(VolumeError, match="cannot be unpacked"):
        store(folder, ("x.tar", content.getvalue()), unpack=True)


@pytest.mark.parametrize("size", [-1024, 2**80])
def test_a_tar_member_of_an_impossible_size_is_damage(folder: Path, size: int) -> None:
    header = bytearray(tarfile.TarInfo("x.nii").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" + (size % 2**88).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(VolumeError, match="cannot be unpacked"):
        store(folder, ("x.tar", bytes(header) + bytes(2**12)), unpack=True)


def test_other_files_are_not_unpacked(folder: Path, image: bytes) -> None:
    for content in (b"", b"text" * 500, gzip.compress(b"text"), image):
        with pytest.raises(VolumeError, match=r"cannot be unpacked|no image"):
            store(folder, ("x.zip", content), unpack=True)


@every_archive
def test_an_empty_slice_in_an_archive_does_not_shorten_the_series(
    folder: Path, tmp_path: Path, pack: Callable[..., bytes]
) -> None:
    write_series(tmp_path / "slices")
    sent = [(path.name, path.read_bytes()) for path in sorted((tmp_path / "slices").iterdir())]
    assert store(folder, ("x", pack(*sent, ("report.pdf", b"%PDF"))), unpack=True).is_dir()
    with pytest.raises(VolumeError, match="is no image"):
        store(tmp_path, ("x", pack(*sent[:-1], ("last.DCM", b""))), unpack=True)
