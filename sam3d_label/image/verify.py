"""Read the voxels of a file piece by piece, and check them to the last byte.

The checksums of gzip, zlib and bzip2 are at the end of the data, after the last voxel: a reader that stops at the last
voxel never compares them. Here the data must end where the header says, and the file where the data ends.
"""

from __future__ import annotations

import bz2
import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from sam3d_label.errors import VolumeError
from sam3d_label.image.header import Header

FIRST_READ, READ = 2**10, 2**18
"""Bytes that are read from a file at a time: first, and at most."""

MOST_EMPTY_MEMBERS = 1000
"""Gzip members without content in one file; bgzip ends each file with one, and gzip files may be joined."""

DEFLATE_RATIO = 1032
"""Most bytes that deflate can store in one."""

AGAIN = "copy or export it again"


class Source(Protocol):
    """Bytes of a file after decompression."""

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes; none at the end of the data, whose checksum is then verified."""


class Decompressor(Protocol):
    """Common interface of the wrapped decompressors of `zlib` and `bz2`."""

    @property
    def eof(self) -> bool:
        """Whether the compressed data have ended, with a correct checksum."""

    @property
    def unused(self) -> bytes:
        """Bytes after the end."""

    @property
    def hungry(self) -> bool:
        """Whether more compressed bytes are needed."""

    def push(self, data: bytes, count: int) -> bytes:
        """Return up to `count` more decompressed bytes."""


class _Zlib:
    def __init__(self, window: int) -> None:
        self._zlib = zlib.decompressobj(window)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused(self) -> bytes:
        return self._zlib.unused_data

    @property
    def hungry(self) -> bool:
        return not self._zlib.unconsumed_tail

    def push(self, data: bytes, count: int) -> bytes:
        return self._zlib.decompress(data or self._zlib.unconsumed_tail, count)


class _Bzip2:
    def __init__(self) -> None:
        self._bz2 = bz2.BZ2Decompressor()

    @property
    def eof(self) -> bool:
        return self._bz2.eof

    @property
    def unused(self) -> bytes:
        return self._bz2.unused_data

    @property
    def hungry(self) -> bool:
        return self._bz2.needs_input

    def push(self, data: bytes, count: int) -> bytes:
        return self._bz2.decompress(data, count)


class Raw:
    """Bytes as stored."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes; none at the end of the file."""
        return self._file.read(count)


class Compressed:
    """Bytes of a compressed file, from the file's position on.

    Args:
        file: The file.
        encoding: gzip (one member or more), zlib or bzip2.
        joined: Whether bzip2 data may have more than one member, as those of parallel compressors have.
    """

    def __init__(self, file: BinaryIO, encoding: str, *, joined: bool = False) -> None:
        self._file = file
        self._next_mark = b"\x1f" if encoding == "gzip" else b"BZh" if joined else None
        self._encoding = encoding
        self._inflater = self._new()
        self._ended = False
        self._piece = FIRST_READ
        self._holds_nothing = True
        self._empty_members = 0

    def _new(self) -> Decompressor:
        # 31: gzip. 47: gzip or zlib, as ITK reads MetaImage.
        return _Bzip2() if self._encoding == "bzip2" else _Zlib(31 if self._encoding == "gzip" else 47)

    def read(self, count: int) -> bytes:
        """Return up to `count` decompressed bytes; none at the end.

        Raises:
            VolumeError: The data are damaged, cut off, or followed by something else.
        """
        try:
            return self._read(count)
        except (zlib.error, OSError, EOFError, ValueError) as error:
            if isinstance(error, VolumeError) or (isinstance(error, OSError) and error.errno):
                raise
            raise VolumeError(f"its {self._encoding} compression is damaged ({error}): {AGAIN}") from error

    def _read(self, count: int) -> bytes:
        while not self._ended:
            if self._inflater.eof:
                self._start_next_member()
                continue
            hungry = self._inflater.hungry
            data = self._next_piece() if hungry else b""
            inflated = self._inflater.push(data, count)  # output may be left although the file has ended
            if inflated:
                self._holds_nothing = False
                return inflated
            if hungry and not data and not self._inflater.eof:
                raise VolumeError(f"it is cut off: its {self._encoding} compression does not end; {AGAIN}")
        return b""

    def _next_piece(self) -> bytes:
        """Read the next bytes, few at the start of a member since bytes after its end are read again for the next."""
        data = self._file.read(self._piece)
        self._piece = min(2 * self._piece, READ)
        return data

    def _start_next_member(self) -> None:
        self._empty_members += self._holds_nothing
        if self._empty_members > MOST_EMPTY_MEMBERS:
            raise VolumeError(
                f"more than {MOST_EMPTY_MEMBERS} parts of its {self._encoding} compression hold nothing: {AGAIN}"
            )
        rest = self._inflater.unused or self._file.read(FIRST_READ)
        if not rest:
            self._ended = True
            return
        if self._next_mark is None or not rest.startswith(self._next_mark):
            raise VolumeError(f"bytes that do not belong to it follow its compressed data: {AGAIN}")
        self._file.seek(self._file.tell() - len(rest))
        self._inflater = self._new()
        self._piece = FIRST_READ
        self._holds_nothing = True


def require_possible(file: BinaryIO, header: Header) -> None:
    """Check that a file is long enough for the voxels that its header claims.

    Args:
        file: The file; its position is kept.
        header: Its header.

    Raises:
        VolumeError: It cannot hold them, or without compression holds something else after them.
    """
    size = os.fstat(file.fileno()).st_size
    needed = header.offset + header.nbytes
    claim = f"its header claims {' x '.join(map(str, header.shape))} voxels, {header.nbytes} bytes"
    if header.encoding == "raw":
        if size < needed:
            raise VolumeError(f"{claim}, but {max(0, size - header.offset)} follow it: it is cut off; {AGAIN}")
        if size > needed:
            raise VolumeError(f"{claim}, but {size - header.offset} follow it: {AGAIN}")
        return
    stored = max(0, size - (0 if header.whole else header.offset))
    if header.encoding in ("gzip", "zlib") and header.nbytes > DEFLATE_RATIO * stored:
        raise VolumeError(f"{claim}, which a file of {size} bytes cannot hold: {AGAIN}")


def voxel_pieces(file: BinaryIO, header: Header, count: int) -> Iterator[bytes]:
    """Yield the voxels of a file in pieces of `count` bytes, the last one shorter.

    A piece is given out before the checksum is known: use the voxels only after the last piece.

    Raises:
        VolumeError: The data are damaged, shorter or longer than the header claims, or followed by something else.
    """
    file.seek(0 if header.whole else header.offset)
    source: Source = Raw(file) if header.encoding == "raw" else Compressed(file, header.encoding)
    if header.whole:
        _skip(source, header.offset, header)
    left = header.nbytes
    while left:
        piece = _exactly(source, min(count, left), header)
        left -= len(piece)
        yield piece
    if source.read(1):
        raise VolumeError(f"it holds more than the {header.nbytes} bytes of voxels that its header claims: {AGAIN}")


def _skip(source: Source, count: int, header: Header) -> None:
    while count:
        count -= len(_exactly(source, min(count, READ), header))


def _exactly(source: Source, count: int, header: Header) -> bytes:
    parts: list[bytes] = []
    have = 0
    while have < count:
        part = source.read(count - have)
        if not part:
            raise VolumeError(f"it ends before the {header.nbytes} bytes of voxels that its header claims: {AGAIN}")
        parts.append(part)
        have += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
