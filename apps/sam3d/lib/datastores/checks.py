"""Checks of the datastore: ids, tags, file types, and labels that fit their image."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sam3d_label.errors import Sam3dError, VolumeError
from sam3d_label.image.grid import SAVED, corner_shift, same_place
from sam3d_label.image.labels import as_label
from sam3d_label.image.limits import MIB, default_limits
from sam3d_label.image.listing import EXTENSIONS, LONGEST_ID, id_fault
from sam3d_label.image.sniff import read_header
from sam3d_label.image.volume import Volume

TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class IdError(Sam3dError):
    """An image id or a label tag that cannot name a file."""


def check_id(image_id: str) -> str:
    """Check that an image id names one file in one folder.

    Raises:
        IdError: It is empty, too long, hidden, begins or ends with a space, or holds a path separator or a control
            character.
    """
    if reason := id_fault(image_id):
        raise IdError(f"{image_id[:LONGEST_ID]!r} cannot be an image id: {reason}")
    return image_id


def check_tag(tag: str) -> str:
    """Check that a label tag names one folder.

    Raises:
        IdError: It holds anything but letters, digits, dot, dash and underscore, or starts with a dot.
    """
    if not isinstance(tag, str) or not TAG.fullmatch(tag):
        raise IdError(
            f"{tag!r} cannot be a label tag: use letters, digits, dots, dashes and underscores, such as final"
        )
    return tag


def check_label(label: Volume, image: Volume) -> None:
    """Compare a label with its image.

    Raises:
        VolumeError: The grids differ, a corner is shifted by more than a tenth of a voxel (`grid.SAVED`), or the values
            are not whole numbers.
    """
    if label.shape != image.shape:
        raise VolumeError(f"The label has {_size(label)} voxels, its image {_size(image)}: save it on the image's grid")
    shift = corner_shift(label.affine, image.affine, image.shape)
    if not same_place(shift, image.affine, SAVED):
        raise VolumeError(
            f"The label is shifted by up to {shift:.3g} mm from its image: save it with the image's geometry"
        )
    if as_label(label).array.min() < 0:
        raise VolumeError("The label's values are not whole numbers from 0: save a label map, not an image")


def check_extension(extension: str) -> None:
    """Check that an extension is one of a volume.

    Raises:
        VolumeError: It is none of them.
    """
    if extension.lower() not in EXTENSIONS:
        raise VolumeError(
            f"A file of type {extension or '(none)'!r} is not supported: send one of {', '.join(EXTENSIONS)}"
        )


def is_volume(file: str | Path) -> bool:
    """Return whether the first bytes of a file are those of a volume.

    A link may lead elsewhere since the folder was listed: only volumes leave the server.
    """
    if not os.path.isfile(file):  # a pipe would never end
        return False
    return any(_begins_as(Path(file), extension) for extension in EXTENSIONS)


def _begins_as(file: Path, extension: str) -> bool:
    try:
        with file.open("rb") as opened:
            read_header(opened, f"a{extension}", default_limits().max_header_mb * MIB)
    except (VolumeError, OSError):
        return False
    return True


def same_bytes(one: Path, other: Path) -> bool:
    """Return whether two files exist and are equal."""
    return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()


def _size(volume: Volume) -> str:
    return " x ".join(map(str, volume.shape))
