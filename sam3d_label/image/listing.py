"""Find the volumes of a folder by names, sizes and headers, and the reasons why other files are not listed."""

from __future__ import annotations

import os
import struct
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from sam3d_label.errors import StorageError, VolumeError
from sam3d_label.image.dicom_file import HEAD, begins_as_dicom
from sam3d_label.image.header import Header
from sam3d_label.image.limits import MIB, default_limits
from sam3d_label.image.sniff import read_header
from sam3d_label.image.verify import require_possible, voxel_pieces
from sam3d_label.io import PART

EXTENSIONS = (".nii.gz", ".nii", ".nrrd")
"""Ends of the names of volumes in a studies folder, in lower case. Where two files have one id, the first counts."""

OTHER_FORMATS = (".mha", ".mhd", ".nhdr", ".hdr", ".img", ".img.gz", ".dcm", ".ima", ".zip", ".nii.bz2")
"""Ends of the names of files that hold images in another form; other files, such as notes, are passed over."""

LONGEST_ID = 200
"""Bytes of an id in UTF-8: with the end of a file's name and the mark of a part file it must fit into 255 bytes."""

DICOM_FOLDER = "it holds DICOM files: store the series as .nii.gz, or give the server a DICOMweb address as its studies"
APPLE_DOUBLE = "._"
PIECE = 2**23
PROBED = 8
"""Files of a folder, and folders in it, that are looked at to see whether it holds DICOM."""

Stamp = tuple[int, int, int, int]


@dataclass
class FolderContent:
    """The volumes of a folder.

    Attributes:
        volumes: End of the file's name, as written, by the volume's id.
        unusable: The same for files that would be volumes if they were not damaged.
        skipped: Why a file or folder is not listed, by its name.
    """

    volumes: dict[str, str] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


class FolderReader:
    """Lists the volumes of folders; a file is only read again after it has changed.

    Args:
        extensions: Ends of the names of volumes, in lower case.
    """

    def __init__(self, extensions: Iterable[str] = EXTENSIONS) -> None:
        self._extensions = tuple(sorted(extensions, key=_preference))
        self._known: dict[Path, dict[str, tuple[Stamp, str | None]]] = {}

    def read(self, folder: Path, preferred: Mapping[str, str] | None = None) -> FolderContent:
        """List a folder; one that does not exist is empty.

        Args:
            folder: The folder; folders in it are not opened.
            preferred: End of the file's name by id, for ids that have more than one file.
        """
        found, known = FolderContent(), self._known.get(folder, {})
        seen: dict[str, tuple[Stamp, str | None]] = {}
        candidates: dict[str, list[str]] = {}
        for entry in _entries(folder):
            name, extension = entry.name, end_of(entry.name, self._extensions)
            if name.startswith(PART):
                continue
            stamp, before = _stamp(entry), known.get(name)
            if before and before[0] == stamp:
                reason = before[1]
            else:
                reason = fault_of(Path(entry.path), extension) if extension else _other(entry)
            seen[name] = stamp, reason
            if reason:
                found.skipped[name] = reason
            if extension and not (reason and _name_fault(name, extension)):
                if not reason:
                    candidates.setdefault(name[: -len(extension)], []).append(extension)
                elif os.path.isfile(entry.path):  # `entry.is_file` raises on a loop of links
                    found.unusable.setdefault(name[: -len(extension)], extension)
        self._known[folder] = seen
        for image, extensions in candidates.items():
            self._choose(image, extensions, (preferred or {}).get(image, ""), found)
        return found

    def _choose(self, image: str, extensions: list[str], preferred: str, found: FolderContent) -> None:
        """List the one file of an id that is used; report the others as skipped."""
        first, *rest = sorted(extensions, key=lambda end: (end != preferred, _preference(end), end))
        found.volumes[image] = first
        found.unusable.pop(image, None)
        for extension in rest:
            found.skipped[image + extension] = f"{image + first} has the same id: rename one of the two"


def end_of(name: str, extensions: Iterable[str] = EXTENSIONS) -> str:
    """Return the end of a file's name, as written, that names a volume's format in any case; empty for other files."""
    lower = name.lower()
    return next((name[-len(end) :] for end in extensions if lower.endswith(end) and len(name) > len(end)), "")


