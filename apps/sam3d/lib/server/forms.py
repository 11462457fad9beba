"""Multipart forms read with little memory: all files of a form are in one temporary file."""

from __future__ import annotations

import codecs
import io
import os
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException, MultiPartParser

from sam3d_label.io import storing

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

CHARSETS = ("utf-8", "ascii", "iso8859-1")
"""Encodings that a form may name. Python has others that take minutes for a text of a MiB, such as punycode."""


class FormReader(MultiPartParser):
    """Reads a multipart form.

    Starlette keeps up to a MiB of each file in memory, and opens a temporary file for each that is larger. Here the
    files of a form are written one after the other to a single temporary file, which has no name.

    Args:
        headers: Headers of the request.
        stream: Its body.
        max_files: Files that the form may have.
        max_fields: Other parts that it may have.
        max_part_size: Bytes of such a part.
    """

    def __init__(
        self, headers: Headers, stream: AsyncGenerator[bytes, None], max_files: int, max_fields: int, max_part_size: int
    ) -> None:
        super().__init__(headers, stream, max_files=max_files, max_fields=max_fields, max_part_size=max_part_size)
        self._shared: SharedFile | None = None

    async def parse(self) -> FormData:
        """Return the fields and files.

        Raises:
            MultiPartException: It is no form, its text has an unusual encoding, or it has too many parts.
            StorageError: The disk for temporary files is full.
        """
        _, options = parse_options_header(self.headers["Content-Type"])
        charset = options.get(b"charset", b"utf-8").decode("latin-1")
        if not is_plain(charset):
            raise MultiPartException("The form's charset is not supported: use UTF-8")
        with storing(Path("The upload")):
            return await super().parse()

    def on_headers_finished(self) -> None:
        """Write a file to a section of the shared file."""
        super().on_headers_finished()
        upload = self._current_part.file
        if upload is not None:
            if self._shared is None:
                self._shared = SharedFile()
            upload.file.close()
            section = Section(self._shared)
            upload.file = section  # type: ignore[assignment]  # it has all that Starlette uses of a temporary file
            self._files_to_close_on_error[-1] = section  # type: ignore[call-overload]  # likewise


def is_plain(charset: str) -> bool:
    """Return whether a form may be in this encoding."""
    try:
        return codecs.lookup(charset).name in CHARSETS
    except (LookupError, ValueError):
        return False


class SharedFile:
    """A temporary file without a name that holds others, which are written one after the other."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # closed with the last section
        self._sections = 0
        self.end = 0

    def open_section(self) -> None:
        """Count a section that uses the file."""
        self._sections += 1

    def close_section(self) -> None:
        """Remove the file when its last section is closed."""
        self._sections -= 1
        if not self._sections:
            self._file.close()

    def write(self, content: bytes | memoryview) -> None:
        """Append."""
        rest = memoryview(content)
        while rest:
            written = os.pwrite(self._file.fileno(), rest, self.end)
            self.end += written
            rest = rest[written:]

    def read_into(self, target: memoryview, position: int) -> int:
        """Read up to the length of `target`; return the number of bytes."""
        return os.preadv(self._file.fileno(), [target], position)


class Section(io.RawIOBase):
    """One of the files in a shared file: written once from beginning to end, then read.

    Args:
        shared: The shared file.
    """

    def __init__(self, shared: SharedFile) -> None:
        self._shared = shared
        self._begin = self._size = self._position = 0
        shared.open_section()

    def close(self) -> None:
        """Close the section."""
        if not self.closed:
            super().close()
            self._shared.close_section()

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return whether no other section of the shared file has been written yet."""
        return not self._size or self._begin + self._size == self._shared.end

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position; return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError("There is no position before the beginning of a file")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, target: WriteableBuffer) -> int:
        """Read up to the length of `target`; return the number of bytes."""
        view = memoryview(target).cast("B")[: max(0, self._size - self._position)]
        count = self._shared.read_into(view, self._begin + self._position) if view else 0
        self._position += count
        return count

    def write(self, content: ReadableBuffer) -> int:
        """Append all bytes; return their number.

        Raises:
            ValueError: The position is not the end, or another section has been written since.
        """
        if self._position != self._size or not self.writable():
            raise ValueError("A section is written once, from its beginning to its end")
        if not self._size:
            self._begin = self._shared.end
        written = memoryview(content).cast("B")
        self._shared.write(written)
        self._size += len(written)
        self._position = self._size
        return len(written)
