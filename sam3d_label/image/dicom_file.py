"""Recognise a DICOM file by its first bytes."""

from __future__ import annotations

PREAMBLE = 128
HEAD = PREAMBLE + 4
"""Bytes that `begins_as_dicom` reads."""

SUFFIXES = (".dcm", ".ima")
"""Ends of the names of DICOM files, in lower case."""

LONGEST_FIRST = 1024
"""Bytes of a first element; it is a length, a character set or a UID."""


def has_preamble(head: bytes) -> bool:
    """Return whether a file begins with the preamble of the standard."""
    return head[PREAMBLE:HEAD] == b"DICM"


def begins_as_dicom(head: bytes) -> bool:
    """Return whether a file begins as DICOM files do, with or without a preamble.

    Args:
        head: Its first `HEAD` bytes.
    """
    return has_preamble(head) or _is_first_element(head)


def is_explicit(head: bytes) -> bool:
    """Return whether the first element of a file without preamble names the type of its value."""
    return head[4:6].isalpha() and head[4:6].isupper()


def _is_first_element(head: bytes) -> bool:
    """Return whether a file begins with a short element of the groups that come first (2: file, 8: identification)."""
    if len(head) < 16 or head[:2] not in (b"\2\0", b"\x08\0") or head[3] != 0:
        return False
    length = int.from_bytes(head[6:8] if is_explicit(head) else head[4:8], "little")
    return length % 2 == 0 and 0 < length <= LONGEST_FIRST