def id_fault(image: str) -> str | None:
    """Return why an id is not a valid file name on every file system and client; None if it is.

    Args:
        image: The id.
    """
    if not image or image.startswith("."):
        return "use at least one character, the first not a dot"
    try:
        size = len(image.encode())
    except UnicodeEncodeError:
        return "it is not valid UTF-8"
    if size > LONGEST_ID:
        return f"it has {size} bytes in UTF-8, at most {LONGEST_ID} are allowed"
    if reason := hidden_character(image):
        return reason
    if image != image.strip():
        return "remove the space at its beginning or end"
    if set(image) & {"/", "\\"}:
        return "it must be a name, not a path: remove / and \\"
    return None


def hidden_character(text: str) -> str | None:
    """Return which character of a name is invisible, or looks like a space without being one; None if there is none.

    Args:
        text: The name.
    """
    hidden = next((character for character in text if not character.isprintable()), None)
    if hidden is None:
        return None
    code = f"U+{ord(hidden):04X}"
    if unicodedata.category(hidden) == "Zs":
        return f"it holds {code} ({unicodedata.name(hidden)}), which looks like a space: use a plain space"
    called = unicodedata.name(hidden, "a control character" if ord(hidden) < 160 else "no character of Unicode")
    return f"it holds {code} ({called}), which cannot be seen: remove it"


def fault_of(file: Path, extension: str) -> str | None:
    """Return why a file is not a volume, without reading all of it if possible; None if it seems to be one.

    A file may still be unusable, for example because it has four dimensions: `Volume.open` checks that.

    Args:
        file: The file.
        extension: End of its name.
    """
    if reason := _name_fault(file.name, extension):
        return reason
    if file.is_dir():
        return "it is a folder"
    if not file.exists():
        return "it is a link to a file that does not exist"
    if not file.is_file():
        return "it is not a regular file"
    try:
        with file.open("rb") as opened:
            header = read_header(opened, file.name, default_limits().max_header_mb * MIB)
            require_possible(opened, header)
            _require_end(opened, header)
    except VolumeError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None


def _require_end(file: BinaryIO, header: Header) -> None:
    """Check that compressed data are not cut off.

    The last four bytes of a gzip file give the size of its content. If it differs from the size in the header, as in
    a file of several members, the content is decompressed to find out.
    """
    if header.encoding != "gzip":
        return
    file.seek(-4, os.SEEK_END)
    (size,) = struct.unpack("<I", file.read(4))
    if size != (header.nbytes + (header.offset if header.whole else 0)) % 2**32:
        for _ in voxel_pieces(file, header, PIECE):
            pass


def _name_fault(name: str, extension: str) -> str | None:
    if name.startswith(APPLE_DOUBLE):
        return "macOS keeps attributes of another file in it"
    if name.startswith("."):
        return "its name begins with a dot"
    reason = id_fault(name[: -len(extension)])
    return f"its name cannot be an image id: {reason}" if reason else None


def _preference(extension: str) -> int:
    lower = extension.lower()
    return EXTENSIONS.index(lower) if lower in EXTENSIONS else len(EXTENSIONS)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    except PermissionError as error:
        raise StorageError(f"{folder} cannot be read: give this user the right to list it", error.errno) from error


def _stamp(entry: os.DirEntry[str]) -> Stamp:
    """Return values that change whenever a file or its permissions do."""
    try:
        stat = entry.stat()
    except OSError:
        return 0, 0, 0, 0
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _other(entry: os.DirEntry[str]) -> str | None:
    """Return why a file that has not the name of a volume, but may contain an image, is not listed; None for others."""
    if entry.name.startswith("."):
        return None
    if os.path.isdir(entry.path):
        return DICOM_FOLDER if _has_dicom(entry) else None
    if entry.name.lower().endswith(OTHER_FORMATS):
        return f"a studies folder holds {', '.join(EXTENSIONS)}: store the volume as one of them"
    return None


def _has_dicom(folder: os.DirEntry[str]) -> bool:
    """Return whether a folder, or one of the first folders in it, begins with a DICOM file."""
    for number, (place, folders, files) in enumerate(os.walk(folder.path)):
        folders.sort()
        if "DICOMDIR" in files or any(is_dicom(Path(place, name)) for name in sorted(files)[:PROBED]):
            return True
        if number >= PROBED:
            return False
    return False


def is_dicom(file: Path) -> bool:
    """Return whether a file begins as DICOM files do."""
    try:
        if not file.is_file():
            return False
        with file.open("rb") as opened:
            return begins_as_dicom(opened.read(HEAD))
    except OSError:
        return False
