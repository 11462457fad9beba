"""Find out from a file's first bytes which format it has, and read its header."""

from __future__ import annotations

import zlib
from typing import BinaryIO

from sam3d_label.errors import VolumeError
from sam3d_label.image import metaimage_header, nifti_header, nrrd_header
from sam3d_label.image.header import Header, check_suffix, suffix_of

GZIP_MAGIC = b"\x1f\x8b"


def read_header(file: BinaryIO, name: str, max_bytes: int) -> Header:
    """Read the header of an image file, and nothing after it.

    Args:
        file: The file, at its start.
        name: Its name, whose suffix must agree with the content.
        max_bytes: How long a header may be.

    Raises:
        VolumeError: It is of another format than its name says, refers to another file, or is damaged.
    """
    expected = check_suffix(name)
    head = file.read(nifti_header.LONGEST)
    if not head:
        raise VolumeError("it is empty: copy or export it again")
    compressed = head.startswith(GZIP_MAGIC)
    if compressed:
        head = _inflated_head(head, file, nifti_header.LONGEST)
    found = _format_of(head)
    if found != expected or compressed != suffix_of(name).endswith(".gz"):
        content = f"{'gzip-compressed ' if compressed else ''}{found or 'data of an unknown format'}"
        raise VolumeError(
            f"its name ends in {suffix_of(name)}, but it holds {content}: correct its name or export it again"
        )
    if found == "NIfTI":
        return nifti_header.parse(head, compressed, max_bytes)
    file.seek(0)
    start = file.read(max_bytes)
    return nrrd_header.parse(start) if found == "NRRD" else metaimage_header.parse(start)


def _format_of(head: bytes) -> str | None:
    if nrrd_header.MAGIC.match(head):
        return "NRRD"
    if nifti_header.is_nifti(head):
        return "NIfTI"
    if metaimage_header.MAGIC.match(head):
        return "MetaImage"
    return None


def _inflated_head(head: bytes, file: BinaryIO, length: int) -> bytes:
    """Return the first bytes of a gzip file's content."""
    inflater = zlib.decompressobj(31)
    inflated = b""
    try:
        while head and len(inflated) < length and not inflater.eof:
            inflated += inflater.decompress(head, length - len(inflated))
            head = inflater.unconsumed_tail or file.read(4096)
    except zlib.error as error:
        raise VolumeError(f"its gzip compression is damaged ({error}): copy or export it again") from error
    if not inflated:
        raise VolumeError("it is a gzip file without content: copy or export it again")
    return inflated
