"""Archives are verified to their last byte, and ask for little memory whatever they claim."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable

import pytest

from lib.server.uploads import archives
from lib.server.uploads.archives import Upload
from sam3d_label.errors import VolumeError

FILES = [(f"{number:03}.dcm", random.Random(number).randbytes(700)) for number in range(3)]


def zipped(files: Iterable[tuple[str, bytes]] = FILES, kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", kind) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return content.getvalue()


def tarred(files: Iterable[tuple[str, bytes]] = FILES) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return content.getvalue()


def unpacked(archive: bytes) -> list[tuple[str, bytes]]:
    try:
        found = archives.members(Upload("a", io.BytesIO(archive)), 2**30)
        return [(member.name, member.content.read()) for member in found]
    except VolumeError:
        raise
    except archives.ERRORS as error:
        raise archives.rejected(error) from error


GOOD: dict[str, Callable[[], bytes]] = {
    "zip": zipped,
    "zip stored": lambda: zipped(kind=zipfile.ZIP_STORED),
    "tar": tarred,
    "tar.gz": lambda: gzip.compress(tarred(), mtime=0),
    "tar.gz of two members": lambda: gzip.compress(tarred()[:1000]) + gzip.compress(tarred()[1000:]),
    "tar.bz2": lambda: bz2.compress(tarred()),
    "tar.bz2 of two members": lambda: bz2.compress(tarred()[:1000]) + bz2.compress(tarred()[1000:]),
}


@pytest.mark.parametrize("kind", GOOD)
def test_the_members_of_an_archive_are_given_out(kind: str) -> None:
    assert unpacked(GOOD[kind]()) == FILES


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2"])
def test_no_flipped_bit_of_a_compressed_archive_changes_a_member(kind: str) -> None:
    whole, rng = GOOD[kind](), random.Random(1)
    accepted = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        try:
            found = unpacked(bytes(damaged))
        except VolumeError:
            continue
        accepted += 1
        assert [data for _, data in found] == [data for _, data in FILES]
    assert accepted < 60  # bits without a meaning, such as those of times and comments


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.bz2"])
def test_an_archive_that_is_cut_off_or_followed_by_something_is_rejected(kind: str) -> None:
    whole = GOOD[kind]()
    cuts = [whole[:-1], whole[:-6], whole[: len(whole) // 2]] if kind != "tar" else [whole[:3000], whole[:4608]]
    for damaged in (*cuts, whole + b"junk", whole + b"\x1f\x8b"):
        with pytest.raises(VolumeError, match="cannot be unpacked"):
            unpacked(damaged)


def test_a_damaged_header_in_a_tar_file_does_not_end_it_early() -> None:
    damaged = bytearray(tarred())
    damaged[3 * 512 + 150] ^= 1  # the checksum of the second header
    with pytest.raises(VolumeError, match="cannot be unpacked"):
        unpacked(bytes(damaged))


@pytest.mark.parametrize(
    "archive",
    [
        lzma.compress(tarred()),
        lzma.compress(tarred(), lzma.FORMAT_ALONE),
        zipped(kind=zipfile.ZIP_LZMA),
        zipped(kind=zipfile.ZIP_BZIP2),
        b"\x28\xb5\x2f\xfd" + bytes(100),
        b"7z\xbc\xaf\x27\x1c" + bytes(100),
        b"neither of these" * 100,
    ],
    ids=["tar.xz", "tar.lzma", "zip lzma", "zip bzip2", "zstd", "7z", "text"],
)
def test_other_kinds_of_archives_are_rejected_and_the_answer_names_those_that_are_not(archive: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(VolumeError, match=r"\.zip \(stored or deflate\), \.tar, \.tar\.gz or \.tar\.bz2"):
            unpacked(archive)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_an_encrypted_zip_file_is_rejected_by_name() -> None:
    archive = bytearray(zipped())
    archive[archive.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(VolumeError, match="encrypted"):
        unpacked(bytes(archive))


@pytest.mark.parametrize("name", ["notes.pdf", ".hidden"])
def test_little_is_read_to_get_past_files_without_an_image(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_SKIPPED_BYTES", 2**20)
    archive = gzip.compress(tarred([(name, bytes(2**21)), *FILES]), 1)
    found = archives.members(Upload("a", io.BytesIO(archive)), 2**30)
    with pytest.raises(VolumeError, match="not images"):
        list(found)
