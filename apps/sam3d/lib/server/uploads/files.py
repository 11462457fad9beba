"""Uploads of a session -> one image on disk: nothing else is written, and no name of the client is used."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast

from lib.configs.limits import MIB, Limits
from sam3d_label.errors import VolumeError
from sam3d_label.image.suffixes import MASK_SUFFIXES
from sam3d_label.image.volume import Volume

CHUNK = 2**20
SUFFIXES = tuple(sorted(MASK_SUFFIXES, key=len, reverse=True))
"""Suffixes of image files that hold their header and their voxels, the longest first."""

SERIES = "series"
DICOM_MARK, DICOM_MARK_AT = b"DICM", 128
MOST_FILES = 10_000
"""Files of one session: slices of a series, members of an archive."""

MOST_HEADER_BYTES = 16 * MIB
"""Size of one header of a tar file."""

MOST_DIRECTORY_BYTES = 4 * MIB
"""Size of the directory of a ZIP file."""

COMPRESSED_TAR = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
ARCHIVE_ERRORS = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError),
    *(RuntimeError, ValueError, OverflowError, gzip.BadGzipFile),
)


@dataclass(frozen=True)
class Upload:
    """One file that a client sent, or one member of an archive.

    Attributes:
        name: Its name, which only decides what format it is read as.
        content: Its bytes, from the start.
    """

    name: str
    content: IO[bytes]


def store_image(
    uploads: Iterable[Upload],
    folder: Path,
    limits: Limits,
    unpack: bool = False,
    grow: Callable[[int], None] = lambda size: None,
) -> Path:
    """Write the image that a client sent to an empty folder, and read it once to see that it is whole.

    Args:
        uploads: One image file, the files of one DICOM series, or one archive of these.
        folder: Where to; on an error the caller removes it.
        limits: What an image may hold at most.
        unpack: Whether an archive is unpacked.
        grow: Called with the number of bytes that are about to be written; it may raise.

    Returns:
        The image's file, or the folder of its DICOM series.

    Raises:
        VolumeError: There is no image, more than one, or one that is damaged or too large.
    """
    with ExitStack() as opened:
        members: Iterable[Upload] = uploads
        most_bytes = limits.max_inflated_mb * MIB
        if unpack:
            first, *more = uploads
            if more:
                raise VolumeError("Send one archive to unpack, or several files without unpacking them")
            members = opened.enter_context(closing(_members(first, most_bytes)))
        try:
            image = _write(members, folder, most_bytes, grow, strict=not unpack)
        except ARCHIVE_ERRORS as error:
            if isinstance(error, VolumeError) or not unpack:
                raise
            raise VolumeError(f"This archive cannot be unpacked ({type(error).__name__}): create it again") from error
    try:
        Volume.open(image)
    except VolumeError as error:
        raise VolumeError(str(error).replace(str(image), "The image")) from error
    return image


def _write(members: Iterable[Upload], folder: Path, most_bytes: int, grow: Callable[[int], None], strict: bool) -> Path:
    """Write the images among the members; what else an archive holds is passed over, and refused elsewhere."""
    images: list[Path] = []
    slices, written = 0, 0
    for number, member in enumerate(members):
        if number >= MOST_FILES:
            raise VolumeError(f"More than {MOST_FILES} files are not allowed in one session")
        head = member.content.read(DICOM_MARK_AT + len(DICOM_MARK))
        suffix = next((suffix for suffix in SUFFIXES if member.name.lower().endswith(suffix)), "")
        if head[DICOM_MARK_AT:] == DICOM_MARK:
            target = folder / SERIES / f"{slices:05d}.dcm"
            slices += 1
        elif suffix:
            target = folder / f"image{suffix}"
            images.append(target)
        elif strict:
            raise VolumeError(
                f"{member.name[-100:]!r} is no image: send one file of type {', '.join(MASK_SUFFIXES)},"
                " or the DICOM files of one series"
            )
        else:
            continue
        if len(images) + bool(slices) > 1:
            raise VolumeError("Send one image, or the DICOM files of one series, in a session")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            chunk = head
            while chunk:
                grow(len(chunk))
                written += file.write(chunk)
                chunk = member.content.read(CHUNK)
                if written > most_bytes:
                    raise VolumeError(
                        f"This is larger than the {most_bytes // MIB} MiB that are allowed (--conf max_inflated_mb)"
                    )
    if not images and not slices:
        raise VolumeError(f"There is no image in it: neither a file of type {', '.join(MASK_SUFFIXES)} nor DICOM files")
    return images[0] if images else folder / SERIES


def _members(archive: Upload, most_bytes: int) -> Generator[Upload, None, None]:
    """The regular files of a ZIP or tar archive, hidden ones left out.

    Raises:
        VolumeError: It is no archive, or a member is a link or leads out of it.
    """
    content = cast(BinaryIO, archive.content)
    if zipfile.is_zipfile(content):
        yield from _zip_members(content)
        return
    content.seek(0)
    magic = content.read(6)
    content.seek(0)
    opener = next((opener for mark, opener in COMPRESSED_TAR.items() if magic.startswith(mark)), None)
    with ExitStack() as opened:
        plain = opened.enter_context(opener(content)) if opener else content  # type: ignore[operator]
        bounded = cast(IO[bytes], _BoundedReads(plain, most_bytes + MOST_HEADER_BYTES))
        tar = opened.enter_context(tarfile.open(fileobj=bounded, mode="r:"))
        for number in itertools.count():
            if (member := tar.next()) is None:
                return
            _require_few(number)
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every member that it has read
            if member.isdir():
                continue
            _require_inside(member.name)
            if not member.isreg():
                raise VolumeError("This archive cannot be unpacked: it holds links or devices; pack plain files only")
            if not _is_hidden(member.name) and (file := tar.extractfile(member)) is not None:
                yield Upload(member.name, file)


def _zip_members(content: BinaryIO) -> Iterator[Upload]:
    bounded = cast(IO[bytes], _BoundedDirectory(content))
    with zipfile.ZipFile(bounded) as archive:
        for number, member in enumerate(archive.infolist()):
            _require_few(number)
            if member.is_dir():
                continue
            _require_inside(member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise VolumeError("This archive cannot be unpacked: it holds links; pack plain files only")
            if not _is_hidden(member.filename):
                with archive.open(member) as file:
                    yield Upload(member.filename, file)


def _require_few(number: int) -> None:
    """Count every member, also those that are passed over: a small file can hold millions of empty ones."""
    if number >= MOST_FILES:
        raise VolumeError(f"More than {MOST_FILES} files are not allowed in one session")


def _require_inside(name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise VolumeError("This archive cannot be unpacked: the name of a file in it leads out of it")


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


class _BoundedDirectory:
    """A ZIP file whose directory is not read into memory when it is large.

    `zipfile` reads the directory at once, and more than one record in the file may state its size.

    Args:
        file: The ZIP file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes."""
        if size > MOST_DIRECTORY_BYTES:
            raise VolumeError(f"This archive cannot be unpacked: it lists more than {MOST_FILES} files")
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _BoundedReads:
    """A file of which tarfile reads neither a large header into memory, nor more than an image may hold.

    Args:
        file: The tar file, decompressed.
        most_bytes: Where reading ends.
    """

    def __init__(self, file: IO[bytes], most_bytes: int) -> None:
        self._file, self._most_bytes = file, most_bytes

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        if size > MOST_HEADER_BYTES:
            raise tarfile.ReadError("a header is too large")
        self._require_near(self._file.tell() + size)
        return self._file.read(size)

    def seek(self, position: int) -> int:
        """Go to a position from the start."""
        self._require_near(position)
        return self._file.seek(position)

    def tell(self) -> int:
        """The position from the start."""
        return self._file.tell()

    def _require_near(self, position: int) -> None:
        if position > self._most_bytes:
            raise VolumeError(
                f"This archive is larger than the {self._most_bytes // MIB} MiB that are allowed"
                " (--conf max_inflated_mb)"
            )
