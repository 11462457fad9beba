"""Read the members of archives from clients one by one, with bounds on memory and time.

ZIP (stored and deflate) and tar (plain, gzip and bzip2) are unpacked: their decompressors need little memory whatever
an archive claims. Those of xz and of LZMA in ZIP allocate up to 4 GiB as the archive asks.
"""

from __future__ import annotations

import itertools
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, BinaryIO, cast

from sam3d_label.errors import VolumeError
from sam3d_label.image.limits import MIB
from sam3d_label.image.verify import Compressed, Raw, Source

MOST_FILES = 10_000
"""Files of one session: slices of a series, members of an archive."""

MOST_HEADER_BYTES = 16 * MIB
"""Size of one header of a tar file."""

MOST_DIRECTORY_BYTES = 4 * MIB
"""Size of the directory of a ZIP file."""

MOST_SKIPPED_BYTES = 64 * MIB
"""Bytes of a tar file that are read only to get past members without an image."""

CHUNK = 2**20
ACCEPTED = "send a .zip (stored or deflate), .tar, .tar.gz or .tar.bz2"
FLAG_ENCRYPTED = 1
GZIP, BZIP2 = b"\x1f\x8b", b"BZh"
OTHERS = {
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
    b"]\0\0": "lzma",
}
ERRORS = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error),
    *(EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError),
)
"""Exceptions of `tarfile` and `zipfile` for damaged archives."""


@dataclass(frozen=True)
class Upload:
    """One file that a client sent, or one member of an archive.

    Attributes:
        name: Its name, which only decides what format it is read as.
        content: Its bytes, from the start.
    """

    name: str
    content: IO[bytes]


def members(archive: Upload, most_bytes: int) -> Generator[Upload, None, None]:
    """Yield the regular files of a ZIP or tar archive, hidden ones left out. Read each before the next.

    Args:
        archive: The archive; its name is ignored.
        most_bytes: How much an image may hold.

    Raises:
        VolumeError: It is no archive of an accepted kind, damaged, or a member is a link or leads out of it.
    """
    try:
        yield from _members(cast(BinaryIO, archive.content), most_bytes)
    except ERRORS as error:
        if isinstance(error, VolumeError):
            raise
        raise rejected(error) from error


def rejected(error: Exception) -> VolumeError:
    """Return the exception for an error of `ERRORS` while a member is read."""
    return _rejected(f"{type(error).__name__}; create it again, or {ACCEPTED}")


def _rejected(reason: str) -> VolumeError:
    return VolumeError(f"This archive cannot be unpacked: {reason}")


def _members(content: BinaryIO, most_bytes: int) -> Iterator[Upload]:
    content.seek(0)
    magic = content.read(6)
    for mark, kind in OTHERS.items():
        if magic.startswith(mark):
            raise _rejected(f"it is compressed as {kind}; {ACCEPTED}")
    source: Source
    if magic.startswith(GZIP):
        source = Compressed(content, "gzip")
    elif magic.startswith(BZIP2):
        source = Compressed(content, "bzip2", joined=True)
    elif zipfile.is_zipfile(content):
        yield from _zip_members(content)
        return
    else:
        source = Raw(content)
    content.seek(0)
    yield from _tar_members(_TarStream(source, most_bytes + MOST_HEADER_BYTES))


def _tar_members(stream: _TarStream) -> Iterator[Upload]:
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:") as tar:
        for number in itertools.count():
            if (member := tar.next()) is None:
                break
            _require_few(number)
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every member that it has read
            if member.isdir():
                continue
            _require_inside(member.name)
            if not member.isreg():
                raise _rejected("it holds links or devices; pack plain files only")
            if not _is_hidden(member.name) and (file := tar.extractfile(member)) is not None:
                yield Upload(member.name, file)
    stream.require_end()


def _zip_members(content: BinaryIO) -> Iterator[Upload]:
    bounded = cast(IO[bytes], _BoundedDirectory(content))
    with zipfile.ZipFile(bounded) as archive:
        for number, member in enumerate(archive.infolist()):
            _require_few(number)
            if member.is_dir():
                continue
            _require_inside(member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise _rejected("it holds links; pack plain files only")
            if member.flag_bits & FLAG_ENCRYPTED:
                raise _rejected("it is encrypted; pack it without a password")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                names: dict[int, str] = zipfile.compressor_names  # type: ignore[attr-defined]  # missing in typeshed
                kind = names.get(member.compress_type, member.compress_type)
                raise _rejected(f"a file in it is compressed as {kind}; {ACCEPTED}")
            if not _is_hidden(member.filename):
                with archive.open(member) as file:
                    yield Upload(member.filename, file)


def _require_few(number: int) -> None:
    """Count every member, also skipped ones: a small file can hold millions of empty ones."""
    if number >= MOST_FILES:
        raise VolumeError(f"More than {MOST_FILES} files are not allowed in one session")


def _require_inside(name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise _rejected("the name of a file in it leads out of it")


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
            raise _rejected(f"it lists more than {MOST_FILES} files")
        return self._file.read(size)

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


class _TarStream:
    """A tar file, read once from its start to its end, of which tarfile reads no large header into memory.

    Args:
        source: The tar file, decompressed.
        most_bytes: Where reading ends.
    """

    def __init__(self, source: Source, most_bytes: int) -> None:
        self._source, self._most_bytes = source, most_bytes
        self._position = self._skipped = 0
        self._last = b""

    def read(self, size: int) -> bytes:
        """Read `size` bytes, fewer only at the end."""
        if size > MOST_HEADER_BYTES:
            raise tarfile.ReadError("a header is too large")
        if self._position + size > self._most_bytes:
            raise VolumeError(
                f"This archive is larger than the {self._most_bytes // MIB} MiB that are allowed"
                " (--conf max_inflated_mb)"
            )
        parts: list[bytes] = []
        try:
            while size and (part := self._source.read(size)):
                parts.append(part)
                size -= len(part)
        except VolumeError as error:
            raise _rejected(str(error)) from error
        self._last = b"".join(parts)
        self._position += len(self._last)
        return self._last

    def seek(self, position: int) -> int:
        """Continue to a position from the start."""
        if position < self._position:
            raise tarfile.ReadError("its members overlap")
        self._skipped += position - self._position
        if self._skipped > MOST_SKIPPED_BYTES:
            raise _rejected(
                f"more than {MOST_SKIPPED_BYTES // MIB} MiB of it are not images; pack only the image or series"
            )
        while self._position < position:
            if not self.read(min(CHUNK, position - self._position)):
                raise tarfile.ReadError("unexpected end of data")
        return position

    def tell(self) -> int:
        """Return the position from the start."""
        return self._position

    def require_end(self) -> None:
        """Read the rest after the last member, so that the checksum of the compression is verified.

        Raises:
            VolumeError: The tar file does not end with zeros as it must, or the compressed data are damaged.
        """
        if not self._last or any(self._last):
            raise _rejected("it is cut off or damaged; create it again")
        started = self._position
        while rest := self.read(CHUNK):
            if any(rest) or self._position - started > MOST_SKIPPED_BYTES:
                raise _rejected("something follows its last file; create it again")
